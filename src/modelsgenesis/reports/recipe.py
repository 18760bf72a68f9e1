"""The settings of a run, and the command line that repeats it."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from modelsgenesis.configs import RECIPES, ClassificationConfig, SegmentationConfig
from modelsgenesis.reports.page import Block, Code, Missing, Table
from modelsgenesis.reports.records import Records, dig


def recipe_blocks(records: Records) -> Iterator[Block]:
    """Yield the command that repeats a pretraining or fine-tuning, and every setting of it."""
    settings = dig(records.run, "config", default={})
    if not settings:
        yield Missing("run.json is missing or damaged: nothing is known of the settings.")
        return
    pretrains = "pretext" in settings
    command = shlex.join(["modelsgenesis", "pretrain" if pretrains else "finetune", "--config", str(records.folder)])
    yield Code(command, "The command that repeats this run, in a new folder; --set KEY=VALUE changes a setting.")
    recipe = RECIPES["small"] if pretrains else ClassificationConfig() if "hidden" in settings else SegmentationConfig()
    usual = _flatten(recipe.to_dict())
    rows = [
        (name, told(value), "" if usual.get(name, value) == value else told(usual[name]))
        for name, value in _flatten(settings).items()
    ]
    yield Table(("setting", "value", "default"), rows, "Every setting of the run; the default where it is another.")


def told(value: Any) -> str:
    """Return a value of a JSON file in words.

    Example:
        >>> told([64, 64, 32]), told(True), told(None)
        ('64 × 64 × 32', 'yes', 'none')
    """
    if isinstance(value, list):
        return (", " if any(isinstance(one, str) for one in value) else " × ").join(map(told, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "none" if value is None else str(value)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat
