"""From cases to what a results file says: each metric with its bootstrap interval over patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.metrics import classification as ranking
from modelsgenesis.metrics.classification import chosen_classes, divide
from modelsgenesis.metrics.segmentation import SEGMENTATION_METRICS

LEVEL = 0.95
"""Coverage of every interval."""


_BLOCK = 4_000_000  # weights in memory at once


@dataclass(frozen=True)
class Interval:
    """A 95% bootstrap interval.

    Attributes:
        low: Lower end; None where no interval can be had: fewer than two patients, or no resample with a value.
        high: Upper end, or None.
        undefined: Resamples without a value, such as an AUC without a positive case; they are left out.
    """

    low: float | None
    high: float | None
    undefined: int = 0


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the percentile interval of one statistic over resampled patients; see `intervals`.

    Args:
        statistic: Maps weights [resamples, cases] to values [resamples]; NaN where it is undefined.
        patients: Whose each case is.
        resamples: How many.
        seed: Of the draws.

    Raises:
        ConfigurationError: No case, or no resample.

    Example:
        >>> dice = np.array([0.8, 0.9, 0.7, 0.85])
        >>> found = interval(lambda weights: weights @ dice / weights.sum(1), ["a", "b", "c", "d"])
        >>> 0.7 < found.low < 0.8125 < found.high < 0.9
        True
    """
    return intervals(lambda weights: statistic(weights)[:, None], patients, resamples, seed)[0]


def intervals(
    statistics: Callable[[np.ndarray], np.ndarray], patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> list[Interval]:
    """Return the percentile intervals of several statistics over the same resampled patients.

    Patients are drawn with replacement, each with all of its cases: several images of one patient are no
    independent evidence. A resample is a row of weights: how often each case is in it.

    Args:
        statistics: Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
        patients: Whose each case is.
        resamples: How many.
        seed: Of the draws; the same for two models makes the same resamples.

    Returns:
        The 2.5th and the 97.5th percentile of each.

    Raises:
        ConfigurationError: No case, or no resample.

    References:
        Efron and Tibshirani 1993, chapter 13: the percentile interval.
    """
    if not len(patients) or resamples < 1:
        raise ConfigurationError(
            f"bootstrap: received {len(patients)} cases and {resamples} resamples, expected at least one of each"
        )
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    block = max(_BLOCK // len(owner), 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        found.append(statistics(drawn[:, owner].astype(float)))
    return [_interval(column, enough=len(names) > 1) for column in np.concatenate(found).T]


def _interval(values: np.ndarray, *, enough: bool) -> Interval:
    defined = values[~np.isnan(values)]
    undefined = values.size - defined.size
    if not enough or not defined.size:
        return Interval(None, None, undefined)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail]).tolist()
    return Interval(low, high, undefined)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of each column over the cases where it is defined.

    Args:
        values: [cases, columns], NaN where undefined.
        weights: [resamples, cases].

    Returns:
        [resamples, columns]; NaN where no case with weight has a value.

    Example:
        >>> weighted_means(np.array([[1.0], [np.nan], [3.0]]), np.array([[1, 5, 1], [0, 1, 0]])).tolist()
        [[2.0], [nan]]
    """
    defined = ~np.isnan(values)
    total = weights @ np.where(defined, values, 0.0)
    count = weights @ defined.astype(float)
    return divide(total, count)


def mean_of_columns(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


Summary = dict[str, dict[str, Any]]
"""By the metric's name: `value`, and `low` and `high` of its 95% interval, each None where undefined. Where they are
not zero, `undefined` counts the cases left out of the mean, `undefined_classes` the classes and `undefined_resamples`
the resamples; `reason` says why there is no value."""


def summarize_segmentation(
    rows: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    patients: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Summary:
    """Summarize what `measure_segmentation` found in each case.

    Args:
        rows: One mapping a case.
        labels: Class names, the background first.
        patients: Whose each case is.
        resamples: Bootstrap resamples.
        seed: Of them.

    Returns:
        `dice`, the mean over the structures of the mean over the cases, then `dice <structure>`; so for `iou` and
        `hausdorff95` (mm).

    Example:
        >>> rows = [{"dice a": 0.5, "iou a": 0.33}, {"dice a": 1.0, "iou a": 1.0}]
        >>> found = summarize_segmentation(rows, ["background", "a"], ["p", "q"])
        >>> found["dice a"]
        {'value': 0.75, 'low': 0.5, 'high': 1.0}
    """
    found: Summary = {}
    for metric in SEGMENTATION_METRICS:
        names = [f"{metric} {label}" for label in labels[1:]]
        if not rows or not all(name in rows[0] for name in names):
            continue  # without scipy there is no Hausdorff distance
        values = np.array([[row[name] for name in names] for row in rows])

        def means(weights: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return _with_mean(weighted_means(values, weights))

        entries = _entries([metric, *names], means, patients, resamples, seed)
        for name, undefined in zip(names, np.isnan(values).sum(axis=0).tolist(), strict=True):
            if undefined:
                entries[name]["undefined"] = undefined
        found |= entries
    for entry in found.values():
        if entry["value"] is None:
            entry["reason"] = "no case has the structure in both the truth and the prediction"
    return found


def summarize_classification(
    probabilities: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    patients: Sequence[str],
    *,
    multilabel: bool = False,
    specificity: float = 0.9,
    groups: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Summary:
    """Summarize the predictions of a classification.

    Args:
        probabilities: [cases, classes].
        truth: [cases, classes] booleans; one true a case unless `multilabel`.
        labels: Class names.
        patients: Whose each case is.
        multilabel: Whether several classes may hold at once.
        specificity: At which the sensitivity is given.
        groups: Which network predicted each case, where several did, such as those of folds. Scores of different
            networks cannot be ranked together: cases are ranked within each group, and the groups averaged.
        resamples: Bootstrap resamples.
        seed: Of them.

    Returns:
        `auc`, `average_precision`, `sensitivity` at the specificity, and `accuracy`. Of two exclusive classes the
        first three are of the second. Otherwise they are the mean of each class against the rest, beside
        `auc <class>` and so on. The accuracy is the share of cases given their class; where several classes may
        hold, the share of right answers at a probability of 0.5.

    Raises:
        RangeError: A probability is NaN.
    """
    ranking.check_finite(probabilities)
    single = len(labels) == 2 and not multilabel
    columns = [1] if single else list(range(len(labels)))
    scores, positive = probabilities[:, columns], truth[:, columns]
    members = _members(groups, len(truth))
    found: Summary = {}
    metrics: dict[str, _Weighted] = {
        "auc": ranking.area,
        "average_precision": ranking.average_precision,
        "sensitivity": ranking.sensitivity_at(specificity),
    }
    for metric, weighted in metrics.items():

        def each(weights: np.ndarray, weighted: _Weighted = weighted) -> np.ndarray:
            pairs = zip(scores.T, positive.T, strict=True)
            values = np.stack([_within(members, weighted, score, true, weights) for score, true in pairs], axis=-1)
            return values if single else _with_mean(values)

        names = [metric] if single else [metric, *(f"{metric} {label}" for label in labels)]
        found |= _explained(_entries(names, each, patients, resamples, seed), positive)
    return found | _accuracy(probabilities, truth, patients, multilabel, resamples, seed)


_Weighted = Callable[[ranking.Curve], np.ndarray]


def _members(groups: Sequence[int] | None, cases: int) -> list[np.ndarray]:
    """Return the indices of the cases of each group."""
    of = np.zeros(cases, int) if groups is None else np.asarray(groups)
    return [np.flatnonzero(of == group) for group in np.unique(of)]


def _within(
    members: Sequence[np.ndarray], weighted: _Weighted, score: np.ndarray, true: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the mean over the groups of a metric within each, [resamples]."""
    each = [weighted(ranking.curve(score[own], true[own], weights[:, own])) for own in members]
    return each[0] if len(each) == 1 else mean_of_columns(np.stack(each, axis=-1))


def _accuracy(
    probabilities: np.ndarray,
    truth: np.ndarray,
    patients: Sequence[str],
    multilabel: bool,
    resamples: int,
    seed: int,
) -> Summary:
    chosen = chosen_classes(probabilities, multilabel=multilabel)
    right = (chosen == truth).mean(axis=1) if multilabel else (chosen & truth).any(axis=1).astype(float)

    def mean(weights: np.ndarray) -> np.ndarray:
        return weighted_means(right[:, None], weights)

    return _entries(["accuracy"], mean, patients, resamples, seed)


def _with_mean(values: np.ndarray) -> np.ndarray:
    """Put the mean over what is defined before the columns."""
    return np.column_stack([mean_of_columns(values), values])


def _entries(
    names: Sequence[str],
    statistics: Callable[[np.ndarray], np.ndarray],
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Summary:
    """Return the value of each statistic on the cases as they are, with its interval."""
    found: Summary = {}
    ends = intervals(statistics, patients, resamples, seed)
    points = statistics(np.ones((1, len(patients))))[0].tolist()
    for name, point, end in zip(names, points, ends, strict=True):
        defined = not np.isnan(point)
        found[name] = {"value": point, "low": end.low, "high": end.high} if defined else dict.fromkeys(_KEYS)
        if defined and end.undefined:
            found[name]["undefined_resamples"] = end.undefined
    return found


_KEYS = ("value", "low", "high")


def _explained(entries: Summary, positive: np.ndarray) -> Summary:
    """Say why a figure of a ranking is undefined: all cases are of one kind."""
    whole, *each = entries.values()
    if whole["value"] is None:
        whole["reason"] = f"all {len(positive)} cases are of one class"
    for entry, column in zip(each, positive.T, strict=len(each) > 0):
        if entry["value"] is None:
            entry["reason"] = f"{int(column.sum())} of {len(column)} cases are of this class"
    undefined = sum(entry["value"] is None for entry in each)
    if undefined and whole["value"] is not None:
        whole["undefined_classes"] = undefined
    return entries


def flat(summary: Summary) -> dict[str, float]:
    """Return the values that are defined, by name.

    Example:
        >>> flat({"auc": {"value": None, "low": None, "high": None}, "accuracy": {"value": 1.0}})
        {'accuracy': 1.0}
    """
    return {name: entry["value"] for name, entry in summary.items() if entry["value"] is not None}


def explanations(summary: Summary) -> list[str]:
    """Return a sentence about each figure that is undefined, or that leaves cases or classes out.

    Example:
        >>> explanations({"auc": {"value": None, "reason": "all 3 cases are of one class"}})
        ['auc is undefined: all 3 cases are of one class']
    """
    said: list[str] = []
    for name, entry in summary.items():
        if entry["value"] is None:
            said.append(f"{name} is undefined: {entry['reason']}")
        elif "undefined" in entry:
            lacking = "the truth or the prediction lacks" if name.startswith("hausdorff95") else "the truth lacks"
            said.append(f"{name}: the mean leaves out {entry['undefined']} cases in which {lacking} the structure")
        elif "undefined_classes" in entry:
            said.append(f"{name}: the mean leaves out {entry['undefined_classes']} classes of no case or of all")
    return said
