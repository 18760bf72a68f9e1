"""Reading labelled data sets: a layout is a function from its file or folder to `LabelledData`, named in `_read`."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import dataset_json
from modelsgenesis.data.cases import LabelledCase as LabelledCase
from modelsgenesis.data.cases import LabelledData as LabelledData
from modelsgenesis.data.cases import LabelledTask, structure_values, unread
from modelsgenesis.data.cases import data_contract as data_contract
from modelsgenesis.data.cases import prepare_case as prepare_case
from modelsgenesis.data.finding import (
    LEFTOVER,
    OWN_PATIENT,
    class_order,
    find_patients,
    holds_images,
    is_label_map,
    modality_of,
    part_of,
    scan_sources,
    skipped_notes,
    unique_names,
)
from modelsgenesis.data.pairs import read_pairs
from modelsgenesis.data.reading import choose_contract
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, counted, did_you_mean, printable, require
from modelsgenesis.files import parsing, read_text

_TASKS: dict[str, LabelledTask] = {"seg": "segmentation", "cls": "classification"}
_LAYOUTS = (
    "expected a Decathlon or nnU-Net dataset.json, a CSV with a column image, folders images and labels with files of "
    "the same names, or one folder per class"
)
_LOOKED_AT = 8  # images whose headers and values tell dimensions and modality
_COLUMNS = ("image", "label", "mask", "patient", "split")
_LIMIT = 1 << 28  # bytes of a table

Labels = tuple[tuple[str, ...], tuple[tuple[int, ...], ...], list[tuple[int, ...]]]
"""Names of the classes, their values in masks, and the classes of each line of a table."""


def find_task(task: str) -> LabelledTask:
    """Return the task by its long or short name.

    Raises:
        ConfigurationError: It is unknown.

    Example:
        >>> find_task("seg")
        'segmentation'
    """
    for short, long in _TASKS.items():
        if task in (short, long):
            return long
    raise ConfigurationError(f"task: received {task!r}; {did_you_mean(task, _TASKS)}")


def read_labelled(
    source: str | Path, *, task: str | None = None, modality: str | None = None, patient_pattern: str | None = None
) -> LabelledData:
    r"""Read a labelled data set, in whichever of the known layouts it is.

    Args:
        source: A Decathlon or nnU-Net folder or its `dataset.json`; a CSV of images with labels, or its folder; or a
            folder with one folder of images per class; or one of images and label maps, see `read_pairs`.
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data set says or its values tell.
        patient_pattern: A regular expression on a file's name, else its path, whose first group is the patient, such
            as `(\d+)_`.

    Returns:
        The data set; its `notes` say what was decided for it.

    Raises:
        DataError: The layout is not known, or the data set cannot be used, or is for another task.
        ConfigurationError: Task, modality or pattern cannot be.
        ScanError: A file that tells structures, dimensions or modality cannot be read.

    Example:
        data = read_labelled("Task04_Hippocampus")
        len(data.cases), data.labels  # 195, ('background', 'Anterior', 'Posterior')
    """
    wanted = None if task is None else find_task(task)
    if modality is not None and modality not in CONTRACTS:
        raise ConfigurationError(f"modality: received {modality!r}; {did_you_mean(modality, CONTRACTS)}")
    with parsing(source, DataError, what="as labelled data", remedy="check the path"):
        data = _read(Path(source).expanduser(), patient_pattern, wanted)
    message = f"{data.name}: its labels are for {data.task}; {wanted} was asked for"
    require(wanted in (None, data.task), DataError, message)
    return _described(replace(data, notes=tuple(map(printable, data.notes))), modality)


def _read(path: Path, pattern: str | None, wanted: LabelledTask | None) -> LabelledData:
    """Read by the ending of a file, or by what a folder holds."""
    require(dataset_json.is_there(path), DataError, f"{path}: no such folder or file; {_LAYOUTS}")
    inside = sorted(one for one in path.iterdir() if not one.name.startswith(".")) if path.is_dir() else []
    listed = [one for one in inside if one.name == dataset_json.NAME]
    tables = listed or [one for one in inside if one.suffix.lower() == ".csv"]
    listing = list(filter(lists_images, tables))
    paired = read_pairs(path, pattern, wanted) if inside and not listing else ""
    if not isinstance(paired, str):
        return paired
    tables = listing or tables or [path]
    if len(tables) > 1:
        raise DataError(f"{path}: holds {tables[0].name} and {tables[1].name}; name the one to read")
    # A folder without a table of its own is one of classes.
    if tables == [path] and any(one.is_dir() for one in inside):
        data = _read_folders(path, pattern)
        return replace(data, notes=(*data.notes, paired)) if paired else data
    suffix = tables[0].suffix.lower()
    require(suffix in (".json", ".csv"), DataError, f"{path}: of no known layout, or empty; {_LAYOUTS}")
    return (_read_listed if suffix == ".json" else _read_table)(tables[0], pattern)


def _described(data: LabelledData, modality: str | None) -> LabelledData:
    """Add dimensions and modality where headers and values tell them."""
    scans: list[ScanReference] = []
    # Spread over the whole set: the first cases may all come from one scanner.
    for index in np.linspace(0, len(data.cases) - 1, _LOOKED_AT).round().astype(int):
        image = data.cases[index].images[0]
        found = [image] if image.shape else scan_sources(image.path)[0][image.index or 0 :]
        scans += found[:1]  # what is not there or cannot be read, preparation refuses
    axes = {len(scan.shape) for scan in scans}
    require(len(axes) < 2, DataError, f"{data.name}: planes and volumes in one set; keep them apart")
    data = replace(data, dims=2 if axes == {2} else 3, modality=modality or data.modality)
    if data.modality is None and scans:
        with suppress(DataError):  # whoever needs the modality asks for it; see `data_contract`
            contract, why = choose_contract(scans)
            return replace(data, modality=contract.modality, notes=(*data.notes, why))
    return data


def lists_images(table: Path) -> bool:
    """Tell whether a table is the data set's description, and not one of patients that lies beside the images."""
    header = next(iter(read_text(table, DataError, _LIMIT).splitlines()), "").lower()
    return table.name == dataset_json.NAME or "image" in [name.strip(' "') for name in re.split("[,;\t]", header)]


def _require_files(path: Path, files: Iterable[Path]) -> None:
    if missing := [file for file in dict.fromkeys(files) if not dataset_json.is_there(file)]:
        raise DataError(f"{path}: lists {counted(len(missing), 'file')} not there, such as {missing[0]}")


def _read_listed(path: Path, pattern: str | None) -> LabelledData:
    """Read the data set that a `dataset.json` describes, the Decathlon's or nnU-Net's.

    Args:
        path: The `dataset.json`.
        pattern: Regular expression of the patient in a case's name; see `find_patients`.

    Raises:
        DataError: It cannot be read, describes something else, or a case lacks a file, a channel or a label map.
    """
    described = dataset_json.read_description(path)
    if described is None or not described.training:
        raise DataError(
            f"{path}: no training cases; expected their list, or label maps in labelsTr with its file_ending"
        )
    structures, channels = described.structures(), described.channels or ("image",)
    for case in described.training:
        if case.mask is None or len(case.images) != len(channels):
            given = f"{len(case.images)} images and {'a' if case.mask else 'no'} label map"
            raise DataError(f"{path}: {case.name} has {given}; expected {len(channels)} channels and a label map")
    _require_files(path, (file for case in described.training for file in case.paths))
    # By the name of the case: with a file per channel that of the first would have the channel's number in it.
    paths = [case.images[0].path.with_name(f"{case.name}.nii") for case in described.training]
    patients, rule = find_patients(paths, pattern)
    return LabelledData(
        name=described.name,
        task="segmentation",
        cases=tuple(replace(case, patient=one) for case, one in zip(described.training, patients, strict=True)),
        labels=tuple(structures.values()),
        values=tuple((value,) for value in structures),
        modality=modality_of(channels),
        channels=channels,
        notes=() if rule == OWN_PATIENT else (rule,),
    )


def _read_folders(folder: Path, pattern: str | None) -> LabelledData:
    """Read a folder of classes, or folders `train`, `val`, `test` of classes.

    Args:
        folder: Holds one folder per class; those without an image, and those of label maps, are skipped with a note.
        pattern: Regular expression of the patient in a file's name; by default the patient of DICOM, else see
            `find_patients`.

    Raises:
        DataError: There is one class alone, or a class whose images cannot be read.
    """
    found, skipped = [], []
    for part, place in _class_folders(folder):
        # Masks beside the classes, and what macOS and Windows leave in archives, are not a class of their own.
        kept = not (LEFTOVER.fullmatch(place.name) or is_label_map(place.name) or holds_images(place.name))
        scans, others = scan_sources(place) if kept else ([], [])
        bad = [one for one in others if one.bad]
        # An unreadable image is skipped, but a class that vanishes silently would be another task.
        if bad and not scans:
            raise DataError(f"{place}: no image of this class can be used: {bad[0].source}: {bad[0].reason}")
        if not scans:
            reason = "holds no images, or only label maps, so it is not a class"
            others = [SkippedScan(source=str(place), reason=reason, bad=False)]
        found += [(part, place.name, scan) for scan in scans]
        skipped += others
    names, scans = [name for _, name, _ in found], [scan for *_, scan in found]
    labels, paths = class_order(names), [scan.path for scan in scans]
    alone = f"images of {labels[0]} alone" if labels else "no folder of a class in it"
    remedy = (
        "expected two folders of classes or more, or folders of images and of label maps (NIfTI, NRRD, PNG …) with the "
        "same names"
    )
    require(len(labels) > 1, DataError, f"{folder}: {alone}; {remedy}")
    # The patient of DICOM is known; the names of its files are numbers that tell nothing.
    patients, rule = [scan.group for scan in scans], "patients by the tags of DICOM"
    if pattern is not None or any(scan.format != "DICOM" for scan in scans):
        patients, rule = find_patients(paths, pattern, classes=names)
    cases = []
    for stem, patient, (part, name, scan) in zip(unique_names(paths, folder), patients, found, strict=True):
        case = stem if scan.index is None else f"{stem}[{scan.index}]"
        cases.append(LabelledCase(name=case, patient=patient, images=(scan,), classes=(labels.index(name),), part=part))
    return LabelledData(
        name=folder.resolve().name,
        task="classification",
        cases=tuple(cases),
        labels=labels,
        notes=(f"warning: {rule}" if rule == OWN_PATIENT else rule, *skipped_notes(skipped)),
    )


def _class_folders(folder: Path) -> list[tuple[str | None, Path]]:
    """Return part and folder of each class; what an archive of a Mac leaves beside parts is not one."""
    inner = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    parts = [place for place in inner if not LEFTOVER.fullmatch(place.name)]
    if len(parts) == 1 and holds_images(parts[0].name):
        return _class_folders(parts[0])
    if parts and all(part_of(place.name) for place in parts):
        return [(part_of(place.name), last) for place in parts for _, last in _class_folders(place)]
    return [(None, place) for place in inner]


def _read_table(path: Path, pattern: str | None) -> LabelledData:
    """Read a CSV with an image per line.

    Fields are separated by commas, semicolons or tabs; the names of the columns are taken without case and blanks.
    The column `image` holds a file, several channels separated by `;`. With a column `mask` it is a segmentation:
    `label` then names the structure of mask value 1, several separated by `;` those of 1, 2, …; without names the
    values of the masks are looked up. Else `label` is the name of a class, several separated by `;` where several may
    hold.

    Args:
        path: The CSV, in UTF-8.
        pattern: Regular expression of the patient in the name of the first image.

    Raises:
        DataError: It cannot be read, or lacks a column, a file, or a field of a line; or lines do not fit together.
        ScanError: A mask whose values are looked up cannot be used.
    """
    rows = _rows(path)
    segmentation, columns = "mask" in rows[0], list(rows[0])
    if missing := {"image", "mask" if segmentation else "label"} - set(columns):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; its columns are {', '.join(columns)}")
    files = [[path.parent / name for name in _split(row["image"])] for row in rows]
    for number, (row, channels) in enumerate(zip(rows, files, strict=True), start=2):
        empty = [name for name in ("image", "mask", "patient") if row.get(name) == ""]
        uneven = f"{len(channels)} channels; expected {len(files[0])} as in line 2"
        if empty or len(channels) != len(files[0]):
            raise DataError(f"{path}: line {number} has {f'no {empty[0]}' if empty else uneven}")
    masks = [path.parent / row["mask"] for row in rows if segmentation]
    _require_files(path, chain(*files, masks))  # before the values of masks are looked up
    labels, values, classes = (_structures if segmentation else _classes)(path, rows)
    first, count = [channels[0] for channels in files], len(files[0])
    patients, notes = [row.get("patient", "") for row in rows], []
    if pattern is not None or "patient" not in columns:
        patients, rule = find_patients(first, pattern, classes=classes)
        notes.append(rule)
    if unknown := [name for name in columns if name not in _COLUMNS]:
        notes.append(f"columns not used: {', '.join(unknown)}")
    names = unique_names(first, path.parent)
    return LabelledData(
        name=path.stem,
        task="segmentation" if segmentation else "classification",
        cases=tuple(
            LabelledCase(
                name=names[number],
                patient=patients[number],
                images=tuple(map(unread, files[number])),
                mask=masks[number] if segmentation else None,
                classes=classes[number],
                part=part_of(row.get("split", ""), str(path)),
            )
            for number, row in enumerate(rows)
        ),
        labels=labels,
        values=values,
        multilabel=not segmentation and any(len(held) != 1 for held in classes),
        channels=("image",) if count == 1 else tuple(f"channel {number}" for number in range(count)),
        notes=tuple(notes),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the lines of a table by the names of its columns."""
    text = read_text(path, DataError, _LIMIT)
    # By the header alone, whose names hold no separators, unlike labels and file names.
    header = next(iter(text.splitlines()), "")
    separator = next((sign for sign in ",;\t" if sign in header), ",")
    with parsing(path, DataError, what="as a CSV", remedy="expected a header, and one line per image"):
        columns, *lines = filter(None, csv.reader(io.StringIO(text, ""), delimiter=separator, skipinitialspace=True))
        columns = [name.strip().lower() for name in columns]
        named = [name for name in columns if name]
        # Two columns of one name would overwrite one another without a word.
        if "\0" in text or not lines or len(set(named)) < len(named):
            raise ValueError("it holds NULs, a column twice, or no line")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(columns):
                raise ValueError(f"line {number} has {len(line)} fields and the header {len(columns)}")
    return [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines]


def _split(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(";")]


def _classes(path: Path, rows: Sequence[dict[str, str]]) -> Labels:
    """Return what the lines say of classes; no name means none where several may hold."""
    held = [[name for name in _split(row["label"]) if name] for row in rows]
    # An empty cell is an omission where classes exclude each other, and "none of them" where several may hold.
    if [] in held and not any(len(names) > 1 for names in held):
        raise DataError(f"{path}: line {held.index([]) + 2} has no label")
    labels = class_order([name for names in held for name in names])
    return labels, (), [tuple(sorted({labels.index(name) for name in names})) for names in held]


def _structures(path: Path, rows: Sequence[dict[str, str]]) -> Labels:
    """Return what the lines say of structures, with the background first; without names the masks are looked up."""
    named = sorted({row.get("label", "") for row in rows} - {""})
    names = _split(named[0]) if named else []
    if len(named) > 1 or "" in names:
        received = " and ".join(map(repr, named[:2]))
        raise DataError(f"{path}: with masks, label names the structures 1, 2, … in every line; received {received}")
    values = list(range(len(names) + 1)) if names else structure_values(path.parent / row["mask"] for row in rows)
    return ("background", *(names or map(str, values[1:]))), tuple((value,) for value in values), [()] * len(rows)
