"""The settings of every training: its data, pretraining and fine-tuning; named recipes and schemes; prediction."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar

from modelsgenesis.configs.base import (
    Bounds,
    Config,
    Count,
    FilePath,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Share,
    Sides,
    apply_settings,
)
from modelsgenesis.configs.bundle import GENESIS_UNET_2019, GENESIS_UNET_SMALL, GenesisUNetConfig, Modality, UNetConfig
from modelsgenesis.errors import ConfigurationError, did_you_mean

Found = TypeVar("Found")

SCRATCH = "scratch"
"""As initial weights: random ones on purpose; in a comparison those of the control, in the shape of the others."""

InitialWeights = Annotated[str | None, lambda init: None if init == SCRATCH else init]

# Few digits, so that a number too large for a float is not a number of patients.
_LABELS = re.compile(r"\d{1,9}|\d{1,3}(\.\d{1,9})?%")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """The images of a run.

    Attributes:
        source: Folders, files, patterns or lists of files.
        modality: What the images are; `"auto"` tells it from their headers and values.
        patient_pattern: Regular expression on a file's name whose first group is the patient.
        cache: Folder of the prepared images; None for the one in the user's cache, which runs share.
    """

    source: tuple[FilePath, ...] = ()
    modality: Literal["auto", Modality] = "auto"
    patient_pattern: str | None = None
    cache: FilePath | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """Determines a run: its data, initial weights, budget, optimiser, schedule, validation and hardware.

    Attributes:
        data: The images.
        init: Initial weights: a name in the registry, `org/name` on the Hub, or a folder; None, or `"scratch"`, for
            random ones.
        steps: Optimiser steps; None to count in epochs alone.
        epochs: Epochs at most; None to count in steps alone. The run ends with whichever comes first.
        batch_size: Samples per step, over all processes.
        optimizer: `"sgd"` with momentum, `"adam"`, `"adamw"`, or `"muon"`: AdamW whose steps on the kernels of hidden
            layers are orthogonalised.
        learning_rate: Its peak.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, decoupled for AdamW.
        schedule: Learning rate after the warm-up: `"constant"`, `"cosine"` to zero at the end, or `"halving"`.
        halving_epochs: Epochs between halvings.
        warmup_steps: Steps of linear warm-up.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        validate_every: Steps between validations; None validates once per epoch.
        patience: Validations without improvement before an early stop; 0 never stops.
        seed: Random seed of initialisation, order, patches and deformations.
        precision: `"bfloat16"` autocast, `"float32"` of IEEE on every device, `"tf32"` on CUDA, or `"auto"`: bfloat16
            where the hardware computes it, else float32.
        workers: Loader processes; -1 for half of the cores, at most 8.
        compile: Compile the network with `torch.compile`; `"auto"` does on CUDA, where the run is long enough to pay
            the half minute back and a compiler works.
        checkpoint_activations: Recompute activations in the backward pass: less memory, about a third more time.
        checkpoint_every: Steps between checkpoints; None for one with each validation.
        divergence_factor: Stop at a loss above this many times the median of the first ones; 0 never stops.
        freeze_steps: First steps during which the tensors from a checkpoint are frozen.
        pretrained_lr_scale: Factor on the learning rate of the tensors from a checkpoint.
    """

    data: DataConfig = DataConfig()
    init: InitialWeights = None  # as it was given: a name must not become a path
    steps: Positive | None = 1000
    epochs: Positive | None = None
    batch_size: Positive = 4
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    halving_epochs: Positive = 40
    warmup_steps: Count = 50
    clip_norm: NonNegativeFloat = 1.0  # a single odd batch would else undo many steps
    validate_every: Positive | None = 200
    patience: Count = 0
    seed: Count = 0
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    workers: int = -1
    compile: bool | Literal["auto"] = "auto"
    checkpoint_activations: bool = False
    checkpoint_every: Positive | None = None
    divergence_factor: NonNegativeFloat = 1000.0
    freeze_steps: Count = 0
    pretrained_lr_scale: NonNegativeFloat = 1.0

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for every training."""
        yield self.steps or self.epochs, "steps: one of steps and epochs must be set"
        together = self.compile is True and self.checkpoint_activations
        yield not together, "compile: does not work together with checkpoint_activations; set one of them"

    def with_data(self, init: Any = None, **options: Any) -> Self:
        """Return a copy with fields of `data`, and initial weights, replaced; None leaves one as it is.

        Raises:
            ConfigurationError: `data` has no such field, or a value is wrong.

        Example:
            >>> TrainingConfig().with_data(modality="ct", patient_pattern=None).data.modality
            'ct'
        """
        given = {name: value for name, value in options.items() if value is not None}
        return self.override(data=self.data.override(**given), init=self.init if init is None else init)

    def recipe(self) -> dict[str, Any]:
        """Return what a model card may say: everything but the data and the weights, whose paths can name people."""
        return {name: value for name, value in self.to_dict().items() if name not in ("data", "init")}


@dataclass(frozen=True, kw_only=True)
class PretextConfig(Config):
    """Probabilities and sizes of the four deformations.

    Attributes:
        flip_probability: Chance of each further flip of a random axis, of deformed and original alike.
        flip_limit: Flips at most.
        shuffle_probability: Chance of local shuffling.
        shuffle_windows: Windows whose voxels are permuted.
        shuffle_fraction: The longest window side is a side of the patch divided by this.
        intensity_probability: Chance of the non-linear intensity map.
        painting_probability: Chance of in- or out-painting.
        inpainting_share: Share of the painted samples that is in-painted; the others are out-painted.
        painting_fill: Value of painted voxels: noise, one value per voxel, as in the release, or one constant per
            sample, as in the paper.
        implant_probability: Chance of implants: ellipsoids of one grey value each, as foreign to a patch as a nodule
            is to a lung; not of the paper.
        others: Probability of each further deformation, by its name in `pretext.deformations.DEFORMATIONS`.
    """

    flip_probability: Share = 0.4
    flip_limit: Count = 3
    shuffle_probability: Share = 0.5
    shuffle_windows: Positive = 10_000
    shuffle_fraction: Positive = 10
    intensity_probability: Share = 0.9
    painting_probability: Share = 0.9
    inpainting_share: Share = 0.2
    painting_fill: Literal["noise", "constant"] = "noise"
    implant_probability: Share = 0.0
    others: dict[str, Share] = field(default_factory=dict)


# By the fields' names, so that a deformation that is added later is off here too.
UNCHANGED = PretextConfig().override(
    **{name: 0.0 for name in PretextConfig.__dataclass_fields__ if name.endswith("_probability")}
)
"""Deforms nothing, and does not flip."""

# Flips are not a deformation: original and deformed patch are flipped alike, so every scheme has them.
_FLIPS = UNCHANGED.override(flip_probability=PretextConfig().flip_probability)

SCHEMES: dict[str, PretextConfig] = {
    "identity": _FLIPS,
    "I": _FLIPS.override(intensity_probability=0.9),
    "II": _FLIPS.override(shuffle_probability=0.5),
    "III": _FLIPS.override(painting_probability=0.9, inpainting_share=0.0),
    "IV": _FLIPS.override(painting_probability=0.9, inpainting_share=1.0),
    "I+II": _FLIPS.override(intensity_probability=0.9, shuffle_probability=0.5),
    "III+IV": _FLIPS.override(painting_probability=0.9),
    "V": PretextConfig(),
    "VI": _FLIPS.override(implant_probability=1.0),
}
"""Ablation of Zhou et al. 2019: I non-linear intensity, II local shuffling, III out-painting, IV in-painting, V all;
`identity` deforms nothing (an autoencoder, the control). VI is not of the paper: implants alone."""


@dataclass(frozen=True, kw_only=True)
class PretrainingDataConfig(DataConfig):
    """The scans of a pretraining, and how they are prepared.

    Attributes:
        validation_source: Scans to validate on; none hold out a share of the patients of `source`.
        exclude_test_cases: Splits of other runs, JSON files, whose test patients must not be seen: they are neither
            trained nor validated on.
        spacing: Voxel size in mm to resample to; None keeps each scan's own.
        window: Intensities that become 0 and 1 (CT: HU); None for those of the modality.
        orientation: Axes that volumes are turned to, such as `SPL`, as nnU-Net reads them; None for `RAS`.
    """

    validation_source: tuple[FilePath, ...] = ()
    exclude_test_cases: tuple[FilePath, ...] = ()
    spacing: tuple[PositiveFloat, ...] | None = None
    window: tuple[float, float] | None = None
    orientation: str | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(TrainingConfig):
    """Self-supervised pretraining: restore patches from their deformed selves.

    Attributes:
        data: The scans.
        network: The network to train; with `init` that of the weights.
        pretext: The deformations.
        deformed_weight: Of the mean squared error over the deformed voxels, in addition to that over all; with 0, as in
            the paper, what is merely to be copied counts most.
        patch_size: Voxels of a patch along each axis.
        samples_per_scan: Patches of each scan per epoch.
        rule: Patches that are rejected: `"lung"` as in 2019, `"foreground"` nearly empty ones, `"none"`.
        validation_fraction: Share of the patients kept for validation, at least one.
        validation_samples: Patches of each validation, always the same ones with the same deformations.
    """

    data: PretrainingDataConfig = PretrainingDataConfig()
    network: UNetConfig = GENESIS_UNET_SMALL
    pretext: PretextConfig = PretextConfig()
    deformed_weight: NonNegativeFloat = 0.0
    patch_size: Sides = (64, 64, 32)
    samples_per_scan: Positive = 32
    rule: Literal["lung", "foreground", "none"] = "foreground"
    validation_fraction: Annotated[float, Bounds(0, 0.99)] = 0.2
    validation_samples: Positive = 64

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for a pretraining."""
        yield from super().rules()
        dims, patch = self.network.dims, self.patch_size
        yield len(patch) == dims, f"patch_size: received {patch}, expected {dims} positive sides"


RECIPES: dict[str, PretrainingConfig] = {
    "default": PretrainingConfig(
        network=GenesisUNetConfig(norm="instance"), steps=100_000, batch_size=8, warmup_steps=1000, validate_every=1000
    ),
    "small": PretrainingConfig(),
    "2019": PretrainingConfig(  # Genesis Chest CT 3D: Zhou et al. 2021, section 3, and the release's configuration
        network=GENESIS_UNET_2019,
        steps=None,
        epochs=10_000,
        batch_size=6,
        optimizer="sgd",
        learning_rate=1.0,
        weight_decay=0.0,
        schedule="halving",
        warmup_steps=0,
        clip_norm=0.0,
        validate_every=None,
        patience=50,
        rule="lung",
    ),
}
"""Pretraining recipes by name: `default` for one GPU, `small` for a laptop, `2019` as published."""


def pretraining_recipe(
    name: str | PretrainingConfig, *, scheme: str | None = None, steps: int | None = None, settings: Sequence[str] = ()
) -> PretrainingConfig:
    """Return a recipe with changes.

    Args:
        name: One of `RECIPES`, or a configuration to change.
        scheme: One of `SCHEMES` instead of the recipe's deformations.
        steps: Optimiser steps instead of the recipe's budget.
        settings: `key=value` with dots for what is nested, such as `pretext.flip_limit=0`.

    Raises:
        ConfigurationError: A name, key or value is unknown or of the wrong type.

    Example:
        >>> pretraining_recipe("small", steps=300, settings=["network.widths=8,16"]).network.widths
        (8, 16)
    """
    config = _find("recipe", name, RECIPES) if isinstance(name, str) else name
    if scheme is not None:
        config = config.override(pretext=_find("scheme", scheme, SCHEMES))
    if steps is not None:
        config = config.override(steps=steps, epochs=None)
    return apply_settings(config, settings)


def _find(what: str, name: str, known: Mapping[str, Found]) -> Found:
    if name not in known:
        raise ConfigurationError(f"{what}: received {name!r}; {did_you_mean(name, known)}")
    return known[name]


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
        fresh_norms: Let the scales and shifts of its normalisations begin anew, where it restored and its encoder is
            not frozen; on for a classification.
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
    rescale: bool = True
    fresh_norms: bool = False
    # A setting or a JSON file writes a count as a number.
    labelled_patients: Annotated[Any, lambda labels: str(labels) if type(labels) is int else labels] = None
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
    fresh_norms: bool = True
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
        windows_at_once: Windows that the network sees together; `"auto"`: as many as the device is fastest with and its
            memory holds, fewer where that does not last.
        precision: Number format of the network. `"auto"`: `"tf32"` on CUDA where the card has it, which moves less than
            one voxel in 10,000; else `"float32"`, which gives the same label map on every machine. `"bfloat16"` is
            faster where the hardware multiplies it, and moves a few voxels at borders.
    """

    overlap: Annotated[float, Bounds(0, 0.99)] = 0.5  # at 1 a window would never advance
    flips: Literal["all"] | tuple[Annotated[int, Bounds(0, 2)], ...] = ()
    stitch: Literal["auto", "cpu", "device"] = "auto"
    windows_at_once: Literal["auto"] | Positive = "auto"
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
