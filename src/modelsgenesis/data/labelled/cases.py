"""Labelled cases, the data set that they make, how its images are prepared, and a case in memory."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.labelled.fitting import Fit
from modelsgenesis.data.labelled.sources import ImageSource
from modelsgenesis.data.preparation import PreparedVolume
from modelsgenesis.errors import DataError, printable

LabelledTask = Literal["segmentation", "classification"]
_MOST_STRUCTURES = 255  # label maps are uint8


@dataclass(frozen=True, kw_only=True)
class LabelledCase:
    """An image with what is known of it.

    Attributes:
        name: Unique in the data set; what a message and a prediction's file name call it.
        patient: What a split keeps together.
        images: One a channel.
        mask: Of a segmentation: its file, on the images' own grid.
        classes: Of a classification: indices of the classes that hold; exactly one unless the data is multi-label.
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
        labels: Class names, each once; of a segmentation the background first.
        values: Of a segmentation: the values of each class in the mask files.
        others_are_background: Whether other values count as background; else they are an error.
        multilabel: Whether several classes, or none, may hold for an image.
        modality: As the data set says or its values tell, or None.
        channels: What each image of a case shows.
        dims: Axes of the images, 2 or 3.
        fit: How `resize_or_crop` brings images to classify to a size.
        notes: What reading decided for itself, such as the rule that tells the patients.

    Raises:
        DataError: A name is another's, whatever its case, or cannot be printed; or there are too many structures.
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
    fit: Fit = "auto"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = Counter(name.casefold() for name in self.labels)
        for name in self.labels:
            if names[name.casefold()] > 1 or printable(name) != name:
                wrong = "names several classes" if names[name.casefold()] > 1 else "cannot be printed"
                raise DataError(f"{self.name}: {name!r} {wrong}; expected a name of its own each, in one line")
        if self.task == "segmentation" and len(self.labels) > _MOST_STRUCTURES + 1:
            raise DataError(
                f"{self.name}: {len(self.labels) - 1} structures; expected at most {_MOST_STRUCTURES}: number the "
                "kinds of objects and not each object"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A labelled image in memory, as the network sees it.

    Attributes:
        name: Of the case.
        patient: Of the case.
        image: float32 [channels, *spatial].
        volumes: The channels with the way back into their own frame, views of `image`; empty for a classification.
        label: Of a segmentation: class indices on the prepared grid, uint8 [*spatial].
        classes: Of a classification: indices of the classes that hold.
        digest: Of the voxels and labels as they were read, before any preparation.
    """

    name: str
    patient: str
    image: np.ndarray
    volumes: tuple[PreparedVolume, ...] = ()
    label: np.ndarray | None = None
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
            f"{data.name}: its modality cannot be told; say which with --modality: {', '.join(sorted(CONTRACTS))}"
        )
    contract = CONTRACTS[data.modality]
    return contract.override(dims=data.dims, orientation="RAS" if data.dims == 3 else None, channels=data.channels)
