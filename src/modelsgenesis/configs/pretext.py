"""The deformations' hyperparameters and the poster's schemes."""

from dataclasses import dataclass
from typing import Literal

from modelsgenesis.configs.base import Config, Count, Positive, Share
from modelsgenesis.errors import ConfigurationError, nearest


@dataclass(frozen=True, kw_only=True)
class PretextConfig(Config):
    """Probabilities and sizes of the four deformations.

    Attributes:
        flip_probability: Chance of each further flip of a random axis, of deformed and original alike.
        flip_limit: Flips at most.
        shuffle_probability: Chance of local shuffling.
        shuffle_windows: Windows whose voxels are permuted.
        shuffle_fraction: The longest window side is a side of the sub-volume divided by this.
        intensity_probability: Chance of the non-linear intensity map.
        painting_probability: Chance of in- or out-painting.
        inpainting_share: Of the painted samples, the share that is in-painted; the others are out-painted.
        painting_fill: What a painted voxel becomes: noise, a value per voxel, as in the release, or one
            constant per sample, as the paper has it.
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


_NONE = PretextConfig(flip_probability=0.4, shuffle_probability=0, intensity_probability=0, painting_probability=0)
_I = {"intensity_probability": 0.9}
_II = {"shuffle_probability": 0.5}
_III = {"painting_probability": 0.9, "inpainting_share": 0.0}
_IV = {"painting_probability": 0.9, "inpainting_share": 1.0}
_III_IV = {"painting_probability": 0.9, "inpainting_share": 0.2}

SCHEMES: dict[str, PretextConfig] = {
    "identity": _NONE,
    "I": _NONE.override(**_I),
    "II": _NONE.override(**_II),
    "III": _NONE.override(**_III),
    "IV": _NONE.override(**_IV),
    "I+II": _NONE.override(**_I, **_II),
    "III+IV": _NONE.override(**_III_IV),
    "V": PretextConfig(),
}
"""The poster's ablation: I non-linear intensity, II local shuffling, III out-painting, IV in-painting, V all;
`identity` deforms nothing (an autoencoder, the control)."""


def scheme(name: str) -> PretextConfig:
    """Return the deformations of a scheme by its name in the poster.

    Raises:
        ConfigurationError: There is no such scheme.

    Example:
        >>> scheme("III").inpainting_share
        0.0
    """
    if name not in SCHEMES:
        raise ConfigurationError(f"scheme: received {name!r}; {nearest(name, SCHEMES)}")
    return SCHEMES[name]
