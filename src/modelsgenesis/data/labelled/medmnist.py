"""MedMNIST's `.npz`: `train_images`, `train_labels`, `val_…`, `test_…`."""

from pathlib import Path

import numpy as np

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.sources import ArrayFile, ArrayImage
from modelsgenesis.errors import DataError

_PARTS = {"train": "training", "val": "validation", "test": "test"}
_MODALITIES = {"chestmnist": "xray", "pneumoniamnist": "xray", "breastmnist": "ultrasound"}
_LOOKED_AT = 32  # images whose values tell whether they are shapes
_COLOURS = ("red", "green", "blue")


def read_medmnist(path: Path) -> LabelledData:
    """Read a data set in the layout of MedMNIST; each image is its own patient.

    Images are [n, height, width], with a last axis of 3 in colour, or [n, *three axes]. Labels are [n, 1] with the
    number of the class, or [n, classes] of 0 and 1 where several may hold. The file names no classes, so their numbers
    are the names.

    Args:
        path: The `.npz` file.

    Raises:
        DataError: A key is missing, or images and labels do not fit together.
        UnreadableScanError: It is no `.npz` file.

    Example:
        data = read_labelled("adrenalmnist3d_64.npz")
        data.modality, data.dims, len(data.cases)  # 'shape', 3, 1286
    """
    file = ArrayFile(path)
    keys = set(file.keys())
    parts = [part for part in _PARTS if f"{part}_images" in keys]
    if "train" not in parts:
        shown = ", ".join(sorted(keys)) or "none"
        raise DataError(f"{path}: no train_images; expected MedMNIST's keys, received {shown}")
    labels = {part: _labels(file, part, keys) for part in parts}
    width = labels["train"].shape[1]
    digits = len(str(max(map(len, labels.values())) - 1))
    classes = width if width > 1 else 1 + max(int(array.max()) for array in labels.values())
    shape, colour = _shape(file, parts, labels)
    return LabelledData(
        name=path.stem,
        task="classification",
        cases=tuple(case for part in parts for case in _cases(file, part, labels[part], digits, colour)),
        labels=tuple(str(number) for number in range(classes)),
        multilabel=width > 1,
        modality="shape" if _binary(file) else _MODALITIES.get(path.stem.split("_")[0]),
        channels=_COLOURS if colour else ("image",),
        dims=2 if len(shape) == 2 else 3,
        notes=("each image counts as its own patient",),
    )


def _labels(file: ArrayFile, part: str, keys: set[str]) -> np.ndarray:
    """Return [n, 1] numbers of classes or [n, classes] of 0 and 1."""
    key = f"{part}_labels"
    if key not in keys:
        raise DataError(f"{file.path}: has {part}_images and no {key}")
    array = file.read(key)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "iub" or not array.size or array.min() < 0:
        raise DataError(
            f"{file.path}: {key} is {array.dtype} {array.shape}; expected whole numbers [n, 1] or [n, classes]"
        )
    if array.shape[1] > 1 and array.max() > 1:
        raise DataError(f"{file.path}: {key} holds {array.max()}; expected 0 and 1 where it has a column a class")
    return array


def _shape(file: ArrayFile, parts: list[str], labels: dict[str, np.ndarray]) -> tuple[tuple[int, ...], bool]:
    """Return the sides of an image, and whether it is in colour."""
    shapes = {part: file.read(f"{part}_images").shape for part in parts}
    for part, shape in shapes.items():
        if len(shape) not in (3, 4) or shape[0] != len(labels[part]):
            raise DataError(
                f"{file.path}: {part}_images is {shape} beside {len(labels[part])} labels; expected an image a label, "
                "[n, height, width], [n, height, width, 3] or [n, *three axes]"
            )
        if shape[1:] != shapes["train"][1:] or labels[part].shape[1] != labels["train"].shape[1]:
            raise DataError(f"{file.path}: {part} has images or labels of another shape than train")
    shape = shapes["train"][1:]
    colour = len(shape) == 3 and shape[-1] == len(_COLOURS)
    return (shape[:-1] if colour else shape), colour


def _cases(file: ArrayFile, part: str, labels: np.ndarray, digits: int, colour: bool) -> list[LabelledCase]:
    channels = range(len(_COLOURS)) if colour else [None]
    cases = []
    for index, row in enumerate(labels):
        name = f"{part}_{index:0{digits}d}"
        images = tuple(
            ArrayImage(file=file, key=f"{part}_images", index=index, channel=channel) for channel in channels
        )
        held = np.flatnonzero(row) if len(row) > 1 else row
        cases.append(
            LabelledCase(name=name, patient=name, images=images, classes=tuple(held.tolist()), part=_PARTS[part])
        )
    return cases


def _binary(file: ArrayFile) -> bool:
    """Return whether images hold two values, as the shapes of AdrenalMNIST3D and VesselMNIST3D do."""
    return len(np.unique(file.read("train_images")[:_LOOKED_AT])) <= 2
