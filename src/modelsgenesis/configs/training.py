"""The hyperparameters of the loop and of pretraining, and the named recipes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from modelsgenesis.configs.base import (
    Bounds,
    Config,
    Count,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Sides,
    apply_settings,
    require,
)
from modelsgenesis.configs.networks import (
    GENESIS_UNET_2019,
    GENESIS_UNET_SMALL,
    GenesisUNetConfig,
    UNetConfig,
)
from modelsgenesis.configs.pretext import PretextConfig
from modelsgenesis.configs.pretext import scheme as find_scheme
from modelsgenesis.errors import ConfigurationError, nearest


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """What pretraining and fine-tuning share: budget, optimiser, schedule, validation, hardware.

    Attributes:
        steps: Optimiser steps; None to count in epochs alone.
        epochs: Epochs at most; None to count in steps alone. What ends first ends the run.
        batch_size: Samples a step, over all processes.
        optimizer: `"sgd"` with momentum, `"adam"`, or `"adamw"`.
        learning_rate: Its peak.
        momentum: Of SGD.
        weight_decay: Decoupled for AdamW.
        schedule: After the warm-up: `"constant"`, `"cosine"` to zero at the end, or `"halving"`.
        halving_epochs: Epochs between halvings.
        warmup_steps: Steps of linear warm-up.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        validate_every: Steps between validations; None for once an epoch.
        patience: Validations without improvement before an early stop; 0 never stops.
        seed: Of initialisation, order, sub-volumes and deformations.
        precision: `"bfloat16"` autocast, `"float32"`, or `"auto"`: bfloat16 where the hardware computes it.
        workers: Loader processes; -1 for half of the cores, at most 8.
        compile: Compile the network with `torch.compile`: slow to start, faster on most GPUs.
        checkpoint_activations: Compute activations anew in the backward pass instead of keeping them: less memory,
            about a third more time.
        checkpoint_every: Steps between checkpoints; None for one with each validation.
        nonfinite: `"stop"` at a loss or gradient that is NaN or infinite, or `"skip"` that step.
        divergence_factor: A loss above this many times the median of the first losses ends the run; 0 never does.
        freeze_steps: First steps in which the tensors that came from a checkpoint stay as they are.
        pretrained_lr_scale: Their learning rate after that, as a share of the others'.
    """

    steps: Positive | None = 1000
    epochs: Positive | None = None
    batch_size: Positive = 4
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    halving_epochs: Positive = 40
    warmup_steps: Count = 50
    clip_norm: NonNegativeFloat = 1.0
    validate_every: Positive | None = 200
    patience: Count = 0
    seed: Count = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = -1
    compile: bool = False
    checkpoint_activations: bool = False
    checkpoint_every: Positive | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    divergence_factor: NonNegativeFloat = 1000.0
    freeze_steps: Count = 0
    pretrained_lr_scale: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require(self.steps is not None or self.epochs is not None, f"{name}: one of steps and epochs must be set")
        require(
            not (self.compile and self.checkpoint_activations),
            f"{name}: compile and checkpoint_activations do not work together; set one of them",
        )


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(TrainingConfig):
    """Self-supervised pretraining: restore sub-volumes from their deformed selves.

    Attributes:
        network: The network to train, unless it goes on from a checkpoint.
        pretext: The deformations.
        patch_size: Voxels of a sub-volume along each axis.
        samples_per_scan: Sub-volumes of a scan in an epoch.
        rule: Which sub-volumes are refused: `"lung"` as in 2019, `"foreground"` nearly empty ones, `"none"`.
        slice_axis: Along which volumes are cut into slices for a network of two dimensions: 2 is axial in RAS.
        validation_fraction: Share of the patients kept for validation, at least one.
        validation_samples: Fixed sub-volumes, with fixed deformations, of each validation.
    """

    network: UNetConfig = GENESIS_UNET_SMALL
    pretext: PretextConfig = field(default_factory=PretextConfig)
    patch_size: Sides = (64, 64, 32)
    samples_per_scan: Positive = 32
    rule: Literal["lung", "foreground", "none"] = "foreground"
    slice_axis: Literal[0, 1, 2] = 2
    validation_fraction: Annotated[float, Bounds(0, 0.99)] = 0.2
    validation_samples: Positive = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        dims, patch = self.network.dims, self.patch_size
        require(len(patch) == dims, f"patch_size: received {patch}, expected {dims} positive sides")


GENESIS_2019 = PretrainingConfig(
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
)
"""The published recipe of Genesis Chest CT 3D (Zhou et al. 2021, section 3; the release's configuration)."""

RECIPES: dict[str, PretrainingConfig] = {
    "default": PretrainingConfig(
        network=GenesisUNetConfig(norm="instance"),
        steps=100_000,
        batch_size=8,
        warmup_steps=1000,
        validate_every=1000,
    ),
    "small": PretrainingConfig(),
    "2019": GENESIS_2019,
}
"""Pretraining recipes by name: `default` for one GPU, `small` for a laptop, `2019` as published."""


def pretraining_recipe(
    name: str | PretrainingConfig, *, scheme: str | None = None, steps: int | None = None, settings: Sequence[str] = ()
) -> PretrainingConfig:
    """Return a recipe with changes.

    Args:
        name: One of `RECIPES`, or a configuration to change.
        scheme: One of the poster's schemes instead of the recipe's deformations.
        steps: Optimiser steps instead of the recipe's budget.
        settings: `key=value` with dots for what is nested, such as `pretext.flip_limit=0`.

    Raises:
        ConfigurationError: A name, key or value is unknown or of the wrong type.

    Example:
        >>> pretraining_recipe("small", steps=300, settings=["network.widths=8,16"]).network.widths
        (8, 16)
    """
    if isinstance(name, str) and name not in RECIPES:
        raise ConfigurationError(f"recipe: received {name!r}; {nearest(name, RECIPES)}")
    config = RECIPES[name] if isinstance(name, str) else name
    if scheme is not None:
        config = config.override(pretext=find_scheme(scheme))
    if steps is not None:
        config = config.override(steps=steps, epochs=None)
    return apply_settings(config, settings)
