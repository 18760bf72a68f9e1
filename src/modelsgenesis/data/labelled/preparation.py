"""Labelled cases as a network sees them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData, PreparedCase
from modelsgenesis.data.labelled.fitting import Fit, fit_image
from modelsgenesis.data.preparation import PreparedVolume, prepare, prepare_label
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import Refusal, Volume
from modelsgenesis.errors import DataError, GenesisError, ScanError

_FAR = 1e-2  # mm; of rounding in headers


def check_same_grid(image: Volume, other: Volume) -> None:
    """Refuse a label, or another channel, that does not lie on its image.

    Raises:
        ScanError: Shapes or affines differ.
    """
    if image.array.shape != other.array.shape:
        raise ScanError(
            f"{other.source}: shape {other.array.shape} is not the {image.array.shape} of its image {image.source}"
        )
    offset = np.abs(image.affine - other.affine).max()
    if image.measured and other.measured and offset > _FAR:
        raise ScanError(f"{other.source}: its affine is up to {offset:.3g} mm away from its image's, {image.source}")


def label_indices(values: np.ndarray, data: LabelledData, source: str) -> np.ndarray:
    """Turn the values of a label file into class indices, uint8.

    Raises:
        ScanError: A value is none of the data set's labels.
    """
    known = {value for group in data.values for value in group}
    unknown = sorted(set(np.unique(values).tolist()) - known)
    if unknown and not data.others_are_background:
        raise ScanError(f"{source}: label values {unknown[:5]} are not among {sorted(known)} of the data set")
    indices = np.zeros(values.shape, np.uint8)
    for index, group in enumerate(data.values[1:], start=1):
        indices[np.isin(values, group)] = index
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
        size: Sides that an image to classify is brought to at once, which saves memory; see `fit_image`.
        fit: How; `"auto"` as the data set says.

    Raises:
        ScanError: A file cannot be read or used, the channels or the mask are on another grid, or the mask has
            unknown values.
    """
    scans = [image.read() for image in case.images]
    for other in scans[1:]:
        check_same_grid(scans[0], other)
    mask = None if case.mask is None else _mask(case.mask, scans[0], data)
    label = None if mask is None else prepare_label(mask, contract).array.astype(np.uint8)
    image, volumes = _stacked([prepare(scan, contract) for scan in scans])
    if data.task == "classification":
        volumes, image = (), image if size is None else fit_image(image, size, data.fit if fit == "auto" else fit)
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
    label = read_volume(path)
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
) -> tuple[list[PreparedCase], list[Refusal]]:
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
    refused: list[Refusal] = []
    for case in cases:
        try:
            prepared.append(prepare_case(case, data, contract, size=size, fit=fit))
        except GenesisError as error:
            if strict:
                raise
            refused.append(Refusal(source=case.name, reason=str(error)))
    if cases and not prepared:
        raise DataError(f"{data.name}: none of {len(cases)} cases is usable; the first: {refused[0].reason}")
    return prepared, refused
