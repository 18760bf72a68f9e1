"""A CSV: `image,label[,mask][,patient][,split]`, paths from its own folder."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.names import class_order, find_patients, image_stem, require_part
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.data.reading import read_volume
from modelsgenesis.errors import DataError

_COLUMNS = ("image", "label", "mask", "patient", "split")
Row = dict[str, str]


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """Read a CSV with a header line; the names of its columns are taken without case and spaces.

    Raises:
        DataError: It cannot be read, lacks a column, has an incomplete line, or has no line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV: {error}") from error
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}")
    if not rows:
        raise DataError(f"{path}: holds a header and no line")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}: line {number} has not the {len(columns)} fields of the header")
    return [{name: value.strip() for name, value in row.items()} for row in rows]


def read_table(path: Path, pattern: str | None = None) -> LabelledData:
    """Read a CSV of labelled images.

    The column `image` holds a file, several channels separated by `;`. With a column `mask` it is a segmentation:
    `label` then names the structure of mask value 1, several separated by `;` those of 1, 2, …; without names the
    values of the masks are looked up. Else `label` is the name of a class, several separated by `;` where several may
    hold. Without a column `patient` the pattern tells the patients, else the part of the names before the last `_`.

    Args:
        path: The CSV.
        pattern: Tells the patient from the name of the first image.

    Raises:
        DataError: Columns or files are missing, a line has no label, or lines do not fit together.

    Example:
        data = read_labelled("labels.csv")  # image,label,patient,split
        data.labels, data.cases[0].patient, data.cases[0].part  # ('normal', 'nodule'), 'p01', 'training'
    """
    rows = read_rows(path, ("image",))
    segmentation = "mask" in rows[0]
    if not segmentation and "label" not in rows[0]:
        raise DataError(f"{path}: neither a column label nor a column mask; its columns are {', '.join(rows[0])}")
    images = [[path.parent / name.strip() for name in row["image"].split(";")] for row in rows]
    _check_files(path, rows, images)
    patients, rule = _patients(path, rows, images, pattern)
    parts = [require_part(row.get("split", ""), str(path)) for row in rows]
    labels, values, classes = _masks(path, rows) if segmentation else _classes(path, rows)
    unknown = [name for name in rows[0] if name not in _COLUMNS]
    return LabelledData(
        name=path.stem,
        task="segmentation" if segmentation else "classification",
        cases=tuple(
            LabelledCase(
                name=name,
                patient=patient,
                images=tuple(FileImage(path=file) for file in files),
                mask=path.parent / row["mask"] if segmentation else None,
                classes=held,
                part=part,
            )
            for name, patient, files, row, held, part in zip(
                _unique_names(path, images), patients, images, rows, classes, parts, strict=True
            )
        ),
        labels=labels,
        values=values,
        multilabel=not segmentation and any(len(held) != 1 for held in classes),
        channels=("image",) if len(images[0]) == 1 else tuple(f"channel {i}" for i in range(len(images[0]))),
        notes=(*((rule,) if rule else ()), *((f"columns not used: {', '.join(unknown)}",) if unknown else ())),
    )


def _check_files(path: Path, rows: Sequence[Row], images: Sequence[Sequence[Path]]) -> None:
    """Refuse empty fields, another number of channels than the first line has, and files that are not there."""
    for number, (row, files) in enumerate(zip(rows, images, strict=True), start=2):
        empty = [name for name in ("image", "mask", "patient") if row.get(name) == ""]
        if empty:
            raise DataError(f"{path}: line {number} has no {empty[0]}")
        if len(files) != len(images[0]):
            raise DataError(f"{path}: line {number} has {len(files)} channels; expected {len(images[0])} as in line 2")
    listed = [file for files in images for file in files]
    listed += [path.parent / row["mask"] for row in rows if "mask" in row]
    missing = [str(file) for file in listed if not file.exists()]
    if missing:
        raise DataError(f"{path}: lists {len(missing)} files that are not there, such as {missing[0]}")


def _patients(
    path: Path, rows: Sequence[Row], images: Sequence[Sequence[Path]], pattern: str | None
) -> tuple[list[str], str]:
    if "patient" in rows[0] and pattern is None:
        return [row["patient"] for row in rows], ""
    return find_patients([image_stem(files[0]) for files in images], pattern, numbered=True)


def _unique_names(path: Path, images: Sequence[Sequence[Path]]) -> list[str]:
    """Return the stems of the first images, with their folders where stems repeat.

    Raises:
        DataError: One image is in two lines.
    """
    first = [files[0] for files in images]
    twice = [file for file, count in Counter(first).items() if count > 1]
    if twice:
        raise DataError(f"{path}: lists {twice[0]} in {first.count(twice[0])} lines; expected each image once")
    stems = [image_stem(file) for file in first]
    if len(set(stems)) == len(stems):
        return stems
    return [str(file.relative_to(path.parent)) if file.is_relative_to(path.parent) else str(file) for file in first]


def _classes(path: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[()], list[tuple[int, ...]]]:
    """Return the names of the classes and the classes of each line; no name means none where several may hold."""
    held = [[name.strip() for name in row["label"].split(";") if name.strip()] for row in rows]
    several = any(len(names) > 1 for names in held)
    for number, names in enumerate(held, start=2):
        if not names and not several:
            raise DataError(f"{path}: line {number} has no label")
    labels = class_order([name for names in held for name in names])
    index = {name: position for position, name in enumerate(labels)}
    return labels, (), [tuple(sorted({index[name] for name in names})) for names in held]


def _masks(
    path: Path, rows: Sequence[Row]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], list[tuple[int, ...]]]:
    """Return the names and values of the structures."""
    named = {row.get("label", "") for row in rows} - {""}
    if len(named) > 1:
        first, second = sorted(named)[:2]
        raise DataError(
            f"{path}: with masks, label names the structures of the values 1, 2, … and is the same in every line; "
            f"received {first!r} and {second!r}"
        )
    if named:
        names = [name.strip() for name in named.pop().split(";")]
        values = list(range(len(names) + 1))
    else:
        found = {0}
        for row in rows:
            found |= set(np.unique(read_volume(path.parent / row["mask"]).array).tolist())
        values = sorted(int(value) for value in found)
        names = [str(value) for value in values[1:]]
    return ("background", *names), tuple((value,) for value in values), [()] * len(rows)
