"""A configuration in words: which named recipe and which scheme it is, and where it differs."""

from typing import Any

from modelsgenesis.configs import RECIPES, SCHEMES, PretextConfig, PretrainingConfig
from modelsgenesis.training.run import compare


def describe_recipe(config: PretrainingConfig) -> dict[str, Any]:
    """Return what a bundle records of a pretraining's configuration.

    Returns:
        `name` of the named recipe that is nearest, the `scheme` of its deformations, `changes` from that recipe, a
        phrase each, and the whole `config`, from which `PretrainingConfig.from_dict` makes it again.

    Example:
        >>> told = describe_recipe(RECIPES["small"].override(steps=300))
        >>> told["name"], told["scheme"], told["changes"]
        ('small', 'V', ['steps was 1000, now 300'])
    """
    changes = {name: compare(recipe.to_dict(), config.to_dict()) for name, recipe in RECIPES.items()}
    nearest = min(changes, key=lambda name: len(changes[name]))
    return {
        "name": nearest,
        "scheme": name_scheme(config.pretext),
        "changes": changes[nearest],
        "config": config.to_dict(),
    }


def name_scheme(pretext: PretextConfig) -> str:
    """Return the poster's name of a set of deformations, or `"custom"`.

    Example:
        >>> name_scheme(SCHEMES["I+II"]), name_scheme(PretextConfig(shuffle_windows=7))
        ('I+II', 'custom')
    """
    return next((name for name, known in SCHEMES.items() if known == pretext), "custom")
