"""How many labels an arm is worth: "with 5 labels it equals scratch with 9", and how certain that is."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelsgenesis.comparison.analysis import lower_is_better, values_by_seed
from modelsgenesis.metrics.significance import MINIMUM_RUNS

_RESAMPLES = 2000


def labels_needed(curve: Mapping[int, float], target: float) -> float:
    """Return the label count at which a curve first reaches a value, linear in the logarithm between its points.

    Args:
        curve: Value by label count, higher is better.
        target: The value to reach.

    Returns:
        The count; −inf where the first point is above the target already, inf where no point reaches it.

    Example:
        >>> labels_needed({5: 0.6, 20: 0.8}, 0.7)
        10.0
        >>> labels_needed({5: 0.6, 20: 0.8}, 0.9)
        inf
    """
    points = sorted(curve.items())
    first_count, first_value = points[0]
    if first_value >= target:
        return float(first_count) if first_value == target else -math.inf
    for (low, before), (high, after) in itertools.pairwise(points):
        if after >= target:
            share = (target - before) / (after - before)
            return round(low * (high / low) ** share, 6)
    return math.inf


def equivalents(
    records: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]], metric: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Return, for each arm and label count, how many labels its reference needs for the same.

    The uncertainty is that of the runs: each arm's seeds are drawn again, with replacement, and the interval holds
    the middle 95% of the counts that result; an end beyond what was run is None.

    Args:
        records: Of the finished runs.
        pairs: Arms to compare: each with its reference.
        metric: What must be equal.
        seed: Of the resampling.
    """
    counts = sorted({record["labels"] for record in records})
    rows: list[dict[str, Any]] = []
    for arm, reference in pairs:
        ours, theirs = (_values(records, name, counts, metric) for name in (arm, reference))
        for labels, values in ours.items() if theirs else ():
            runs = min(len(values), *map(len, theirs.values()))
            ends = {"fewest": min(theirs), "most": max(theirs), "runs": runs}
            rows.append({"arm": arm, "reference": reference, "labels": labels, **_equal(values, theirs, seed), **ends})
    return rows


def _values(
    records: Sequence[Mapping[str, Any]], arm: str, counts: Sequence[int], metric: str
) -> dict[int, np.ndarray]:
    sign = -1 if lower_is_better(metric) else 1
    found = {labels: list(values_by_seed(records, arm, labels, metric).values()) for labels in counts}
    return {labels: sign * np.array(values) for labels, values in found.items() if values}


def _equal(ours: np.ndarray, theirs: Mapping[int, np.ndarray], seed: int) -> dict[str, float | str]:
    """Return the label count at which the reference equals some runs of an arm, and the ends of its interval."""
    random = np.random.default_rng(seed)

    def means(values: np.ndarray) -> np.ndarray:
        """Return the mean of the runs, then those of the runs drawn again."""
        chosen = random.integers(len(values), size=(_RESAMPLES, len(values)))
        return np.concatenate([[values.mean()], values[chosen].mean(axis=1)])

    targets, curves = means(ours), {count: means(values) for count, values in theirs.items()}
    needed = [
        labels_needed({count: float(curve[draw]) for count, curve in curves.items()}, float(target))
        for draw, target in enumerate(targets)
    ]
    drawn = np.sort(needed[1:])
    low, high = (float(drawn[int(share * (_RESAMPLES - 1))]) for share in (0.025, 0.975))
    return {"equals": _plain(needed[0]), "low": _plain(low), "high": _plain(high)}


def _plain(count: float) -> float | str:
    """Return a count, or "more" and "fewer" for what lies beyond the counts that were run: JSON has no infinity."""
    return count if math.isfinite(count) else ("more" if count > 0 else "fewer")


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of `equivalents` as a sentence.

    Example:
        >>> row = {"arm": "genesis", "reference": "scratch", "labels": 5, "equals": 9.04, "low": 7.0, "high": "more",
        ...        "fewest": 5, "most": 20, "runs": 10}
        >>> sentence(row)
        'genesis with 5 labels equals scratch with 9 (95% over the runs: 7 to more than 20).'
    """
    start = f"{row['arm']} with {row['labels']} labels"
    ends = dict.fromkeys([_count("low", row), _count("high", row)])
    span = f"(95% over the runs: {' to '.join(ends)})"
    if row["runs"] < MINIMUM_RUNS:
        span = "(too few runs to say how certain that is)"
    if row["equals"] == "more":
        return f"{start} is not reached by {row['reference']} with {row['most']}, the most that were run {span}."
    if row["equals"] == "fewer":
        return f"{start} is below {row['reference']} with {row['fewest']}, the fewest that were run {span}."
    return f"{start} equals {row['reference']} with {_count('equals', row)} {span}."


def _count(key: str, row: Mapping[str, Any]) -> str:
    number = row[key]
    if isinstance(number, str):
        return f"{number} than {row['most' if number == 'more' else 'fewest']}"
    return f"{number:.0f}" if number >= 20 or abs(number - round(number)) < 0.05 else f"{number:.1f}"
