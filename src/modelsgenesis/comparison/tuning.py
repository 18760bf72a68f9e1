"""Choosing settings for each arm and label count, on the validation patients alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelsgenesis.comparison.analysis import lower_is_better

Key = tuple[str, int]
"""An arm and a label count."""

Candidate = tuple[str, ...]
"""`key=value` settings."""


def choose(scores: Mapping[Key, Mapping[Candidate, Sequence[float | None]]], metric: str) -> dict[Key, dict[str, Any]]:
    """Return, for each arm and label count, every candidate's scores and which was chosen.

    Args:
        scores: Of the validation patients, one a tuning run; None of a run that diverged.
        metric: What they are, which tells whether more is better.

    Returns:
        JSON values: `chosen`, `edge` (the keys of which the first or last of several values was chosen, so that a
        better one may lie beyond), and `candidates` with scores and mean. A candidate that diverged once is last;
        of equals the first is chosen.

    Example:
        >>> scores = {("scratch", 5): {("learning_rate=1e-3",): [0.6, 0.7], ("learning_rate=3e-3",): [0.8, None]}}
        >>> choose(scores, "dice")[("scratch", 5)]["chosen"]
        ['learning_rate=1e-3']
    """
    sign = -1 if lower_is_better(metric) else 1
    table: dict[Key, dict[str, Any]] = {}
    for key, tried in scores.items():
        means = {candidate: _mean(values) for candidate, values in tried.items()}
        best = max(means, key=lambda candidate: _rank(means[candidate], sign))
        table[key] = {
            "chosen": list(best),
            "edge": _edges(best, list(tried)),
            "candidates": [
                {"settings": list(candidate), "scores": list(values), "mean": means[candidate]}
                for candidate, values in tried.items()
            ],
        }
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def _rank(mean: float | None, sign: int) -> float:
    return -math.inf if mean is None else sign * mean


def _edges(best: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    edges: list[str] = []
    for position, setting in enumerate(best):
        values = list(dict.fromkeys(candidate[position] for candidate in candidates))
        if len(values) > 2 and setting in (values[0], values[-1]):
            edges.append(setting)
    return edges
