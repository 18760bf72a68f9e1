"""The layouts of labelled data: `dataset.json`, one folder per class, MedMNIST's `.npz`, CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from modelsgenesis.data.dataset_json import is_there, read_description
from modelsgenesis.data.finding import (
    OWN_PATIENT,
    class_order,
    find_patients,
    is_leftover,
    modality_of,
    part_of,
    require_part,
    scan_sources,
    skipped_notes,
    unique_names,
)
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.images import ArrayImage, FileImage, array_names, read_array
from modelsgenesis.data.labelled.preparation import read_mask
from modelsgenesis.data.volume import SkippedScan
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_text

_LABEL_FOLDERS = {"label", "labels", "mask", "masks", "seg", "segmentation", "segmentations"}
_MEDMNIST = {"chestmnist": "xray", "pneumoniamnist": "xray", "breastmnist": "ultrasound"}
_COLOURS = ("red", "green", "blue")
_LOOKED_AT = 32  # images whose values tell whether they are shapes
_MOST_CLASSES = 10_000
_COLUMNS = ("image", "label", "mask", "patient", "split")
_LIMIT = 1 << 28  # bytes of a table
Row = dict[str, str]


def read_listed(path: Path, pattern: str | None = None) -> LabelledData:
    """Read the data set that a `dataset.json` describes, the Decathlon's or nnU-Net's.

    Where a file holds several channels they are its volumes, as in the Decathlon; else each channel has a file.

    Args:
        path: The `dataset.json`.
        pattern: Regular expression of the patient in a case's name; see `find_patients`.

    Raises:
        DataError: It cannot be read, describes something else, or a case lacks a file, a channel or a label map.

    Example:
        data = read_labelled("Task04_Hippocampus")
        data.labels  # ('background', 'Anterior', 'Posterior')
    """
    described = read_description(path)
    if described is None or not described.training:
        raise DataError(
            f"{path}: no training cases; expected a list of them, or label maps in labelsTr with its file_ending"
        )
    listed, structures, channels = described.training, described.structures(), described.channels or ("image",)
    for case in listed:
        if case.mask is None or len(case.images) not in (1, len(channels)):
            given = f"{len(case.images)} images and {'a' if case.mask else 'no'} label map"
            raise DataError(f"{path}: {case.name} has {given}; expected {len(channels)} channels and a label map")
    _require_files(path, chain.from_iterable((*case.images, case.mask) for case in listed))
    # By the name of the case: with a file per channel that of the first would have the channel's number in it.
    patients, rule = find_patients([case.images[0].with_name(f"{case.name}.nii") for case in listed], pattern)
    notes = [] if rule == OWN_PATIENT else [rule]
    count = described.content.get("numTraining")
    if isinstance(count, int) and count != len(listed):
        notes.append(f"{path.name} says {count} training cases, {len(listed)} were found")
    cases = []
    for case, patient in zip(listed, patients, strict=True):
        images = [FileImage(path=image) for image in case.images]
        # One file for several channels holds them as its volumes.
        if len(images) < len(channels):
            images = [FileImage(path=case.images[0], index=index) for index in range(len(channels))]
        cases.append(LabelledCase(name=case.name, patient=patient, images=tuple(images), mask=case.mask))
    return LabelledData(
        name=described.name,
        task="segmentation",
        cases=tuple(cases),
        labels=tuple(structures.values()),
        values=tuple((value,) for value in structures),
        modality=modality_of(channels),
        channels=channels,
        notes=tuple(notes),
    )


def _require_files(path: Path, files: Iterable[Path | None]) -> None:
    missing = [file for file in files if file and not is_there(file)]
    if missing:
        raise DataError(f"{path}: lists {len(missing)} files that are not there, such as {missing[0]}")


def read_folders(folder: Path, pattern: str | None = None) -> LabelledData:
    """Read a folder of classes, or folders `train`, `val`, `test` of classes.

    Args:
        folder: Holds one folder per class; those without an image, and those of label maps, are skipped with a note.
        pattern: Regular expression of the patient in a file's name; by default the patient of DICOM, else see
            `find_patients`.

    Raises:
        DataError: There is one class alone, or a class whose images cannot be read.

    Example:
        data = read_labelled("chestxray8", modality="xray")
        data.labels  # ('no_finding', 'pneumonia')
    """
    found, skipped = [], []
    for part, place in _class_folders(folder):
        # Masks beside the classes, and what macOS and Windows leave in archives, are not a class of their own.
        kept = not is_leftover(place.name) and place.name.lower() not in _LABEL_FOLDERS
        scans, others = scan_sources(place) if kept else ([], [])
        bad = [one for one in others if one.bad]
        # An unreadable image is skipped, but a class that vanishes silently would be another task.
        if bad and not scans:
            raise DataError(f"{place}: no image of this class can be used: {bad[0].source}: {bad[0].reason}")
        if not scans:
            others = [
                SkippedScan(source=str(place), reason="holds no images or labels alone, so not a class", bad=False)
            ]
        found += [(part, place.name, scan) for scan in scans]
        skipped += others
    names, scans = [name for _, name, _ in found], [scan for *_, scan in found]
    labels, paths = class_order(names), [scan.path for scan in scans]
    if len(labels) < 2:
        alone = ", ".join(labels) or "no class"
        raise DataError(
            f"{folder}: images of {alone} alone; expected one folder per class, two or more; masks need a CSV"
        )
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
    parts = [place for place in inner if not is_leftover(place.name)]
    if parts and all(part_of(place.name) for place in parts):
        return [(part_of(place.name), last) for place in parts for _, last in _class_folders(place)]
    return [(None, place) for place in inner]


def read_medmnist(path: Path) -> LabelledData:
    """Read a data set in the layout of MedMNIST; each image is its own patient.

    Images are [n, height, width], with a last axis of 3 in colour, or [n, *three axes]. Labels are [n, 1] with the
    number of the class, or [n, classes] of 0 and 1 where several may hold. The file does not name the classes, so their
    numbers are the names.

    Args:
        path: The `.npz` file, of `train_images`, `train_labels`, `val_…`, `test_…`.

    Raises:
        DataError: A key is missing, or images and labels do not fit together.
        ScanError: It is not an `.npz` file, or an array in it cannot be read.

    Example:
        data = read_labelled("adrenalmnist3d_64.npz")
        data.modality, data.dims, len(data.cases)  # 'shape', 3, 1286
    """
    keys = array_names(path)
    parts = [part for part in ("train", "val", "test") if part == "train" or f"{part}_images" in keys]
    absent = [key for part in parts for key in (f"{part}_images", f"{part}_labels") if key not in keys]
    if absent:
        raise DataError(f"{path}: no {absent[0]}; expected MedMNIST's keys, received {', '.join(keys) or 'none'}")
    images = {part: read_array(path, f"{part}_images") for part in parts}
    labels = {part: _class_numbers(path, f"{part}_labels") for part in parts}
    shape, width = images["train"].shape[1:], labels["train"].shape[1]
    for part in parts:
        sizes = (len(labels[part]), *shape, width)
        if len(shape) not in (2, 3) or (*images[part].shape, labels[part].shape[1]) != sizes:
            raise DataError(
                f"{path}: {part}_images is {images[part].shape} beside {len(labels[part])} labels; expected one image "
                "per label, [n, height, width], [n, height, width, 3] or [n, *three axes], and the same in each part"
            )
    colour = len(shape) == 3 and shape[-1] == len(_COLOURS)
    channels = range(len(_COLOURS)) if colour else [None]
    digits = len(str(max(map(len, labels.values())) - 1))  # so that names sort as the images do
    cases = []
    for part in parts:
        for index, row in enumerate(labels[part]):
            name, key = f"{part}_{index:0{digits}d}", f"{part}_images"
            channel_images = tuple(ArrayImage(path=path, key=key, index=index, channel=channel) for channel in channels)
            held = tuple((np.flatnonzero(row) if width > 1 else row).tolist())
            cases.append(LabelledCase(name=name, patient=name, images=channel_images, classes=held, part=part_of(part)))
    # Shapes have no intensities to scale.
    binary = len(np.unique(images["train"][:_LOOKED_AT])) <= 2  # as AdrenalMNIST3D and VesselMNIST3D
    classes = width if width > 1 else 1 + max(int(array.max()) for array in labels.values())
    return LabelledData(
        name=path.stem,
        task="classification",
        cases=tuple(cases),
        labels=tuple(map(str, range(classes))),
        multilabel=width > 1,
        modality="shape" if binary else _MEDMNIST.get(path.stem.split("_")[0]),
        channels=_COLOURS if colour else ("image",),
        dims=2 if len(shape) - colour == 2 else 3,
        notes=("each image counts as its own patient",),
    )


def _class_numbers(path: Path, key: str) -> np.ndarray:
    """Return [n, 1] numbers of classes or [n, classes] of 0 and 1."""
    array = read_array(path, key)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size or array.min() < 0:
        raise DataError(f"{path}: {key} is {array.dtype} {array.shape}; expected whole numbers [n, 1 or classes]")
    if array.max() > (1 if array.shape[1] > 1 else _MOST_CLASSES):
        raise DataError(f"{path}: {key} holds {array.max()}; expected a number per class, or 0 and 1 in columns")
    return array


def read_table(path: Path, pattern: str | None = None) -> LabelledData:
    """Read a CSV of labelled images.

    Fields are separated by commas, semicolons or tabs. The names of the columns are taken without case and blanks.

    Args:
        path: The CSV, in UTF-8.
        pattern: Regular expression of the patient in the name of the first image.

    Raises:
        DataError: It cannot be read, lacks a column or has one twice, has an incomplete line, or has no line; or what
            `_read_images` says.

    Example:
        data = read_labelled("labels.csv")  # image,label,patient,split
        data.labels, data.cases[0].patient, data.cases[0].part  # ('normal', 'nodule'), 'p01', 'training'
    """
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
    rows = [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines]
    return _read_images(path, rows, pattern)


def _require_columns(path: Path, rows: Sequence[Row], *columns: str) -> None:
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(rows[0]) or 'none'}")


def _read_images(path: Path, rows: Sequence[Row], pattern: str | None) -> LabelledData:
    """Read one image per line.

    The column `image` holds a file, several channels separated by `;`. With a column `mask` it is a segmentation:
    `label` then names the structure of mask value 1, several separated by `;` those of 1, 2, …; without names the
    values of the masks are looked up. Else `label` is the name of a class, several separated by `;` where several may
    hold.

    Raises:
        DataError: Columns or files are missing, a line has no label, or lines do not fit together.
        ScanError: A mask whose values are looked up cannot be used.
    """
    segmentation = "mask" in rows[0]
    _require_columns(path, rows, "image", *(() if segmentation else ("label",)))
    files = [[path.parent / name for name in _names_in(row["image"])] for row in rows]
    masks = [path.parent / row["mask"] if segmentation else None for row in rows]
    for number, (row, channels) in enumerate(zip(rows, files, strict=True), start=2):
        if empty := [name for name in ("image", "mask", "patient") if row.get(name) == ""]:
            raise DataError(f"{path}: line {number} has no {empty[0]}")
        if len(channels) != len(files[0]):
            raise DataError(
                f"{path}: line {number} has {len(channels)} channels; expected {len(files[0])} as in line 2"
            )
    _require_files(path, chain(*files, masks))
    values, classes = [], [()] * len(rows)
    if segmentation:
        labels, values = _structures(path, rows)
    else:
        labels, classes = _classes(path, rows)
    first = [channels[0] for channels in files]
    patients, notes = [row.get("patient", "") for row in rows], []
    if pattern is not None or "patient" not in rows[0]:
        patients, rule = find_patients(first, pattern, classes=classes)
        notes.append(rule)
    if unknown := [name for name in rows[0] if name not in _COLUMNS]:
        notes.append(f"columns not used: {', '.join(unknown)}")
    names, count = unique_names(first, path.parent), len(files[0])
    return LabelledData(
        name=path.stem,
        task="segmentation" if segmentation else "classification",
        cases=tuple(
            LabelledCase(
                name=names[number],
                patient=patients[number],
                images=tuple(FileImage(path=file) for file in files[number]),
                mask=masks[number],
                classes=classes[number],
                part=require_part(row.get("split", ""), str(path)),
            )
            for number, row in enumerate(rows)
        ),
        labels=labels,
        values=tuple((value,) for value in values),
        multilabel=not segmentation and any(len(held) != 1 for held in classes),
        channels=("image",) if count == 1 else tuple(f"channel {number}" for number in range(count)),
        notes=tuple(notes),
    )


def _names_in(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(";")]


def _classes(path: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Return the names of the classes and the classes of each line; no name means none where several may hold."""
    held = [[name for name in _names_in(row["label"]) if name] for row in rows]
    # An empty cell is an omission where classes exclude each other, and "none of them" where several may hold.
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
    names = _names_in(named[0]) if named else []
    if len(named) > 1 or "" in names:
        raise DataError(
            f"{path}: with masks, label names the structures of the values 1, 2, … and is the same in every line; "
            f"received {' and '.join(map(repr, named[:2]))}"
        )
    if named:
        return ("background", *names), list(range(len(names) + 1))
    values = {0}  # the background, even where no voxel is left over for it
    for mask in {path.parent / row["mask"]: None for row in rows}:
        values |= set(np.unique(read_mask(mask).array).tolist())
        if min(values) < 0:
            raise DataError(
                f"{mask}: holds {min(values)}; expected 0 for the background and numbers above for structures: set "
                "voxels that nobody labelled to 0"
            )
    return ("background", *map(str, sorted(values)[1:])), sorted(values)
