"""What every training shares: the data, the loop, the optimiser, the hardware."""

from dataclasses import dataclass
from typing import Any, Literal, Self

from modelsgenesis.configs.base import Config, Count, FilePath, NonNegativeFloat, Positive, PositiveFloat
from modelsgenesis.errors import ConfigurationError, require


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
    modality: Literal["auto", "ct", "mri", "xray", "ultrasound", "shape"] = "auto"
    patient_pattern: str | None = None
    cache: FilePath | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """Determines a run: its data, initial weights, budget, optimiser, schedule, validation and hardware.

    Attributes:
        data: The images.
        init: Initial weights: a name in the registry, `org/name` on the Hub, or a folder; None for random ones.
        steps: Optimiser steps; None to count in epochs alone.
        epochs: Epochs at most; None to count in steps alone. The run ends with whichever comes first.
        batch_size: Samples per step, over all processes.
        optimizer: `"sgd"` with momentum, `"adam"`, or `"adamw"`.
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
        precision: `"bfloat16"` autocast, `"float32"`, or `"auto"`: bfloat16 where the hardware computes it.
        workers: Loader processes; -1 for half of the cores, at most 8.
        compile: Compile the network with `torch.compile`: slow to start, faster on most GPUs.
        checkpoint_activations: Recompute activations in the backward pass: less memory, about a third more time.
        checkpoint_every: Steps between checkpoints; None for one with each validation.
        nonfinite: `"stop"` at a NaN or infinite loss or gradient, or `"skip"` that step.
        divergence_factor: Stop at a loss above this many times the median of the first ones; 0 never stops.
        freeze_steps: First steps during which the tensors from a checkpoint are frozen.
        pretrained_lr_scale: Factor on the learning rate of the tensors from a checkpoint.
    """

    data: DataConfig = DataConfig()
    init: str | None = None  # as it was given: a name must not become a path
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
    clip_norm: NonNegativeFloat = 1.0  # a single odd batch would else undo many steps
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
        require(
            self.steps is not None or self.epochs is not None,
            ConfigurationError,
            f"{name}: one of steps and epochs must be set",
        )
        require(
            not (self.compile and self.checkpoint_activations),
            ConfigurationError,
            f"{name}: compile and checkpoint_activations do not work together; set one of them",
        )

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
