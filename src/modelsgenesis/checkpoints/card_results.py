"""Results of a run as a card shows them: measures with what they rest on, and the Hub's `model-index`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsgenesis.configs import BundleConfig

PIPELINE_TAGS = {
    "restoration": "image-feature-extraction",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}
"""The Hub's name of each task."""

_BASELINES = {"restoration_loss": ("identity_loss", "mean_image_loss")}  # say nothing without the loss beside them
_COUNTS = (
    "n",
    "patients",
    "cases",
    "subjects",
    "samples",
    "seeds",
    "seed",
    "runs",
)  # belong to all of a group
_STEPS = ("step", "steps", "epoch")  # no measure of quality
_LONGEST_LIST = 12


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        name: Such as `dice Anterior`.
        value: The number.
        details: What it rests on: n, seeds, interval, baselines.
    """

    name: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)


def measures(results: Mapping[str, Any]) -> list[Measure]:
    """Find the numbers in a free mapping of results.

    A mapping with `mean` or `value` is one measure and its other keys the details; any other is a group,
    whose counts belong to each of its measures.

    Example:
        >>> measures({"dice": {"mean": 0.85, "n": 20}})
        [Measure(name='dice', value=0.85, details={'n': 20})]
        >>> [m.name for m in measures({"dice": {"Anterior": 0.86, "Posterior": 0.84}})]
        ['dice Anterior', 'dice Posterior']
    """
    return _group("", results, {})


def _group(prefix: str, results: Mapping[str, Any], inherited: Mapping[str, Any]) -> list[Measure]:
    counts = {**inherited, **{key: results[key] for key in _COUNTS if key in results}}
    baselines = {name for main, names in _BASELINES.items() if main in results for name in names}
    found: list[Measure] = []
    for key, value in results.items():
        if key in baselines or key in _COUNTS or key in _STEPS:
            continue
        beside = {name: results[name] for name in _BASELINES.get(key, ()) if name in results}
        found += _measures(f"{prefix} {key}".strip(), value, {**beside, **counts})
    return found


def _measures(name: str, value: Any, details: dict[str, Any]) -> list[Measure]:
    if _is_number(value):
        return [Measure(name, value, details)]
    if not isinstance(value, Mapping):
        return []
    for main in ("mean", "value"):
        if _is_number(value.get(main)):
            rest = {key: item for key, item in value.items() if key != main}
            return [Measure(name, value[main], {**details, **rest})]
    return _group(name, value, {key: item for key, item in details.items() if key in _COUNTS})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def model_index(config: BundleConfig, name: str, found: list[Measure]) -> list[dict[str, Any]]:
    """Return the Hub's `model-index`: every finite measure, with its details as `args`; empty without any."""
    metrics = [
        {
            "type": re.sub(r"[^a-z0-9]+", "_", measure.name.lower()).strip("_") or "measure",
            "name": measure.name,
            "value": measure.value,
            **({"args": _plain(measure.details)} if measure.details else {}),
        }
        for measure in found
        if math.isfinite(measure.value)
    ]
    if not metrics:
        return []
    data = config.provenance.data.get("name")
    data = data if isinstance(data, str) and data else f"{config.input.modality} scans of the publisher"
    result = {
        "task": {"type": PIPELINE_TAGS[config.task], "name": config.task},
        "dataset": {"type": re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "private", "name": data},
        "metrics": metrics,
    }
    return [{"name": name, "results": [result]}]


def _plain(value: Any) -> Any:
    """Return what YAML and JSON both hold: no tuple, no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Any) -> str:
    """Return a value as one line of Markdown that no cell, heading or marker can break out of.

    Example:
        >>> text({"n": 20, "interval": [0.831, 0.872]})
        'n 20; interval 0.831, 0.872'
    """
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{text(key)} {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        short = len(value) <= _LONGEST_LIST
        return ", ".join(text(item) for item in value) if short else f"{len(value)} values"
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")
