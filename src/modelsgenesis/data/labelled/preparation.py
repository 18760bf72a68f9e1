"""Labelled cases as a network sees them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data import images
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData, PreparedCase
from modelsgenesis.data.labelled.fitting import Fit, resize_or_crop
from modelsgenesis.data.names import channel_order
from modelsgenesis.data.preparation import PreparedVolume, prepare, prepare_label
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import COLOUR, SkippedScan, Volume, spacing_of
from modelsgenesis.errors import DataError, GenesisError, ScanError

_APART = 0.1  # voxels; headers round, and a label so far off is still on the same voxel
_ROUNDING = 1e-3  # of a whole number; scale factors and float16 leave less, an interpolation more


def check_same_grid(image: Volume, other: Volume) -> None:
    """Refuse a label, or another channel, that does not lie on its image.

    Orientation, spacing and position are compared by where the corners lie, within a tenth of a voxel.

    Raises:
        ScanError: Shapes or places differ.
    """
    shape = image.array.shape
    if shape != other.array.shape:
        raise ScanError(f"{other.source}: shape {other.array.shape} is not the {shape} of its image {image.source}")
    if not (image.has_spacing and other.has_spacing):
        return
    corners = np.array(
        [(*corner, *(0,) * (3 - len(shape)), 1) for corner in product(*((0, side - 1) for side in shape))]
    )
    apart = np.linalg.norm(corners @ (image.affine - other.affine).T, axis=1).max()
    if not apart <= _APART * min(spacing_of(image.affine, len(shape))):
        raise ScanError(
            f"{other.source}: its affine is up to {apart:.3g} mm away from its image's, {image.source}; bring "
            "both to one grid"
        )


def read_mask(path: Path) -> Volume:
    """Read a label map: whole numbers of structures; of an image with a palette its indices.

    Raises:
        ScanError: It is a picture in colour, with an alpha channel or of a format that changes numbers, or it cannot be
            read, or a value is not a whole number.
    """
    picture = path.name.lower().endswith(images.SUFFIXES)
    mask = images.read_labels(path) if picture else read_volume(path)
    if COLOUR in mask.notes:
        raise ScanError(f"{path}: is in colour; expected one channel of the numbers of structures")
    return replace(mask, array=whole_numbers(mask.array, str(path)))


def whole_numbers(values: np.ndarray, source: str) -> np.ndarray:
    """Return the values of a label map as integers, rounded within 0.001.

    Labels are names and not amounts: 0.99999 is a 1 that a scale factor changed, and 0.5, made by interpolation between
    two structures, is none.

    Args:
        values: [*spatial], of any type.
        source: What a message calls it.

    Raises:
        ScanError: A value is farther from a whole number, not finite, or too large.

    Example:
        >>> whole_numbers(np.array([0.0, 0.99999, 2.0]), "mask.nii").tolist()
        [0, 1, 2]
    """
    if values.dtype.kind != "f":
        return values
    with np.errstate(all="ignore"):
        whole = np.rint(values)
        bad = values[~((abs(values - whole) <= _ROUNDING) & (abs(whole) < 2.0**31))]
    if bad.size:
        raise ScanError(
            f"{source}: {bad.size} voxels are not labels, such as {bad[0]:g}; expected whole numbers: save the mask as "
            "integers, and resample it by the nearest neighbour"
        )
    return whole.astype(np.int32)


def label_indices(values: np.ndarray, data: LabelledData, source: str) -> np.ndarray:
    """Turn the values of a label file into class indices.

    Args:
        values: [*spatial], of any type; see `whole_numbers`.
        data: Tells the values of each class.
        source: What a message calls it.

    Returns:
        uint8 [*spatial], 0 for the background.

    Raises:
        ScanError: A value is none of the data set's labels.
    """
    values = whole_numbers(values, source)
    index = {value: number for number, group in enumerate(data.values) for value in group}
    found = np.unique(values)
    unknown = [value for value in found.tolist() if value not in index]
    if unknown and not data.others_are_background:
        raise ScanError(f"{source}: label values {unknown[:5]} are not among {sorted(index)} of the data set")
    indices = np.zeros(values.shape, np.uint8)
    for value in found.tolist():
        if index.get(value, 0):
            indices[values == value] = index[value]
    return indices


def prepare_case(
    case: LabelledCase,
    data: LabelledData,
    contract: InputContract,
    *,
    size: tuple[int, ...] | None = None,
    fit: Fit = "auto",
) -> PreparedCase:
    """Read and prepare the channels of a case, each on its own, and its mask.

    Args:
        case: What to read.
        data: The data set that it is of.
        contract: How images are prepared.
        size: Sides that an image to classify is brought to at once, which saves memory; see `resize_or_crop`.
        fit: How; `"auto"` as the data set says.

    Raises:
        ScanError: A file cannot be read or used, the channels or the mask are on another grid, or the mask has
            unknown values.
    """
    # The contract of weights has the order of their channels, which may be another than the data's.
    order = channel_order(data.channels, contract.channels) or range(len(case.images))
    scans = [case.images[index].read() for index in order]
    for other in scans[1:]:
        check_same_grid(scans[0], other)
    mask = None if case.mask is None else _mask(case.mask, scans[0], data)
    label = None if mask is None else prepare_label(mask, contract).array.astype(np.uint8)
    image, volumes = _stacked([prepare(scan, contract) for scan in scans])
    if data.task == "classification":
        volumes, image = (), image if size is None else resize_or_crop(image, size, data.fit if fit == "auto" else fit)
    return PreparedCase(
        name=case.name,
        patient=case.patient,
        image=image,
        volumes=volumes,
        label=label,
        classes=case.classes,
        digest=_digest(case, scans if mask is None else [*scans, mask]),
    )


def _mask(path: Path, scan: Volume, data: LabelledData) -> Volume:
    """Return class indices on the scan's own grid, uint8 [*spatial]."""
    label = read_mask(path)
    check_same_grid(scan, label)
    return replace(label, array=label_indices(label.array, data, str(path)))


def _digest(case: LabelledCase, volumes: Sequence[Volume]) -> str:
    """Return a digest of what a case was read as, by which a run that goes on tells whether it has changed."""
    digest = hashlib.blake2b(repr(case.classes).encode(), digest_size=10)
    for volume in volumes:
        digest.update(repr((volume.array.shape, volume.array.dtype.str, volume.affine.tolist())).encode())
        digest.update(volume.array.ravel(order="K").data)  # as it lies in memory: no copy of a volume
    return digest.hexdigest()


def _stacked(volumes: list[PreparedVolume]) -> tuple[np.ndarray, tuple[PreparedVolume, ...]]:
    """Return [channels, *spatial] and the volumes as views of it."""
    image = volumes[0].array[None] if len(volumes) == 1 else np.stack([volume.array for volume in volumes])
    return image, tuple(replace(volume, array=channel) for volume, channel in zip(volumes, image, strict=True))


def prepare_cases(
    cases: Sequence[LabelledCase],
    data: LabelledData,
    contract: InputContract,
    *,
    strict: bool = False,
    size: tuple[int, ...] | None = None,
    fit: Fit = "auto",
) -> tuple[list[PreparedCase], list[SkippedScan]]:
    """Prepare many cases; a bad one is refused and reported, unless `strict`.

    Args:
        cases: Of the data set.
        data: Tells what the values of masks mean.
        contract: How images are prepared.
        strict: A bad case is an error.
        size: Sides that images to classify are brought to at once; None keeps their own.
        fit: How; `"auto"` as the data set says.

    Raises:
        DataError: None is usable.
        ScanError: One is not usable and `strict` is set.
    """
    prepared: list[PreparedCase] = []
    refused: list[SkippedScan] = []
    for case in cases:
        try:
            prepared.append(prepare_case(case, data, contract, size=size, fit=fit))
        except GenesisError as error:
            if strict:
                raise
            refused.append(SkippedScan(source=case.name, reason=str(error)))
    if cases and not prepared:
        raise DataError(f"{data.name}: none of {len(cases)} cases is usable; the first: {refused[0].reason}")
    return prepared, refused
