"""Hyperparameters of pretraining: the deformations and their ablation, the data, the named recipes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

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
    apply_settings,
)
from modelsgenesis.configs.bundle import GENESIS_UNET_2019, GENESIS_UNET_SMALL, GenesisUNetConfig, UNetConfig
from modelsgenesis.errors import ConfigurationError, did_you_mean

Found = TypeVar("Found")


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
}
"""Ablation of Zhou et al. 2019: I non-linear intensity, II local shuffling, III out-painting, IV in-painting, V all;
`identity` deforms nothing (an autoencoder, the control)."""


def scheme(name: str) -> PretextConfig:
    """Return the deformations of a scheme of the ablation.

    Raises:
        ConfigurationError: There is no such scheme.

    Example:
        >>> scheme("III").inpainting_share
        0.0
    """
    return _find("scheme", name, SCHEMES)


@dataclass(frozen=True, kw_only=True)
class PretrainingDataConfig(DataConfig):
    """The scans of a pretraining, and how they are prepared.

    Attributes:
        validation_source: Scans to validate on; none hold out a share of the patients of `source`.
        exclude_test_cases: Splits of other runs, JSON files, whose test patients must not be seen: they are neither
            trained nor validated on.
        spacing: Voxel size in mm to resample to; None keeps each scan's own.
        window: Intensities that become 0 and 1 (CT: HU); None for those of the modality.
    """

    validation_source: tuple[FilePath, ...] = ()
    exclude_test_cases: tuple[FilePath, ...] = ()
    spacing: tuple[PositiveFloat, ...] | None = None
    window: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(TrainingConfig):
    """Self-supervised pretraining: restore patches from their deformed selves.

    Attributes:
        data: The scans.
        network: The network to train; with `init` that of the weights.
        pretext: The deformations.
        patch_size: Voxels of a patch along each axis.
        samples_per_scan: Patches of each scan per epoch.
        rule: Patches that are rejected: `"lung"` as in 2019, `"foreground"` nearly empty ones, `"none"`.
        validation_fraction: Share of the patients kept for validation, at least one.
        validation_samples: Patches of each validation, always the same ones with the same deformations.
    """

    data: PretrainingDataConfig = PretrainingDataConfig()
    network: UNetConfig = GENESIS_UNET_SMALL
    pretext: PretextConfig = PretextConfig()
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
        network=GenesisUNetConfig(norm="instance"),
        steps=100_000,
        batch_size=8,
        warmup_steps=1000,
        validate_every=1000,
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
