"""Labelled cases, the data set that they make, how its images are prepared, and a case in memory."""

import functools
import glob
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.labelled.images import FileImage, ImageSource
from modelsgenesis.data.volume import file_stem
from modelsgenesis.errors import DataError, printable
from modelsgenesis.files import sha256_of

LabelledTask = Literal["segmentation", "classification"]
_MOST_STRUCTURES = 255  # label maps are uint8, which keeps a case in a quarter of the memory of its image


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
    images: tuple[ImageSource, ...]
    mask: Path | None = None
    classes: tuple[int, ...] = ()
    part: str | None = None


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
        DataError: A name is given twice, whatever its case, or cannot be printed; or there are too many structures.
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
        names = Counter(name.casefold() for name in self.labels)
        for name in self.labels:
            # Names become columns of tables and parts of file names, some of which know no case.
            if names[name.casefold()] > 1 or printable(name) != name:
                wrong = "names several classes" if names[name.casefold()] > 1 else "cannot be printed"
                raise DataError(f"{self.name}: {name!r} {wrong}; expected a different name for each, in one line")
        if self.task == "segmentation" and len(self.labels) > _MOST_STRUCTURES + 1:
            raise DataError(
                f"{self.name}: {len(self.labels) - 1} structures; expected at most {_MOST_STRUCTURES}: number the "
                "kinds of objects and not each object"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A labelled image in memory, as the network sees it.

    Attributes:
        name: Name of the case.
        patient: Whose it is.
        image: float32 [channels, *spatial].
        label: Class indices on the prepared grid, uint8 [*spatial], for a segmentation.
        classes: Indices of the classes that hold, for a classification.
        digest: Digest of the voxels and labels as they were read, before any preparation.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray | None = None  # uint8: a quarter of the image's memory
    classes: tuple[int, ...] = ()
    digest: str = ""


def require_label(case: PreparedCase) -> np.ndarray:
    """Return the label of a case that has one.

    Raises:
        DataError: It has none.
    """
    if case.label is None:
        raise DataError(f"{case.name}: has no mask; expected a case of a segmentation")
    return case.label


def data_contract(data: LabelledData) -> InputContract:
    """Return the default contract of a data set's modality, with its dimensions and channels.

    Raises:
        DataError: The modality is not known.

    Example:
        data_contract(read_labelled("Task04_Hippocampus")).intensity  # 'percentiles'
    """
    if data.modality not in CONTRACTS:
        raise DataError(
            f"{data.name}: the modality is unknown; name it with --modality: {', '.join(sorted(CONTRACTS))}"
        )
    contract = CONTRACTS[data.modality]
    return contract.override(dims=data.dims, orientation="RAS" if data.dims == 3 else None, channels=data.channels)


def sample_data() -> LabelledData:
    """Return the embedded sample: two patients of TotalSegmentator's test files with three organs.

    The scans are at 3 mm; a model drew the labels, not people. One patient is an abdominal slab of 13 slices.
    """
    organs = {"background": (0,), "liver": (5,), "spleen": (1,), "back muscles": (86, 87)}
    folder = sample_folder()
    images = [path for path in sorted((folder / "images").iterdir()) if (folder / "labels" / path.name).exists()]
    cases = [
        LabelledCase(
            name=file_stem(image),
            patient=file_stem(image),
            images=(FileImage(path=image),),
            mask=folder / "labels" / image.name,
            part=part,
        )
        for image, part in zip(images, ("training", "test"), strict=True)
    ]
    return LabelledData(
        name="embedded sample of CT",
        task="segmentation",
        cases=tuple(cases),
        labels=tuple(organs),
        values=tuple(organs.values()),
        others_are_background=True,  # the 100 other structures of TotalSegmentator
        modality="ct",
        notes=("the data is the embedded sample of two CT patients, which proves nothing",),
    )


def sample_folder() -> Path:
    """Return the folder of the embedded scans."""
    return Path(str(resources.files("modelsgenesis"))) / "sample"


def digest_files(data: LabelledData, names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the files and classes of each case, by which a change is told without preparing any of them.

    Args:
        data: The data set.
        names: Of the cases.
    """
    wanted, known = set(names), functools.cache(sha256_of)  # an archive holds many cases
    digests: dict[str, str] = {}
    for case in data.cases:
        if case.name in wanted:
            paths = [image.path for image in case.images] + ([case.mask] if case.mask else [])
            files = [file for path in paths for file in _files_of(path) if file.is_file()]
            told = "".join([*map(known, files), repr(case.classes)])
            digests[case.name] = hashlib.sha256(told.encode()).hexdigest()[:16]
    return digests


def _files_of(path: Path) -> list[Path]:
    """Return the files of an image: those of a DICOM series, and a header with its voxels beside it."""
    if path.is_dir():
        return sorted(path.iterdir())
    if path.suffix.lower() in (".hdr", ".mhd", ".nhdr"):
        return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return [path]
