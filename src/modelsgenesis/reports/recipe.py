"""The settings of a run, and the command line that leads to them."""

import json
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from modelsgenesis.configs import (
    RECIPES,
    ClassificationConfig,
    PretrainingConfig,
    SegmentationConfig,
    TrainingConfig,
    apply_settings,
)
from modelsgenesis.errors import ConfigurationError, require
from modelsgenesis.reports.page import Block, Code, Missing, Table, try_section
from modelsgenesis.reports.records import Records, dig


def recipe_blocks(records: Records) -> Iterator[Block]:
    """Yield the command that repeats a pretraining or fine-tuning, and every setting of it."""
    settings = dig(records.run, "config", default={})
    if not settings:
        yield Missing("run.json is missing or damaged: nothing is known of the settings.")
        return
    yield from try_section("Command", partial(_command, settings)).blocks
    rows = [(name, told(value)) for name, value in _flatten(settings).items()]
    yield Table(("setting", "value"), rows, "Every setting of the run.")


def told(value: Any) -> str:
    """Return a value of a JSON file in words.

    Example:
        >>> told([64, 64, 32]), told(True), told(None)
        ('64 × 64 × 32', 'yes', 'none')
    """
    if isinstance(value, list):
        return (", " if any(isinstance(one, str) for one in value) else " × ").join(map(told, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "none" if value is None else str(value)


def _command(settings: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the command that needs the fewest changes of a recipe."""
    starts: dict[str, TrainingConfig] = {"": SegmentationConfig()}
    if "pretext" in settings:
        starts = {f"--recipe={name}": recipe for name, recipe in RECIPES.items()}
    elif "hidden" in settings:
        starts = {"": ClassificationConfig()}
    command = "pretrain" if "pretext" in settings else "finetune"
    config = next(iter(starts.values())).from_dict(settings)
    data, alone = config.data, len(config.data.source) == 1
    words = [*(data.source if alone else ()), *((f"--init={config.init}",) if config.init else ())]
    words += [f"--modality={data.modality}"] if data.modality != "auto" else []
    commands: list[str] = []
    for option, recipe in starts.items():
        base = recipe.with_data(config.init, modality=data.modality, source=data.source if alone else None)
        if config.init and isinstance(base, PretrainingConfig) and isinstance(config, PretrainingConfig):
            base = base.override(network=config.network)  # which comes with the weights
        usual = _flatten(base.to_dict())
        changed = {name: value for name, value in _flatten(settings).items() if usual.get(name, value) != value}
        changes = [f"{name}={_as_setting(value)}" for name, value in changed.items()]
        why = "no command line leads from a recipe to this network; its settings are in run.json"
        require(apply_settings(base, changes) == config, ConfigurationError, why)
        chosen = [option] if option and option != "--recipe=small" else []
        commands.append(shlex.join(["modelsgenesis", command, *words, *chosen, *(f"--set={one}" for one in changes)]))
    yield Code(min(commands, key=len), "The command of this run; it makes a new folder.")


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def _as_setting(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, list):
        return ",".join(map(_as_setting, value)) + ("," if len(value) == 1 else "")
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
