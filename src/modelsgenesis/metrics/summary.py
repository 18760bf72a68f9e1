"""From the rows of cases to the figures of a results file: metrics with 95% bootstrap intervals over patients."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.metrics.classification import CLASS_SEPARATOR, RANKING_METRICS, check_finite, chosen_classes, rank
from modelsgenesis.metrics.segmentation import SEGMENTATION_METRICS

Row = dict[str, Any]
"""A line of `test.csv` or `cases.csv`: `case`, `patient`, then what was measured of the case."""

Summary = dict[str, dict[str, Any]]
"""By the metric's name: `value`, and `low` and `high` of its 95% interval, each None where undefined. Where they are
not zero, `undefined` counts the cases left out of the mean, `undefined_classes` the classes and `undefined_resamples`
the resamples; `reason` says why there is no value."""

Statistics = Callable[[np.ndarray], np.ndarray]
"""Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined."""

_TAILS = (2.5, 97.5)  # percentiles at the ends of a 95% interval
_BLOCK = 4_000_000  # weights in memory at once: 32 MB


class Interval(NamedTuple):
    """A 95% bootstrap interval.

    Attributes:
        low: Lower end; None where there is no interval: fewer than two patients, or no resample with a value.
        high: Upper end, or None.
        undefined: Resamples without a value, such as an AUC without a positive case; they are left out.
    """

    low: float | None
    high: float | None
    undefined: int = 0


def intervals(statistics: Statistics, patients: Sequence[str], resamples: int = 1000, seed: int = 0) -> list[Interval]:
    """Return the percentile intervals of several statistics over the same resampled patients.

    Patients are drawn with replacement, each with all of its cases: several images of one patient are not
    independent evidence. A resample is a row of weights: how often each case is in it.

    Args:
        statistics: Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
        patients: The patient of each case.
        resamples: Number of draws.
        seed: Random seed of the draws; the same for two models makes the same resamples.

    Returns:
        The 2.5th and the 97.5th percentile of each statistic.

    Raises:
        ConfigurationError: There is no case, or no resample.

    Example:
        >>> dice = np.array([0.8, 0.9, 0.7, 0.85])
        >>> (found,) = intervals(lambda weights: weighted_means(dice[:, None], weights), ["a", "b", "c", "d"])
        >>> 0.7 < found.low < 0.8125 < found.high < 0.9
        True

    References:
        Efron and Tibshirani 1993, chapter 13: the percentile interval.
    """
    if not len(patients) or resamples < 1:
        raise ConfigurationError(
            f"bootstrap: received {len(patients)} cases and {resamples} resamples, expected at least one of each"
        )
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    block = max(_BLOCK // len(owner), 1)
    found: list[np.ndarray] = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # How often each patient is drawn is multinomial, and every case of a patient shares its count.
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        found.append(statistics(drawn[:, owner].astype(float)))
    ends = []
    for column in np.concatenate(found).T:
        defined = column[~np.isnan(column)]
        low, high = np.percentile(defined, _TAILS).tolist() if len(names) > 1 and defined.size else (None, None)
        ends.append(Interval(low, high, column.size - defined.size))
    return ends


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
    with np.errstate(invalid="ignore"):
        return weights @ np.where(defined, values, 0.0) / (weights @ defined.astype(float))


def mean_ignoring_nan(values: Sequence[float] | np.ndarray) -> Any:
    """Return the mean over the last axis of what is defined; NaN, without a warning, where nothing is."""
    values = np.asarray(values, float)
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean = np.where(defined, values, 0.0).sum(-1) / defined.sum(-1)
    return mean if values.ndim > 1 else float(mean)  # a card's YAML takes no NumPy number


def summarize_rows(
    rows: Sequence[Row],
    labels: Sequence[str],
    *,
    task: str,
    multilabel: bool = False,
    specificity: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> Summary:
    """Summarize what was measured of each case.

    Args:
        rows: A row for each case, as `measure_case` returns it. Cases that several networks predicted, such as those
            of folds, say in `fold` which did: scores of different networks cannot be ranked together, so cases are
            ranked within each fold, and the folds averaged.
        labels: Class names; of a segmentation the background first.
        task: `"segmentation"` or `"classification"`.
        multilabel: Whether several classes may hold at once.
        specificity: At which the sensitivity is given.
        resamples: Bootstrap resamples of the patients.
        seed: Random seed of them.

    Returns:
        Of a segmentation `dice`, the mean over the structures of the mean over the cases, then `dice <structure>`; so
        for `iou` and `hausdorff95` (mm). Of a classification `auc`, `average_precision`, `sensitivity` at the
        specificity, and `accuracy`: of two exclusive classes the first three are of the second; otherwise they are the
        mean of each class against the rest, beside `auc <class>` and so on. The accuracy is the share of cases given
        their class; where several classes may hold, the share of right answers at a probability of 0.5. Nothing
        without rows.

    Raises:
        ShapeError: A probability is NaN.

    Example:
        >>> rows = [{"patient": "p", "dice a": 0.5, "iou a": 0.33}, {"patient": "q", "dice a": 1.0, "iou a": 1.0}]
        >>> summarize_rows(rows, ["background", "a"], task="segmentation")["dice a"]
        {'value': 0.75, 'low': 0.5, 'high': 1.0}
    """
    if not rows:
        return {}
    patients = [row["patient"] for row in rows]

    def entries(names: Sequence[str], statistics: Statistics) -> Summary:
        points = statistics(np.ones((1, len(rows))))[0].tolist()
        found: Summary = {}
        for name, point, end in zip(names, points, intervals(statistics, patients, resamples, seed), strict=True):
            defined = not np.isnan(point)
            found[name] = {"value": point if defined else None, "low": end.low, "high": end.high}
            if defined and end.undefined:
                found[name]["undefined_resamples"] = end.undefined
        return found

    if task == "segmentation":
        return _segmentation(rows, labels[1:], entries)
    soft = np.array([[row[f"probability {name}"] for name in labels] for row in rows])
    truth = np.array([_true_classes(row, labels, multilabel=multilabel) for row in rows])
    check_finite(soft)
    chosen = chosen_classes(soft, multilabel=multilabel)
    right = (chosen == truth).mean(axis=1) if multilabel else (chosen & truth).any(axis=1)
    folds = np.array([row.get("fold", 0) for row in rows])
    # Of two exclusive classes the second says all.
    single = len(labels) == 2 and not multilabel
    ranked = slice(1, None) if single else slice(None)
    shown = [] if single else labels
    return _ranking(soft[:, ranked], truth[:, ranked], folds, shown, specificity, entries) | entries(
        ["accuracy"], lambda weights: weighted_means(right[:, None].astype(float), weights)
    )


Entries = Callable[[Sequence[str], Statistics], Summary]
"""Gives statistics of these names their values and intervals."""


def _segmentation(rows: Sequence[Row], structures: Sequence[str], entries: Entries) -> Summary:
    found: Summary = {}
    for metric in SEGMENTATION_METRICS:
        names = [f"{metric} {structure}" for structure in structures]
        if not all(name in rows[0] for name in names):
            continue  # without SciPy there is no Hausdorff distance
        values = np.array([[row[name] for name in names] for row in rows], float)

        def means(weights: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return _with_mean(weighted_means(values, weights))

        found |= entries([metric, *names], means)
        for name, undefined in zip(names, np.isnan(values).sum(axis=0).tolist(), strict=True):
            if undefined:
                found[name]["undefined"] = undefined
    for entry in found.values():
        if entry["value"] is None:
            entry["reason"] = "no case has the structure in both the truth and the prediction"
    return found


def _true_classes(row: Row, labels: Sequence[str], *, multilabel: bool) -> list[bool]:
    """Return which classes the row says hold; of exclusive ones the whole cell is the name."""
    if not multilabel:
        return [row["class"] == name for name in labels]
    # Not split: a name may hold the separator itself.
    cell = f"{CLASS_SEPARATOR}{row['class']}{CLASS_SEPARATOR}"
    return [f"{CLASS_SEPARATOR}{name}{CLASS_SEPARATOR}" in cell for name in labels]


def _ranking(
    scores: np.ndarray,
    truth: np.ndarray,
    folds: np.ndarray,
    labels: Sequence[str],
    specificity: float,
    entries: Entries,
) -> Summary:
    """Return the ranking metrics of each class against the rest, and without `labels` of the only one."""

    def ranked(weights: np.ndarray) -> np.ndarray:
        within = [
            [
                rank(score[own], true[own], weights[:, own], specificity)
                for score, true in zip(scores.T, truth.T, strict=True)
            ]
            for own in (folds == fold for fold in np.unique(folds))
        ]
        each = rearrange(np.array(within), "folds classes resamples metrics -> metrics resamples classes folds")
        return np.column_stack([_with_mean(one) if labels else one for one in mean_ignoring_nan(each)])

    names = [[metric, *(f"{metric} {label}" for label in labels)] for metric in RANKING_METRICS]
    found = entries([name for group in names for name in group], ranked)
    for whole, *each in names:
        for name, column in zip(each, truth.T, strict=len(each) > 0):
            if found[name]["value"] is None:
                found[name]["reason"] = f"{int(column.sum())} of {len(column)} cases are of this class"
        undefined = sum(found[name]["value"] is None for name in each)
        if found[whole]["value"] is None:
            found[whole]["reason"] = f"all {len(truth)} cases are of one class"
        elif undefined:
            found[whole]["undefined_classes"] = undefined
    return found


def _with_mean(values: np.ndarray) -> np.ndarray:
    """Put the mean over what is defined before the columns."""
    return np.column_stack([mean_ignoring_nan(values), values])


def flat(summary: Summary) -> dict[str, float]:
    """Return the values that are defined, by name.

    Example:
        >>> flat({"auc": {"value": None, "low": None, "high": None}, "accuracy": {"value": 1.0}})
        {'accuracy': 1.0}
    """
    return {name: entry["value"] for name, entry in summary.items() if entry["value"] is not None}


def explanations(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
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
            empty = "ground truth or prediction is" if name.startswith("hausdorff95") else "ground truth is"
            said.append(f"{name}: mean without {entry['undefined']} cases whose {empty} empty")
        elif "undefined_classes" in entry:
            said.append(f"{name}: mean without {entry['undefined_classes']} classes that no case or every case has")
    return said
