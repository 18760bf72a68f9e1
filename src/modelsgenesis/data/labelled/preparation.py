"""Labelled cases as a network sees them, each prepared once."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsgenesis.configs import InputContract
from modelsgenesis.data import images
from modelsgenesis.data.finding import channel_order
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData, PreparedCase
from modelsgenesis.data.labelled.images import Fit, resize_or_crop
from modelsgenesis.data.preparation import prepare, prepare_label
from modelsgenesis.data.reading import read_volume, reader_of
from modelsgenesis.data.volume import COLOUR, Volume, spacing_of
from modelsgenesis.errors import DataError, GenesisError, ScanError
from modelsgenesis.files import parsing, replacing
from modelsgenesis.reporting import Reporter

_APART = 0.1  # voxels; headers round, and a label so far off is still on the same voxel
_ROUNDING = 1e-3  # distance to a whole number; scale factors and float16 leave less, an interpolation more


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
    corners = np.array([(*corner, *(0,) * (3 - len(shape)), 1) for corner in product(*((0, n - 1) for n in shape))])
    apart = np.linalg.norm(corners @ (image.affine - other.affine).T, axis=1).max()
    if not apart <= _APART * min(spacing_of(image.affine, len(shape))):  # so that NaN is refused too
        raise ScanError(
            f"{other.source}: its affine is up to {apart:.3g} mm away from its image's, {image.source}; bring "
            "both to one grid"
        )


def read_mask(path: Path) -> Volume:
    """Read a label map: whole numbers of structures; the indices of an image with a palette.

    Raises:
        ScanError: It is a picture in colour, with an alpha channel or of a format that changes numbers, or it cannot be
            read, or a value is not a whole number.
    """
    picture = reader_of(path) == "images"
    mask = images.read_labels(path) if picture else read_volume(path)
    if COLOUR in mask.notes:
        raise ScanError(f"{path}: is in colour; expected one channel of the numbers of structures")
    return replace(mask, array=whole_numbers(mask.array, str(path)))


def whole_numbers(values: np.ndarray, source: str) -> np.ndarray:
    """Return the values of a label map as integers, rounded within 0.001.

    Labels are names and not amounts: 0.99999 is a 1 that a scale factor changed, and 0.5, made by interpolation between
    two structures, is not a label.

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
        data: The data set, which tells the values of each class.
        source: What a message calls it.

    Returns:
        uint8 [*spatial], 0 for the background.

    Raises:
        ScanError: A value is none of the data set's labels.
    """
    values = whole_numbers(values, source)
    index = {value: number for number, group in enumerate(data.values) for value in group}
    found = np.unique(values).tolist()
    unknown = [value for value in found if value not in index]
    if unknown and not data.others_are_background:
        raise ScanError(f"{source}: label values {unknown[:5]} are not among {sorted(index)} of the data set")
    # Value by value: a mask holds few, and looking up each voxel would sort or copy the volume.
    indices = np.zeros(values.shape, np.uint8)
    for value in found:
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
        data: The data set that it belongs to.
        contract: How images are prepared.
        size: Sides that an image to classify is brought to at once, which saves memory; see `resize_or_crop`.
        fit: How it is brought to them.

    Raises:
        ScanError: A file cannot be read or used, the channels or the mask are on another grid, or the mask has
            unknown values.
    """
    # The contract of weights has the order of their channels, which may be another than the data's.
    order = channel_order(data.channels, contract.channels) or range(len(case.images))
    scans = [case.images[index].read() for index in order]
    for other in scans[1:]:
        check_same_grid(scans[0], other)
    digest = hashlib.blake2b(repr(case.classes).encode(), digest_size=10)
    label, read = None, list(scans)
    if case.mask is not None:
        mask = read_mask(case.mask)
        check_same_grid(scans[0], mask)
        # On the scan's very affine, from which the label's may differ by rounding: both get the same prepared grid.
        mask = replace(scans[0], array=label_indices(mask.array, data, str(case.mask)))
        label = prepare_label(mask, contract).array
        read.append(mask)
    for volume in read:
        digest.update(repr((volume.array.shape, volume.array.dtype.str, volume.affine.tolist())).encode())
        digest.update(volume.array.ravel(order="K").data)  # as it lies in memory: no copy of a volume
    prepared = [prepare(scan, contract).array for scan in scans]
    image = prepared[0][None] if len(prepared) == 1 else np.stack(prepared)  # of one channel without a copy
    if data.task == "classification" and size is not None:
        image = resize_or_crop(image, size, fit)
    return PreparedCase(
        name=case.name,
        patient=case.patient,
        image=image,
        label=label,
        classes=case.classes,
        digest=digest.hexdigest(),
    )


class PreparedCases:
    """The cases of a data set, each prepared once: kept in memory, or mapped from a folder that runs share.

    Args:
        data: The data set.
        size: Sides that images to classify are brought to at once; None keeps their own.
        fit: How they are brought to them.
        strict: A bad case is an error instead of being skipped.
        folder: Where prepared cases are written, and found by later runs and by other processes: their arrays are
            mapped, so that several processes share one copy. None keeps them in the memory of this process.

    """

    def __init__(
        self,
        data: LabelledData,
        *,
        size: tuple[int, ...] | None = None,
        fit: Fit = "auto",
        strict: bool = False,
        folder: str | Path | None = None,
    ) -> None:
        self.data, self.strict, self.folder = data, strict, None if folder is None else Path(folder)
        self.options: dict[str, Any] = {"size": size, "fit": fit}
        self._skipped: set[str] = set()
        self._listed = {case.name: case for case in data.cases}
        self._known: dict[tuple[InputContract, str], PreparedCase] = {}

    def get(self, names: Sequence[str], contract: InputContract, reporter: Reporter) -> list[PreparedCase]:
        """Return the cases of these names that can be used, prepared by a contract; the others are notes.

        Raises:
            DataError: There are names, and none of their cases can be used.
            ScanError: A case cannot be used and `strict` is set.
        """
        for name in names:
            if (contract, name) in self._known or name in self._skipped:
                continue
            try:
                self._known[contract, name] = self._prepare(self._listed[name], contract)
            except GenesisError as error:
                if self.strict:
                    raise
                self._skipped.add(name)  # so that folds say it once
                reporter.note(f"skipped {name}: {error}")
        found = [self._known[contract, name] for name in names if name not in self._skipped]
        if names and not found:
            raise DataError(f"{self.data.name}: none of {len(names)} cases is usable, such as {names[0]}; see above")
        return found

    def _prepare(self, case: LabelledCase, contract: InputContract) -> PreparedCase:
        if self.folder is None:
            return prepare_case(case, self.data, contract, **self.options)
        path = self.folder / f"{self._key(case, contract)}.pt"
        if not path.exists():
            made = prepare_case(case, self.data, contract, **self.options)
            # Tensors and text alone, which load without running code.
            arrays = {"image": made.image, "label": np.empty(0) if made.label is None else made.label}
            tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
            with replacing(path, DataError) as temporary:
                torch.save({**tensors, "digest": made.digest}, temporary)
        with parsing(path, DataError, remedy="delete it, and it is made again"):
            # Mapped copy-on-write: what a transform changes in place stays private to its process.
            stored = torch.load(path, mmap=True, weights_only=True)
            image, label, digest = stored["image"].numpy(), stored["label"].numpy(), stored["digest"]
        known: dict[str, Any] = {"name": case.name, "patient": case.patient, "classes": case.classes, "digest": digest}
        return PreparedCase(image=image, label=None if case.mask is None else label, **known)

    def _key(self, case: LabelledCase, contract: InputContract) -> str:
        """Return a name that changes with the files of a case, by size and time, and with how they are prepared."""
        files = [*(image.path for image in case.images), *([case.mask] if case.mask else [])]
        # Not by a digest of the content, for which each file would have to be read again at every start.
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        sources = [image.source for image in case.images]
        data = (self.data.task, self.data.values, self.data.others_are_background, self.data.channels)
        told = (states, sources, case.classes, data, contract.to_dict(), self.options)
        return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
