"""The hyperparameters of the loop and of pretraining, and the named recipes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from modelsgenesis.configs.base import Config, apply_settings, require
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
        explosion: A loss above this many times the median of the first losses ends the run; 0 never does.
        frozen_steps: First steps in which the tensors that came from a checkpoint stay as they are.
        pretrained_rate: Their learning rate after that, as a share of the others'.
    """

    steps: int | None = 1000
    epochs: int | None = None
    batch_size: int = 4
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    halving_epochs: int = 40
    warmup_steps: int = 50
    clip_norm: float = 1.0
    validate_every: int | None = 200
    patience: int = 0
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = -1
    compile: bool = False
    checkpoint_activations: bool = False
    checkpoint_every: int | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    explosion: float = 1000.0
    frozen_steps: int = 0
    pretrained_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require(self.steps is not None or self.epochs is not None, f"{name}: one of steps and epochs must be set")
        require(
            not (self.compile and self.checkpoint_activations),
            f"{name}: compile and checkpoint_activations do not work together; set one of them",
        )
        for key in ("steps", "epochs", "validate_every", "checkpoint_every"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{name}.{key}: received {value}, expected above 0")
        for key in ("batch_size", "halving_epochs"):
            require(getattr(self, key) > 0, f"{name}.{key}: received {getattr(self, key)}, expected above 0")
        require(self.learning_rate > 0, f"{name}.learning_rate: received {self.learning_rate}, expected above 0")
        counted = ("warmup_steps", "patience", "seed", "frozen_steps")
        for key in ("momentum", "weight_decay", "clip_norm", "explosion", "pretrained_rate", *counted):
            require(getattr(self, key) >= 0, f"{name}.{key}: received {getattr(self, key)}, expected 0 or above")


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
    patch_size: tuple[int, ...] = (64, 64, 32)
    samples_per_scan: int = 32
    rule: Literal["lung", "foreground", "none"] = "foreground"
    slice_axis: Literal[0, 1, 2] = 2
    validation_fraction: float = 0.2
    validation_samples: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patch_size(self.patch_size, self.network.dims)
        require(
            0 <= self.validation_fraction < 1,
            f"PretrainingConfig.validation_fraction: received {self.validation_fraction}, expected 0 to 1",
        )
        for key in ("samples_per_scan", "validation_samples"):
            require(
                getattr(self, key) > 0,
                f"PretrainingConfig.{key}: received {getattr(self, key)}, expected above 0",
            )


def check_patch_size(patch_size: tuple[int, ...], dims: int) -> None:
    """Refuse a patch of the wrong number of sides or with a side below 1.

    Raises:
        ConfigurationError: The patch does not fit the dimensions.
    """
    require(
        len(patch_size) == dims and min(patch_size) > 0,
        f"patch_size: received {patch_size}, expected {dims} positive sides",
    )


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
