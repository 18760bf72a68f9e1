"""The hyperparameters of supervised training: what segmentation and classification share, and what each adds."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from modelsgenesis.configs.base import Bounds, Count, Positive, PositiveFloat, Share, Sides, require
from modelsgenesis.configs.networks import GENESIS_UNET_SMALL, UNetConfig
from modelsgenesis.configs.training import TrainingConfig
from modelsgenesis.errors import ConfigurationError

_LABELS = re.compile(r"\d{1,9}|\d{1,3}(\.\d{1,9})?%")
_EXPECTED_LABELS = "expected a number of patients such as 10, or a share of the training patients such as 10%"


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(TrainingConfig):
    """Supervised training of a task network: what both tasks share.

    Attributes:
        network: Shape of a network that starts from no checkpoint; its dimensions and channels follow the data.
        dims: Spatial dimensions of the network, to which a checkpoint is adapted; None for those of the data. With 2
            it learns single slices of volumes, along the last axis, and segments them one by one.
        patch_size: Sides of what the network sees; None takes the median scan, at most as many voxels as 64×64×32
            has.
        augment: Random rotation, scaling, and changes of intensity.
        flip: Random mirroring as well; off, since many labels know left from right.
        validation_fraction: Share of the training patients kept for validation.
        test_fraction: Share of the patients kept for the final measurement; 0 for none.
        freeze_encoder: Train the decoder and head alone.
        encoder_only: Take the encoder alone from a checkpoint; the decoder starts at random.
        rescale: Bring the kernels of a checkpoint back to the size of random ones, so that they learn as fast.
        labelled_patients: Patients of the training part whose labels are used: `"10"`, or `"10%"` of them; None for
            all.
        split_seed: Of the split and of which patients are labelled; `seed` is that of initialisation, order and
            augmentation.
        folds: Folds of a cross-validation, whose test parts cover every patient once; 0 for a single split.
        fold: Which of them, from 0; None without folds.
        bootstrap: Resamples of the patients behind each interval.
    """

    steps: Positive | None = 1500
    batch_size: Positive = 2
    learning_rate: PositiveFloat = 2e-3
    validate_every: Positive | None = 250
    network: UNetConfig = GENESIS_UNET_SMALL
    dims: Literal[2, 3] | None = None
    patch_size: Sides | None = None
    augment: bool = True
    flip: bool = False
    validation_fraction: Share = 0.1
    test_fraction: Share = 0.2
    freeze_encoder: bool = False
    encoder_only: bool = False
    rescale: bool = False
    labelled_patients: str | None = None
    split_seed: Count = 0
    folds: Count = 0
    fold: Count | None = None
    bootstrap: Positive = 1000

    def __post_init__(self) -> None:
        if isinstance(self.labelled_patients, int) and not isinstance(self.labelled_patients, bool):
            # As a JSON file or a setting writes a count.
            object.__setattr__(self, "labelled_patients", str(self.labelled_patients))
        super().__post_init__()
        # The network may come from a checkpoint and have other dimensions than this configuration's.
        sides = len(self.patch_size or (0, 0))
        require(sides in (2, 3), f"patch_size: received {self.patch_size}, expected 2 or 3 positive sides")
        name, folds = type(self).__name__, self.folds
        require(
            _is_label_count(self.labelled_patients),
            f"{name}.labelled_patients: received {self.labelled_patients!r}, {_EXPECTED_LABELS}",
        )
        require(folds != 1, f"{name}.folds: received 1, expected 0, or 2 or more")
        require(
            self.fold is None or self.fold < folds,
            f"{name}.fold: received {self.fold}"
            + (f", expected 0 to {folds - 1} of {folds} folds" if folds else " without folds; set folds=5 too"),
        )


def _is_label_count(labels: str | None) -> bool:
    if labels is None:
        return True
    number = float(labels.rstrip("%")) if _LABELS.fullmatch(labels) else 0.0
    return 0 < number <= (100 if labels.endswith("%") else float("inf"))


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FinetuningConfig):
    """Supervised training of a segmentation network on sub-volumes.

    Attributes:
        samples_per_scan: Sub-volumes of a scan in an epoch. Scans smaller than a sub-volume are padded.
        foreground_share: Share of the sub-volumes centred on a labelled voxel, each structure as often.
        overlap: Of the windows of validation and prediction, 0 to below 1.
    """

    samples_per_scan: Positive = 4
    foreground_share: Share = 0.5
    overlap: Share = 0.5


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(FinetuningConfig):
    """Supervised training of a classification network on whole images.

    Attributes:
        hidden: Width of the dense layer of the head, 1024 in the paper; 0 for a linear head.
        levels: Encoder levels whose global averages the head sees, 0 the highest resolution, -1 the deepest; None
            the deepest alone.
        fit: How an image is brought to the patch size: `"resize"`, `"crop"` (and pad) around the centre, or `"auto"`:
            planes are resized and volumes cropped, unless the data set asks for the other.
        balance: Draw each class as often, however many examples it has.
        class_weights: Weigh the classes of the loss inversely to how often they occur in training.
        specificity: At which the sensitivity is reported.
    """

    batch_size: Positive = 16
    steps: Positive | None = 1000
    learning_rate: PositiveFloat = 1e-3
    validate_every: Positive | None = 100
    hidden: Annotated[int, Bounds(0, 2**16)] = 1024
    levels: tuple[int, ...] | None = None
    fit: Literal["auto", "resize", "crop"] = "auto"
    balance: bool = False
    class_weights: bool = False
    specificity: Share = 0.9


def require_patch_size(config: FinetuningConfig) -> tuple[int, ...]:
    """Return the patch size of a configuration that has settled it.

    Raises:
        ConfigurationError: It is still open.
    """
    if config.patch_size is None:
        raise ConfigurationError("patch_size: received None, expected the sides of a sub-volume")
    return config.patch_size
