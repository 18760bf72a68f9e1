"""Layouts of labelled data but for tables: `dataset.json`, a folder a class, MedMNIST's `.npz`."""

from pathlib import Path

import numpy as np

from modelsgenesis.data.dataset_json import is_there, read_description
from modelsgenesis.data.finding import scan_sources, skipped_notes
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.sources import ArrayFile, ArrayImage, FileImage
from modelsgenesis.data.names import (
    OWN_PATIENT,
    class_order,
    find_patients,
    is_leftover,
    modality_of,
    part_of,
    unique_names,
)
from modelsgenesis.data.volume import SkippedScan
from modelsgenesis.errors import DataError

_LABEL_FOLDERS = {"label", "labels", "mask", "masks", "seg", "segmentation", "segmentations"}
_MODALITIES = {"chestmnist": "xray", "pneumoniamnist": "xray", "breastmnist": "ultrasound"}
_LOOKED_AT = 32  # images whose values tell whether they are shapes
_MOST_CLASSES = 10_000
_COLOURS = ("red", "green", "blue")


def read_listed(path: Path, pattern: str | None = None) -> LabelledData:
    """Read the data set that a `dataset.json` describes, the Decathlon's or nnU-Net's.

    Where a file holds several channels they are its volumes, as in the Decathlon; else each channel has a file.

    Args:
        path: Of `dataset.json`.
        pattern: Tells the patient from a case's name; see `find_patients`.

    Raises:
        DataError: It cannot be read, describes something else, or a case lacks a file, a channel or a label map.

    Example:
        data = read_labelled("Task04_Hippocampus")
        data.labels  # ('background', 'Anterior', 'Posterior')
    """
    described = read_description(path)
    cases = described.training if described else ()
    if described is None or not cases:
        raise DataError(
            f"{path}: no training cases; expected a list of them, or label maps in labelsTr with its file_ending"
        )
    structures, channels = described.structures(), described.channels or ("image",)
    for case in cases:
        if case.mask is None or len(case.images) not in (1, len(channels)):
            given = f"{len(case.images)} images and {'a' if case.mask else 'no'} label map"
            raise DataError(f"{path}: {case.name} has {given}; expected {len(channels)} channels and a label map")
    missing = [str(file) for case in cases for file in (*case.images, case.mask) if file and not is_there(file)]
    if missing:
        raise DataError(f"{path}: names {len(missing)} files that are not there, such as {missing[0]}")
    patients, rule = find_patients([case.images[0].with_name(f"{case.name}.nii") for case in cases], pattern)
    notes = [] if rule == OWN_PATIENT else [rule]
    count = described.content.get("numTraining")
    if isinstance(count, int) and count != len(cases):
        notes.append(f"{path.name} says {count} training cases, {len(cases)} were found")
    several = range(len(channels)) if len(channels) > 1 else [None]
    return LabelledData(
        name=described.name,
        task="segmentation",
        cases=tuple(
            LabelledCase(
                name=case.name,
                patient=patient,
                images=tuple(FileImage(path=image) for image in case.images)
                if len(case.images) == len(channels)
                else tuple(FileImage(path=case.images[0], index=index) for index in several),
                mask=case.mask,
            )
            for case, patient in zip(cases, patients, strict=True)
        ),
        labels=tuple(structures.values()),
        values=tuple((value,) for value in structures),
        modality=modality_of(channels),
        channels=channels,
        notes=tuple(notes),
    )


def read_folders(folder: Path, pattern: str | None = None) -> LabelledData:
    """Read a folder of classes, or folders `train`, `val`, `test` of classes.

    Args:
        folder: Holds a folder a class; those without an image, and those of label maps, are left aside with a note.
        pattern: Tells the patient from a file's name; by default that of DICOM, else see `find_patients`.

    Raises:
        DataError: There is one class alone, or a class whose images cannot be read.

    Example:
        data = read_labelled("chestxray8", modality="xray")
        data.labels  # ('no_finding', 'pneumonia')
    """
    found, refused = [], []
    for part, place in _class_folders(folder):
        kept = not is_leftover(place.name) and place.name.lower() not in _LABEL_FOLDERS
        scans, others = scan_sources(place) if kept else ([], [])
        bad = [one for one in others if one.bad]
        if bad and not scans:
            raise DataError(f"{place}: no image of this class can be used: {bad[0].source}: {bad[0].reason}")
        if not scans:
            others = [
                SkippedScan(source=str(place), reason="holds no images or labels alone, so not a class", bad=False)
            ]
        found += [(part, place.name, scan) for scan in scans]
        refused += others
    labels = class_order([name for _, name, _ in found])
    if len(labels) < 2:
        shown = ", ".join(labels) or "no class"
        raise DataError(f"{folder}: images of {shown} alone; expected a folder a class, two or more; masks need a CSV")
    paths = [scan.path for *_, scan in found]
    if pattern is None and all(scan.format == "DICOM" for *_, scan in found):
        patients, rule = [scan.group for *_, scan in found], "patients by the tags of DICOM"
    else:
        patients, rule = find_patients(paths, pattern, classes=[name for _, name, _ in found])
    cases = []
    for stem, patient, (part, name, scan) in zip(unique_names(paths, folder), patients, found, strict=True):
        case = stem if scan.index is None else f"{stem}[{scan.index}]"
        cases.append(LabelledCase(name=case, patient=patient, images=(scan,), classes=(labels.index(name),), part=part))
    return LabelledData(
        name=folder.resolve().name,
        task="classification",
        cases=tuple(cases),
        labels=labels,
        notes=(f"warning: {rule}" if rule == OWN_PATIENT else rule, *skipped_notes(refused)),
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
    number of the class, or [n, classes] of 0 and 1 where several may hold. The file names no classes, so their numbers
    are the names.

    Args:
        path: The `.npz` file, of `train_images`, `train_labels`, `val_…`, `test_…`.

    Raises:
        DataError: A key is missing, or images and labels do not fit together.
        UnreadableScanError: It is not an `.npz` file, or an array in it cannot be read.

    Example:
        data = read_labelled("adrenalmnist3d_64.npz")
        data.modality, data.dims, len(data.cases)  # 'shape', 3, 1286
    """
    file = ArrayFile(path)
    keys = file.keys()
    parts = {"train": "training", "val": "validation", "test": "test"}
    parts = {part: name for part, name in parts.items() if f"{part}_images" in keys}
    absent = [f"{part}_{kind}" for part in ("train", *parts) for kind in ("images", "labels")]
    absent = [key for key in absent if key not in keys]
    if absent:
        raise DataError(f"{path}: no {absent[0]}; expected MedMNIST's keys, received {', '.join(keys) or 'none'}")
    labels = {part: _class_numbers(file, f"{part}_labels") for part in parts}
    shape, width = file.read("train_images").shape[1:], labels["train"].shape[1]
    colour = len(shape) == 3 and shape[-1] == len(_COLOURS)
    digits = len(str(max(map(len, labels.values())) - 1))
    cases = []
    for part, name in parts.items():
        key, shown = f"{part}_images", file.read(f"{part}_images").shape
        if len(shape) not in (2, 3) or (*shown, labels[part].shape[1]) != (len(labels[part]), *shape, width):
            raise DataError(
                f"{path}: {key} is {shown} beside {len(labels[part])} labels; expected an image a label, [n, height, "
                "width], [n, height, width, 3] or [n, *three axes], and the same in each part"
            )
        for index, row in enumerate(labels[part]):
            called = f"{part}_{index:0{digits}d}"
            images = tuple(
                ArrayImage(file=file, key=key, index=index, channel=channel)
                for channel in (range(len(_COLOURS)) if colour else [None])
            )
            held = tuple((np.flatnonzero(row) if width > 1 else row).tolist())
            cases.append(LabelledCase(name=called, patient=called, images=images, classes=held, part=name))
    classes = width if width > 1 else 1 + max(int(array.max()) for array in labels.values())
    binary = len(np.unique(file.read("train_images")[:_LOOKED_AT])) <= 2  # as AdrenalMNIST3D and VesselMNIST3D
    return LabelledData(
        name=path.stem,
        task="classification",
        cases=tuple(cases),
        labels=tuple(map(str, range(classes))),
        multilabel=width > 1,
        modality="shape" if binary else _MODALITIES.get(path.stem.split("_")[0]),
        channels=_COLOURS if colour else ("image",),
        dims=2 if len(shape) - colour == 2 else 3,
        notes=("each image counts as its own patient",),
    )


def _class_numbers(file: ArrayFile, key: str) -> np.ndarray:
    """Return [n, 1] numbers of classes or [n, classes] of 0 and 1."""
    array = file.read(key)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size or array.min() < 0:
        raise DataError(f"{file.path}: {key} is {array.dtype} {array.shape}; expected whole numbers [n, 1 or classes]")
    if array.max() > (1 if array.shape[1] > 1 else _MOST_CLASSES):
        raise DataError(f"{file.path}: {key} holds {array.max()}; expected a number a class, or 0 and 1 in columns")
    return array
