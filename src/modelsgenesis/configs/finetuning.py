"""The hyperparameters of supervised training, of segmentation and of classification, and of prediction."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from modelsgenesis.configs.base import (
    Bounds,
    Config,
    Count,
    DataConfig,
    FilePath,
    Positive,
    PositiveFloat,
    Share,
    Sides,
    TrainingConfig,
)
from modelsgenesis.configs.bundle import GENESIS_UNET_SMALL, UNetConfig
from modelsgenesis.errors import ConfigurationError

# Few digits, so that a number too large for a float is not a number of patients.
_LABELS = re.compile(r"\d{1,9}|\d{1,3}(\.\d{1,9})?%")


@dataclass(frozen=True, kw_only=True)
class LabelledDataConfig(DataConfig):
    """The labelled images of a fine-tuning; in `cache` prepared cases are kept, None keeps them in memory alone.

    Attributes:
        split: A `split.json`, which says what each case is for; None for the data's own split, or a drawn one.
    """

    split: FilePath | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(TrainingConfig):
    """Supervised training of a task network: what both tasks share.

    Attributes:
        data: The labelled images.
        from_scratch: Take the shape and the input contract of `init`, but random weights: its control.
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
        rescale: Scale the kernels of a checkpoint back to the size of random ones, so that they learn as fast.
        labelled_patients: Training patients whose labels are used: `"10"`, or `"10%"` of them; None for all.
        split_seed: Random seed of the split and of which patients are labelled; `seed` is that of initialisation, order
            and augmentation.
        folds: Folds of a cross-validation, whose test parts cover every patient once; 0 for a single split.
        fold: Number of the only fold to train, from 0; None for all of them.
        bootstrap: Resamples of the patients behind each confidence interval.
    """

    data: LabelledDataConfig = LabelledDataConfig()
    steps: Positive | None = 1500
    batch_size: Positive = 2
    learning_rate: PositiveFloat = 2e-3
    validate_every: Positive | None = 250
    from_scratch: bool = False
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
    # A setting or a JSON file writes a count as a number.
    labelled_patients: Annotated[Any, lambda labels: None if labels is None else str(labels)] = None
    split_seed: Count = 0
    folds: Count = 0
    fold: Count | None = None
    bootstrap: Positive = 1000

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for both tasks."""
        yield from super().rules()
        # The network may come from a checkpoint and have other dimensions than this configuration's.
        sides, sources, folds = self.patch_size, len(self.data.source), self.folds
        yield sides is None or len(sides) in (2, 3), f"patch_size: received {sides}, expected 2 or 3 positive sides"
        yield sources <= 1, f"data.source: received {sources} data sets, expected one"
        # One fold would leave nobody to train on.
        yield folds != 1, "folds: received 1, expected 0, or 2 or more"
        expected = f"expected 0 to {folds - 1} of {folds} folds" if folds else "expected folds=5 too"
        yield self.fold is None or self.fold < folds, f"fold: received {self.fold}, {expected}"
        if self.labelled_patients is not None:
            count_labelled(self.labelled_patients)


def count_labelled(labels: str, patients: int = 10**9) -> int:
    """Return how many patients `"10"`, or a share such as `"10%"`, means; of a share at least one.

    Args:
        labels: The number or the share.
        patients: Training patients there are; by default any number.

    Raises:
        ConfigurationError: It is neither, or there are not as many patients.

    Example:
        >>> count_labelled("10", 29), count_labelled("10%", 29), count_labelled("1%", 29)
        (10, 3, 1)
    """
    share = labels.endswith("%")
    number = float(labels.removesuffix("%")) if _LABELS.fullmatch(labels) else 0.0
    count = max(round(number / 100 * patients), 1) if share and number else int(number)
    if not 0 < count <= patients:
        most = f"at most the {patients} there are" if patients < 10**9 else "or a share of them such as 10%"
        raise ConfigurationError(
            f"labelled_patients: received {labels!r}, expected a number of training patients such as 10, {most}"
        )
    return count


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FinetuningConfig):
    """Supervised training of a segmentation network on patches.

    Attributes:
        samples_per_scan: Patches of each scan per epoch. Scans smaller than a patch are padded.
        foreground_share: Share of the patches centred on a labelled voxel, each structure as often.
        overlap: Overlap of neighbouring windows in validation and measuring, 0 to below 1.
    """

    samples_per_scan: Positive = 4
    foreground_share: Share = 0.5
    overlap: Annotated[float, Bounds(0, 0.99)] = 0.5


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(FinetuningConfig):
    """Supervised training of a classification network on whole images.

    Attributes:
        hidden: Width of the dense layer of the head, 1024 in the paper; 0 for a linear head.
        levels: Encoder levels whose global averages the head sees, 0 the highest resolution, -1 the deepest; None
            the deepest alone.
        fit: How an image is brought to the patch size: `"resize"`, `"crop"` (and pad) around the centre, or `"auto"`:
            planes are resized and volumes, whose voxels have a size in mm, cropped.
        balance: Draw each class as often, however many examples it has.
        class_weights: Weigh the classes of the loss inversely to how often they occur in training.
        specificity: Specificity at which the sensitivity is reported.
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
        raise ConfigurationError("patch_size: received None, expected the sides of a patch")
    return config.patch_size


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(Config):
    """Windows, mirrored passes, and where the windows are stitched.

    Attributes:
        overlap: Overlap of neighbouring windows, 0 to 0.99.
        flips: Axes of the prepared image along which it is mirrored as well, or `"all"`: n axes make 2^n passes, whose
            probabilities are averaged. In RAS 0 is left to right, 1 posterior to anterior, 2 inferior to superior.
        stitch: Where the windows are put together: on the network's `"device"`, on the `"cpu"`, or `"auto"`: on the
            device, and where its memory does not hold that in parts, then on the CPU.
        windows_at_once: Windows that the network sees together. On a CPU a window alone can take torch's slow
            convolutions; many take memory and save no time.
        precision: Number format of the network. `"float32"` gives the same label map on every machine; `"bfloat16"` is
            faster where the hardware multiplies it, and moves a few voxels at borders.
    """

    overlap: Annotated[float, Bounds(0, 0.99)] = 0.5  # at 1 a window would never advance
    flips: Literal["all"] | tuple[Annotated[int, Bounds(0, 2)], ...] = ()
    stitch: Literal["auto", "cpu", "device"] = "auto"
    windows_at_once: Positive = 4
    precision: Literal["float32", "bfloat16"] = "float32"
