"""Tables: a CSV `image,label[,mask][,patient][,split]` with paths from its own folder, and LUNA16's candidates."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from modelsgenesis.data.dataset_json import is_there
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.preparation import read_mask
from modelsgenesis.data.labelled.sources import CubeImage, FileImage
from modelsgenesis.data.names import class_order, find_patients, require_part, unique_names
from modelsgenesis.data.volume import Volume, file_stem
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_text

LUNA_NAMES = ("candidates_V2.csv", "candidates.csv")
"""What LUNA16's tables are called, the better one first."""

_LUNA_COLUMNS = ("seriesuid", "coordx", "coordy", "coordz", "class")
_SIDE = 64.0  # mm; a nodule is at most 30, and its surroundings tell it from a vessel
_COLUMNS = ("image", "label", "mask", "patient", "split")
_LIMIT = 1 << 28  # bytes; LUNA16's 750,000 candidates have 60 million
Row = dict[str, str]


def read_table(path: Path, pattern: str | None = None) -> LabelledData:
    """Read a CSV of labelled images, or LUNA16's candidates by their columns.

    Fields are separated by commas, semicolons or tabs. The names of the columns are taken without case and blanks.

    Args:
        path: The CSV, in UTF-8.
        pattern: Tells the patient from the name of the first image.

    Raises:
        DataError: It cannot be read, lacks a column or has one twice, has an incomplete line, or has no line; or what
            `_read_images` and `_read_candidates` say.

    Example:
        data = read_labelled("labels.csv")  # image,label,patient,split
        data.labels, data.cases[0].patient, data.cases[0].part  # ('normal', 'nodule'), 'p01', 'training'
    """
    text = read_text(path, DataError, _LIMIT)
    header = next(iter(text.splitlines()), "")
    separator = next((sign for sign in ",;\t" if sign in header), ",")
    with parsing(path, DataError, what="as a CSV", remedy="expected a header, and a line an image"):
        columns, *lines = filter(None, csv.reader(io.StringIO(text, ""), delimiter=separator, skipinitialspace=True))
        columns = [name.strip().lower() for name in columns]
        named = [name for name in columns if name]
        if "\0" in text or not lines or len(set(named)) < len(named):
            raise ValueError("it holds NULs, a column twice, or no line")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(columns):
                raise ValueError(f"line {number} has {len(line)} fields and the header {len(columns)}")
    rows = [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines]
    if {"seriesuid", "class"} <= rows[0].keys():
        return _read_candidates(path, rows)
    return _read_images(path, rows, pattern)


def _require(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(rows[0]) or 'none'}")


def _read_images(path: Path, rows: Sequence[Row], pattern: str | None) -> LabelledData:
    """Read a line an image.

    The column `image` holds a file, several channels separated by `;`. With a column `mask` it is a segmentation:
    `label` then names the structure of mask value 1, several separated by `;` those of 1, 2, …; without names the
    values of the masks are looked up. Else `label` is the name of a class, several separated by `;` where several may
    hold.

    Raises:
        DataError: Columns or files are missing, a line has no label, or lines do not fit together.
        ScanError: A mask whose values are looked up cannot be used.
    """
    segmentation = "mask" in rows[0]
    _require(path, rows, ("image",) if segmentation else ("image", "label"))
    images = [tuple(path.parent / name.strip() for name in row["image"].split(";")) for row in rows]
    masks = [path.parent / row["mask"] if segmentation else None for row in rows]
    for number, (row, files) in enumerate(zip(rows, images, strict=True), start=2):
        if empty := [name for name in ("image", "mask", "patient") if row.get(name) == ""]:
            raise DataError(f"{path}: line {number} has no {empty[0]}")
        if len(files) != len(images[0]):
            raise DataError(f"{path}: line {number} has {len(files)} channels; expected {len(images[0])} as in line 2")
    missing = [file for file in chain(*images, masks) if file and not is_there(file)]
    if missing:
        raise DataError(f"{path}: lists {len(missing)} files that are not there, such as {missing[0]}")
    values, classes = [], [()] * len(rows)
    if segmentation:
        labels, values = _structures(path, rows)
    else:
        labels, classes = _classes(path, rows)
    first = [files[0] for files in images]
    if "patient" in rows[0] and pattern is None:
        patients, notes = [row["patient"] for row in rows], []
    else:
        patients, rule = find_patients(first, pattern, classes=classes)
        notes = [rule]
    if unknown := [name for name in rows[0] if name not in _COLUMNS]:
        notes.append(f"columns not used: {', '.join(unknown)}")
    names = unique_names(first, path.parent)
    cases = [
        LabelledCase(
            name=names[number],
            patient=patients[number],
            images=tuple(FileImage(path=file) for file in images[number]),
            mask=masks[number],
            classes=classes[number],
            part=require_part(row.get("split", ""), str(path)),
        )
        for number, row in enumerate(rows)
    ]
    return LabelledData(
        name=path.stem,
        task="segmentation" if segmentation else "classification",
        cases=tuple(cases),
        labels=labels,
        values=tuple((value,) for value in values),
        multilabel=not segmentation and any(len(held) != 1 for held in classes),
        channels=("image",) if len(images[0]) == 1 else tuple(f"channel {i}" for i in range(len(images[0]))),
        notes=tuple(notes),
    )


def _classes(path: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Return the names of the classes and the classes of each line; no name means none where several may hold."""
    held = [[name.strip() for name in row["label"].split(";") if name.strip()] for row in rows]
    several = any(len(names) > 1 for names in held)
    for number, names in enumerate(held, start=2):
        if not names and not several:
            raise DataError(f"{path}: line {number} has no label")
    labels = class_order([name for names in held for name in names])
    index = {name: position for position, name in enumerate(labels)}
    return labels, [tuple(sorted({index[name] for name in names})) for names in held]


def _structures(path: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[int]]:
    """Return the names and values of the background and the structures."""
    named = sorted({row.get("label", "") for row in rows} - {""})
    names = [name.strip() for name in named[0].split(";")] if named else []
    if len(named) > 1 or "" in names:
        raise DataError(
            f"{path}: with masks, label names the structures of the values 1, 2, … and is the same in every line; "
            f"received {' and '.join(map(repr, named[:2]))}"
        )
    if named:
        return ("background", *names), list(range(len(names) + 1))
    values = {0}
    for mask in {path.parent / row["mask"]: None for row in rows}:
        values |= set(np.unique(read_mask(mask).array).tolist())
        if min(values) < 0:
            raise DataError(
                f"{mask}: holds {min(values)}; expected 0 for the background and numbers above for structures: set "
                "voxels that nobody labelled to 0"
            )
    return ("background", *map(str, sorted(values)[1:])), sorted(values)


def _read_candidates(path: Path, rows: Sequence[Row]) -> LabelledData:
    """Read LUNA16's candidates, points in chest CT that are nodules or not, each as a cube of its scan.

    The scans, `<seriesuid>.mhd`, lie anywhere below the table's folder; all candidates of one are of one patient. Those
    whose scan is not there are left out, and that is noted.

    Raises:
        DataError: Columns are missing, a number cannot be read, or no scan is there.
    """
    _require(path, rows, _LUNA_COLUMNS)
    suffixes = ("nii.gz", "mha", "mhd")
    scans = {file_stem(scan): scan for suffix in suffixes for scan in path.parent.rglob(f"*.{suffix}")}
    series = {row["seriesuid"] for row in rows}
    missing = sorted(series - scans.keys())
    if len(missing) == len(series):
        raise DataError(
            f"{path}: none of the scans of its {len(series)} series is below {path.parent}, as {missing[0]}.mhd"
        )
    last: dict[Path, Volume] = {}
    cases = []
    for number, row in enumerate(rows):
        name = row["seriesuid"]
        if name in scans:
            with parsing(
                f"{path}: line {number + 2}", DataError, remedy="expected three coordinates in mm and class 0 or 1"
            ):
                x, y, z = (float(row[axis]) for axis in _LUNA_COLUMNS[1:4])
                held = ("0", "1").index(row["class"])
                if not math.isfinite(x + y + z):
                    raise ValueError(f"{x}, {y}, {z}")
            # The world of LUNA16 is LPS, whose first two axes point the other way than those of RAS.
            cube = CubeImage(path=scans[name], centre=(-x, -y, z), side=_SIDE, last=last)
            cases.append(LabelledCase(name=f"{name}_{number:06d}", patient=name, images=(cube,), classes=(held,)))
    notes = [f"cubes of {_SIDE:g} mm around the candidates; all of a series are one patient"]
    if missing:
        notes.append(f"left out {len(rows) - len(cases)} candidates of {len(missing)} series whose scans are not there")
    return LabelledData(
        name=path.parent.resolve().name,
        task="classification",
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        labels=("no nodule", "nodule"),
        modality="ct",
        fit="resize",
        notes=tuple(notes),
    )
