"""Labelled cases and the data set that they make; reading, checking and preparing them."""

import glob
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from modelsgenesis.configs import CONTRACTS, BundleConfig, InputContract
from modelsgenesis.data import images
from modelsgenesis.data.finding import channel_order
from modelsgenesis.data.preparation import PreparedVolume, interpolate, prepare, prepare_label
from modelsgenesis.data.reading import read_volume, reader_of
from modelsgenesis.data.volume import COLOUR, ScanReference, SkippedScan, Volume
from modelsgenesis.errors import DataError, GenesisError, ScanError, ShapeError, printable, require
from modelsgenesis.files import parsing, replacing, sha256_of
from modelsgenesis.reporting import Reporter

LabelledTask = Literal["segmentation", "classification"]
Fit = Literal["auto", "resize", "crop"]

_MOST_STRUCTURES = 255  # label maps are uint8, which keeps a case in a quarter of the memory of its image
_APART = 0.1  # voxels; headers round, and a label so far off is still on the same voxel
_ROUNDING = 1e-3  # distance to a whole number; scale factors and float16 leave less, an interpolation more


@dataclass(frozen=True, kw_only=True)
class LabelledCase:
    """An image with what is known of it.

    Attributes:
        name: Unique in the data set; what a message and a prediction's file name call it.
        patient: Whose it is; a split keeps all cases of a patient together.
        images: One per channel.
        mask: File of the label map of a segmentation, on the images' own grid.
        classes: Indices of the classes that hold, for a classification; exactly one unless the data is multi-label.
        part: `"training"`, `"validation"` or `"test"`, as the user's own file says; else None.
    """

    name: str
    patient: str
    images: tuple[ScanReference, ...]
    mask: Path | None = None
    classes: tuple[int, ...] = ()
    part: str | None = None

    @property
    def paths(self) -> list[Path]:
        """Where its images and its mask lie."""
        images = [path for image in self.images for path in image.files]
        return images if self.mask is None else [*images, self.mask]


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """A labelled data set.

    Attributes:
        name: What reports call it.
        task: What its labels are for.
        cases: Its images with labels.
        labels: Class names, each once; the background first for a segmentation.
        values: Values of each class in the mask files, for a segmentation.
        others_are_background: Whether other values count as background; else they are an error.
        multilabel: Whether several classes, or none, may hold for an image.
        modality: As the data set says or its values tell, or None.
        channels: What each image of a case shows.
        dims: Axes of the images, 2 or 3.
        notes: What reading decided for itself, such as the rule that tells the patients.

    Raises:
        DataError: The name of a case or, whatever its letters' case, of a class is given twice, or cannot be printed;
            or there are too many structures.
    """

    name: str
    task: LabelledTask
    cases: tuple[LabelledCase, ...]
    labels: tuple[str, ...]
    values: tuple[tuple[int, ...], ...] = ()
    others_are_background: bool = False
    multilabel: bool = False
    modality: str | None = None
    channels: tuple[str, ...] = ("image",)
    dims: Literal[2, 3] = 3
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A split, the tables and the digests know a case by its name alone; names of classes become columns of tables
        # and parts of file names, some of which know no upper case.
        names = {"cases": [case.name for case in self.cases], "classes": [name.casefold() for name in self.labels]}
        for what, given in names.items():
            if twice := [name for name, count in Counter(given).items() if count > 1]:
                raise DataError(f"{self.name}: {twice[0]!r} names several {what}; expected a different name for each")
        if odd := [name for name in self.labels if printable(name) != name]:
            raise DataError(f"{self.name}: {odd[0]!r} cannot be printed; expected the name of a class, in one line")
        message = f"{self.name}: {len(self.labels) - 1} structures, expected at most {_MOST_STRUCTURES}: number kinds"
        require(self.task == "classification" or len(self.labels) <= _MOST_STRUCTURES + 1, DataError, message)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A labelled image in memory, as the network sees it.

    Attributes:
        name: Name of the case.
        patient: Whose it is.
        image: float32 [channels, *spatial].
        label: Class indices on the prepared grid, uint8 [*spatial], for a segmentation; else empty.
        classes: Indices of the classes that hold, for a classification.
        digest: Digest of the voxels and labels as they were read, before any preparation.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray = field(default_factory=partial(np.empty, 0, np.uint8))  # a quarter of the image's memory
    classes: tuple[int, ...] = ()
    digest: str = ""


def unread(path: Path, index: int | None = None) -> ScanReference:
    """Refer to a file, the folder of a DICOM series or one volume of a file without looking into it."""
    return ScanReference(path=path, files=(path,), format="", shape=(), spacing=None, index=index)


def data_contract(data: LabelledData) -> InputContract:
    """Return the default contract of a data set's modality, with its dimensions and channels.

    Raises:
        DataError: The modality is not known.

    Example:
        data_contract(read_labelled("Task04_Hippocampus")).intensity  # 'percentiles'
    """
    contract = CONTRACTS.get(data.modality or "")
    if contract is None:
        known = ", ".join(sorted(CONTRACTS))
        raise DataError(f"{data.name}: the modality is unknown; name it with --modality: {known}")
    return contract.override(dims=data.dims, orientation="RAS" if data.dims == 3 else None, channels=data.channels)


def sample_folder() -> Path:
    """Return the folder of the embedded scans."""
    return Path(str(resources.files("modelsgenesis"))) / "sample"


def sample_data() -> LabelledData:
    """Return the embedded sample: two patients of TotalSegmentator's test files with three organs.

    The scans are at 3 mm; a model drew the labels, not people. One patient is an abdominal slab of 13 slices.
    """
    organs = {"background": (0,), "liver": (5,), "spleen": (1,), "back muscles": (86, 87)}
    patients, folder = {"c02_ts_trunk": "training", "c04_ts_abdomen_slab": "test"}, sample_folder()
    cases = []
    for name, part in patients.items():
        scan, mask = (folder / kind / f"{name}.nii.gz" for kind in ("images", "labels"))
        cases.append(LabelledCase(name=name, patient=name, images=(unread(scan),), mask=mask, part=part))
    return LabelledData(
        name="embedded sample of CT",
        task="segmentation",
        cases=tuple(cases),
        labels=tuple(organs),
        values=tuple(organs.values()),
        others_are_background=True,  # the 100 other structures of TotalSegmentator
        modality="ct",
        notes=("the data is the embedded sample of two CT patients, which show that it runs and prove nothing",),
    )


def digest_files(data: LabelledData, names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the files and classes of each case, by which a change is told without preparing any of them.

    Args:
        data: The data set.
        names: Of the cases.
    """
    wanted, known = set(names), cache(sha256_of)  # a file may hold many cases
    digests: dict[str, str] = {}
    for case in (case for case in data.cases if case.name in wanted):
        files: list[Path] = []
        for path in case.paths:
            if path.suffix.lower() in (".hdr", ".mhd", ".nhdr"):  # a header, whose voxels lie beside it
                files += sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
            else:
                files += sorted(path.iterdir()) if path.is_dir() else [path]
        told = "".join([*(known(file) for file in files if file.is_file()), repr(case.classes)])
        digests[case.name] = hashlib.sha256(told.encode()).hexdigest()[:16]
    return digests


def check_same_grid(image: Volume, other: Volume) -> None:
    """Refuse a label, or another channel, that does not lie on its image.

    Orientation, spacing and position are compared by where the corners lie, within a tenth of a voxel.

    Raises:
        ScanError: Shapes or places differ.
    """
    shape = image.array.shape
    message = f"{other.source}: shape {other.array.shape} is not the {shape} of its image {image.source}"
    require(shape == other.array.shape, ScanError, message)
    if not (image.has_spacing and other.has_spacing):
        return
    corners = np.array([(*corner, *(0,) * (3 - len(shape)), 1) for corner in product(*((0, n - 1) for n in shape))])
    apart = np.linalg.norm(corners @ (image.affine - other.affine).T, axis=1).max()
    message = f"{other.source}: its affine is up to {apart:.3g} mm away from its image's, {image.source}; align both"
    require(apart <= _APART * voxel_sizes(image.affine)[: len(shape)].min(), ScanError, message)  # NaN is refused too


def prepare_channels(scans: Sequence[Volume], contract: InputContract) -> tuple[np.ndarray, PreparedVolume]:
    """Prepare the channels of a case, each on its own.

    Returns:
        float32 [channels, *spatial]; and the first channel, which knows the way back.

    Raises:
        ScanError: A scan cannot be used, or the channels lie on different grids.
    """
    for other in scans[1:]:
        check_same_grid(scans[0], other)
    prepared = [prepare(scan, contract) for scan in scans]
    # Of one channel without a copy.
    return prepared[0].array[None] if len(prepared) == 1 else np.stack([one.array for one in prepared]), prepared[0]


def read_mask(path: Path) -> Volume:
    """Read a label map: whole numbers of structures; the indices of an image with a palette.

    Labels are names and not amounts: 0.99999 is a 1 that a scale factor changed, and is rounded; 0.5, made by
    interpolation between two structures, is not a label.

    Raises:
        ScanError: It is a picture in colour, with an alpha channel or of a format that changes numbers, or it cannot be
            read, or a value is farther than 0.001 from a whole number, not finite, or too large.
    """
    mask = images.read_labels(path) if reader_of(path) == "images" else read_volume(path)
    in_colour = f"{path}: is in colour; expected one channel of the numbers of structures"
    require(COLOUR not in mask.notes, ScanError, in_colour)
    return whole_numbers(mask)


def whole_numbers(mask: Volume) -> Volume:
    """Return a label map with integers; errors as of `read_mask`."""
    if mask.array.dtype.kind != "f":
        return mask
    with np.errstate(all="ignore"):
        whole = np.rint(mask.array)
        bad = mask.array[~((abs(mask.array - whole) <= _ROUNDING) & (abs(whole) < 2.0**31))]
    if bad.size:
        remedy = "expected whole numbers: save the mask as integers, and resample it by the nearest neighbour"
        raise ScanError(f"{mask.source}: {bad.size} voxels are not labels, such as {bad[0]:g}; {remedy}")
    return replace(mask, array=whole.astype(np.int32))


def structure_values(masks: Iterable[Path]) -> list[int]:
    """Return the values that label maps hold, and 0, the background's, even where no voxel is left over for it.

    Raises:
        DataError: One is negative.
        ScanError: A label map cannot be used.
    """
    found = {0}
    for mask in dict.fromkeys(masks):
        found |= set(np.unique(read_mask(mask).array).tolist())
        remedy = "expected 0 for the background and numbers above for structures: set what nobody labelled to 0"
        require(min(found) == 0, DataError, f"{mask}: holds {min(found)}; {remedy}")
    return sorted(found)


def label_indices(values: np.ndarray, data: LabelledData, source: str) -> np.ndarray:
    """Turn the values of a label file into class indices.

    Args:
        values: [*spatial], integers; see `read_mask`.
        data: The data set, which tells the values of each class.
        source: What a message calls it.

    Returns:
        uint8 [*spatial], 0 for the background.

    Raises:
        ScanError: A value is none of the data set's labels.
    """
    index = {value: number for number, group in enumerate(data.values) for value in group}
    found = np.unique(values).tolist()
    unknown = [value for value in found if value not in index]
    if unknown and not data.others_are_background:
        raise ScanError(f"{source}: label values {unknown[:5]} are not among {sorted(index)} of the data set")
    # Value by value: a mask holds few, and looking up each voxel would sort or copy the volume.
    indices = np.zeros(values.shape, np.uint8)
    for value in filter(index.get, found):  # not of the background, whose index is 0
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
    read, labels = list(scans), {}
    if case.mask is not None:
        mask = read_mask(case.mask)
        check_same_grid(scans[0], mask)
        # On the scan's very affine, from which the label's may differ by rounding: both get the same prepared grid.
        mask = replace(scans[0], array=label_indices(mask.array, data, str(case.mask)))
        labels["label"] = prepare_label(mask, contract).array
        read.append(mask)
    digest = hashlib.blake2b(repr(case.classes).encode(), digest_size=10)
    for volume in read:
        digest.update(repr((volume.array.shape, volume.array.dtype.str, volume.affine.tolist())).encode())
        digest.update(volume.array.ravel(order="K").data)  # as it lies in memory: no copy of a volume
    image, _ = prepare_channels(scans, contract)
    image = image if size is None else resize_or_crop(image, size, fit)
    return _prepared(case, image=image, digest=digest.hexdigest(), **labels)


def _prepared(case: LabelledCase, **made: Any) -> PreparedCase:
    return PreparedCase(name=case.name, patient=case.patient, classes=case.classes, **made)


def resize_or_crop(image: np.ndarray, size: tuple[int, ...], fit: Fit = "auto") -> np.ndarray:
    """Bring an image to a size.

    Args:
        image: float32 [channels, *spatial].
        size: [*sides].
        fit: `"resize"` interpolates linearly and averages where it shrinks; `"crop"` cuts or pads with the lowest
            value around the centre; `"auto"` resizes planes and crops volumes, whose voxels have a size in mm.

    Returns:
        float32 [channels, *size]; the image itself where it has the size.

    Raises:
        ShapeError: The image has other axes than the size.

    Example:
        >>> resize_or_crop(np.ones((1, 256, 200), np.float32), (128, 128)).shape
        (1, 128, 128)
    """
    message = f"image of shape {image.shape}: expected [channels, {len(size)} spatial axes]"
    require(image.ndim == len(size) + 1, ShapeError, message)
    if image.shape[1:] == size:
        return image
    given, wanted = np.array(image.shape[1:]), np.array(size)
    if fit == "resize" or (fit == "auto" and len(size) == 2):
        return interpolate(image, size, tuple(given / wanted))
    # What is too long is cut and what is too short is padded, as much before as behind.
    first, missing = np.maximum(given - wanted, 0) // 2, np.maximum(wanted - given, 0)
    inside = tuple(slice(start, start + side) for start, side in zip(first, size, strict=True))
    padding = [(0, 0), *zip(missing // 2, (missing + 1) // 2, strict=True)]
    return np.pad(image[(slice(None), *inside)], padding, constant_values=image.min())


@dataclass
class PreparedCases:
    """The cases of a data set, each prepared once: kept in memory, or mapped from a folder that runs share.

    Args:
        data: The data set.
        size: Sides that images to classify are brought to at once; None keeps their own.
        fit: How they are brought to them.
        strict: A bad case is an error instead of being skipped.
        folder: Where prepared cases are written, and found by later runs and by other processes: their arrays are
            mapped, so that several processes share one copy. None keeps them in the memory of this process.

    Attributes:
        skipped: Cases that cannot be used, with the reason, by their names.
    """

    data: LabelledData
    size: tuple[int, ...] | None = None
    fit: Fit = "auto"
    strict: bool = False
    folder: str | Path | None = None
    skipped: dict[str, SkippedScan] = field(default_factory=dict, init=False)
    _known: dict[tuple[InputContract, str], PreparedCase] = field(default_factory=dict, init=False)

    def get(self, names: Sequence[str], contract: InputContract, reporter: Reporter) -> list[PreparedCase]:
        """Return the cases of these names that can be used, prepared by a contract; the others are notes.

        Raises:
            DataError: There are names, and none of their cases can be used.
            ScanError: A case cannot be used and `strict` is set.
        """
        listed = {case.name: case for case in self.data.cases}
        new = [name for name in names if (contract, name) not in self._known and name not in self.skipped]
        if new:
            reporter.begin("preparing cases", len(new))
        for done, name in enumerate(new, start=1):
            try:
                self._known[contract, name] = self._prepare(listed[name], contract)
            except GenesisError as error:
                if self.strict:
                    raise
                self.skipped[name] = SkippedScan.because(name, error)  # so that folds say it once
                reporter.note(f"skipped {name}: {error}")
            reporter.advance(done)
        if new:
            reporter.end()
        found = [self._known[contract, name] for name in names if name not in self.skipped]
        if names and not found:
            raise DataError(f"{self.data.name}: none of {len(names)} cases is usable, such as {names[0]}; see above")
        return found

    def _prepare(self, case: LabelledCase, contract: InputContract) -> PreparedCase:
        """Return a case, from the folder where it is there."""
        make = partial(prepare_case, case, self.data, contract, size=self.size, fit=self.fit)
        if self.folder is None:
            return make()
        # Its name changes with the files, by size and time, and with how they are prepared; not by a digest of the
        # content, for which each file would have to be read again at every start.
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in case.paths]
        how = (case, states, replace(self.data, name="", cases=(), notes=()), contract, self.size, self.fit)
        key = hashlib.blake2b(repr(how).encode(), digest_size=16).hexdigest()
        path = Path(self.folder) / f"{key}.pt"
        if not path.exists():
            made = make()
            # Tensors and text alone, which load without running code.
            tensors = {name: torch.from_numpy(getattr(made, name)) for name in ("image", "label")}
            with replacing(path, DataError) as temporary:
                torch.save({**tensors, "digest": made.digest}, temporary)
        with parsing(path, DataError, remedy="delete it, and it is made again"):
            # Mapped copy-on-write: what a transform changes in place stays private to its process.
            stored = torch.load(path, mmap=True, weights_only=True)
            arrays = {name: stored[name].numpy() for name in ("image", "label")}
            return _prepared(case, digest=stored["digest"], **arrays)


def fit_to_patch(image: np.ndarray, config: BundleConfig, source: str) -> np.ndarray:
    """Bring an image [channels, *spatial] to classify to the sides of those of the training.

    Raises:
        ScanError: It has other axes than the model.
    """
    dims = len(config.patch_size)
    require(image.ndim == dims + 1, ScanError, f"{source}: has {image.ndim - 1} axes; the model takes {dims}")
    return resize_or_crop(image, config.patch_size, config.provenance.recipe.get("fit", "auto"))
