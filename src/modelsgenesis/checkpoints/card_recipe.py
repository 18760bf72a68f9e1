"""A training's configuration in words: the named recipe that is nearest, where it differs, and the scheme."""

from collections.abc import Mapping
from typing import Any

from modelsgenesis.checkpoints.card_results import text
from modelsgenesis.configs import RECIPES, SCHEMES, PretextConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError

_SCHEMES = {
    "identity": "no deformation but flips, an autoencoder: the control",
    "I": "non-linear intensity",
    "II": "local shuffling",
    "III": "out-painting",
    "IV": "in-painting",
    "I+II": "non-linear intensity and local shuffling",
    "III+IV": "out-painting and in-painting",
    "V": "all four deformations",
    "custom": "deformations of its own, among the settings below",
}


def name_recipe(config: PretrainingConfig) -> tuple[str, list[str]]:
    """Return the named recipe with the fewest differences, and these, a phrase each.

    Example:
        >>> name_recipe(RECIPES["small"].override(steps=300))
        ('small', ['steps 300 instead of 1000'])
    """
    found = {name: _differences(config.to_dict(), recipe.to_dict()) for name, recipe in RECIPES.items()}
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def name_scheme(pretext: PretextConfig) -> str:
    """Return the poster's name of a set of deformations, or `"custom"`.

    Example:
        >>> name_scheme(SCHEMES["I+II"]), name_scheme(PretextConfig(shuffle_windows=7))
        ('I+II', 'custom')
    """
    return next((name for name, known in SCHEMES.items() if known == pretext), "custom")


def describe_recipe(recipe: Mapping[str, Any]) -> str:
    """Return Markdown that names the recipe of a pretraining; "" for any other configuration, or of another version."""
    if "pretext" not in recipe:
        return ""
    try:
        config = PretrainingConfig.from_dict(recipe)
    except ConfigurationError:
        return ""
    name, changes = name_recipe(config)
    scheme = name_scheme(config.pretext)
    said = f"The nearest named recipe is `{text(name)}`; " + ("the differences are:" if changes else "nothing differs.")
    listed = ["", *(f"- {text(change)}" for change in changes)] if changes else []
    return "\n".join([said, *listed, "", f"Scheme {text(scheme)}: {_SCHEMES[scheme]}."])


def _differences(values: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*values, *base]):
        value, other = values.get(key), base.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += _differences(value, other, f"{prefix}{key}.")
        elif value != other:
            found.append(f"{prefix}{key} {text(value)} instead of {text(other)}")
    return found
