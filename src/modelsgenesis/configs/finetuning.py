"""The hyperparameters of supervised training: what segmentation and classification share, and what each adds."""

import re
from dataclasses import dataclass
from typing import Literal

from modelsgenesis.configs.base import require
from modelsgenesis.configs.networks import GENESIS_UNET_SMALL, UNetConfig
from modelsgenesis.configs.training import TrainingConfig, check_patch_size
from modelsgenesis.errors import ConfigurationError

_LABELS = re.compile(r"\d+|\d+(\.\d+)?%")


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(TrainingConfig):
    """Supervised training of a task network: what both tasks share.

    Attributes:
        network: Shape of a network that starts from no checkpoint; its dimensions and channels follow the data.
        patch_size: Sides of what the network sees; None takes the median scan, at most as many voxels as 64×64×32
            has.
        augment: Random rotation, scaling, and changes of intensity.
        flip: Random mirroring as well; off, since many labels know left from right.
        validation_fraction: Share of the training patients kept for validation.
        test_fraction: Share of the patients kept for the final measurement; 0 for none.
        freeze_encoder: Train the decoder and head alone.
        encoder_only: Take the encoder alone from a checkpoint; the decoder starts at random.
        rescale: Bring the kernels of a checkpoint back to the size of random ones, so that they learn as fast.
        labels: Patients of the training part whose labels are used: `"10"`, or `"10%"` of them; None for all.
        split_seed: Of the split and of which patients are labelled; `seed` is that of initialisation, order and
            augmentation.
        folds: Folds of a cross-validation, whose test parts cover every patient once; 0 for a single split.
        fold: Which of them, from 0; None without folds.
        bootstrap: Resamples of the patients behind each interval.
    """

    steps: int | None = 1500
    batch_size: int = 2
    learning_rate: float = 2e-3
    validate_every: int | None = 250
    network: UNetConfig = GENESIS_UNET_SMALL
    patch_size: tuple[int, ...] | None = None
    augment: bool = True
    flip: bool = False
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    freeze_encoder: bool = False
    encoder_only: bool = False
    rescale: bool = False
    labels: str | None = None
    split_seed: int = 0
    folds: int = 0
    fold: int | None = None
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if isinstance(self.labels, int) and not isinstance(self.labels, bool):
            object.__setattr__(self, "labels", str(self.labels))  # as a JSON file or a setting writes a count
        super().__post_init__()
        if self.patch_size is not None:
            # The network may come from a checkpoint and have other dimensions than this configuration's.
            check_patch_size(self.patch_size, 2 if len(self.patch_size) == 2 else 3)
        self._require_fractions("validation_fraction", "test_fraction")
        self._check_labels()
        require(self.split_seed >= 0, f"{self._name}.split_seed: received {self.split_seed}, expected 0 or above")
        require(self.bootstrap > 0, f"{self._name}.bootstrap: received {self.bootstrap}, expected above 0")
        self._check_folds()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _require_fractions(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            require(0 <= value <= 1, f"{self._name}.{key}: received {value}, expected 0 to 1")

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        number = float(self.labels.rstrip("%")) if _LABELS.fullmatch(self.labels) else 0.0
        highest = 100 if self.labels.endswith("%") else float("inf")
        require(
            0 < number <= highest,
            f"{self._name}.labels: received {self.labels!r}, expected a number of patients such as 10, or a share of "
            "the training patients such as 10%",
        )

    def _check_folds(self) -> None:
        require(
            self.folds == 0 or self.folds > 1, f"{self._name}.folds: received {self.folds}, expected 0, or 2 or more"
        )
        if self.fold is not None:
            require(
                0 <= self.fold < self.folds,
                f"{self._name}.fold: received {self.fold}, expected 0 to {self.folds - 1} of {self.folds} folds"
                if self.folds
                else f"{self._name}.fold: received {self.fold} without folds; set folds too, such as folds=5",
            )


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FinetuningConfig):
    """Supervised training of a segmentation network on sub-volumes.

    Attributes:
        samples_per_scan: Sub-volumes of a scan in an epoch. Scans smaller than a sub-volume are padded.
        foreground_share: Share of the sub-volumes centred on a labelled voxel, each structure as often.
        overlap: Of the windows of validation and prediction, 0 to below 1.
    """

    samples_per_scan: int = 4
    foreground_share: float = 0.5
    overlap: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.samples_per_scan > 0,
            f"{self._name}.samples_per_scan: received {self.samples_per_scan}, expected above 0",
        )
        self._require_fractions("foreground_share", "overlap")


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

    batch_size: int = 16
    steps: int | None = 1000
    learning_rate: float = 1e-3
    validate_every: int | None = 100
    hidden: int = 1024
    levels: tuple[int, ...] | None = None
    fit: Literal["auto", "resize", "crop"] = "auto"
    balance: bool = False
    class_weights: bool = False
    specificity: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 0, f"{self._name}.hidden: received {self.hidden}, expected 0 or above")
        self._require_fractions("specificity")


def require_patch_size(config: FinetuningConfig) -> tuple[int, ...]:
    """Return the patch size of a configuration that has settled it.

    Raises:
        ConfigurationError: It is still open.
    """
    if config.patch_size is None:
        raise ConfigurationError("patch_size: received None, expected the sides of a sub-volume")
    return config.patch_size
