"""From the rows of cases to the figures of a results file: metrics with 95% bootstrap intervals over patients."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from einops import rearrange

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.metrics.classification import CLASS_SEPARATOR, RANKING_METRICS, check_finite, chosen_classes, rank
from modelsgenesis.metrics.segmentation import SEGMENTATION_METRICS

Row = dict[str, Any]
"""A line of `test.csv` or `cases.csv`: `case`, `patient`, then what was measured of the case."""

Summary = dict[str, dict[str, Any]]
"""By the metric's name: `value`, and `low` and `high` of its 95% interval, each None where undefined. Where they are
not zero, `undefined` counts the cases left out of the mean and `undefined_classes` the classes; `reason` says why there
is no value."""

Remarks = dict[str, dict[str, Any]]
"""By the metric's name what is to be said of it: a `reason` counts where it has no value, the others where it has."""

Statistics = Callable[[np.ndarray], np.ndarray]
"""Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined."""

_TAILS = (2.5, 97.5)  # percentiles at the ends of a 95% interval
_BLOCK = 4_000_000  # weights in memory at once: 32 MB


def intervals(
    statistics: Statistics, patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> list[tuple[float | None, float | None]]:
    """Return the 95% percentile intervals of several statistics over the same resampled patients.

    Patients are drawn with replacement, each with all of its cases: several images of one patient are not
    independent evidence. A resample is a row of weights: how often each case is in it.

    Args:
        statistics: Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
        patients: The patient of each case.
        resamples: Number of draws.
        seed: Random seed of the draws; the same for two models makes the same resamples.

    Returns:
        The ends for each statistic, from the resamples where it is defined; both None where there is no interval:
        fewer than two patients, or no resample with a value.

    Raises:
        ConfigurationError: There is no case, or no resample.

    Example:
        >>> dice = np.array([0.8, 0.9, 0.7, 0.85])
        >>> ((low, high),) = intervals(lambda weights: weighted_means(dice[:, None], weights), ["a", "b", "c", "d"])
        >>> 0.7 < low < 0.8125 < high < 0.9
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
    columns = [column[~np.isnan(column)] for column in np.concatenate(found).T]
    return [
        tuple(np.percentile(defined, _TAILS).tolist()) if len(names) > 1 and defined.size else (None, None)
        for defined in columns
    ]


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
    names, statistics, remarks = figures_of(rows, labels, task=task, multilabel=multilabel, specificity=specificity)
    # The cases as they are: one resample in which each counts once.
    points = statistics(np.ones((1, len(rows))))[0].tolist()
    ends = intervals(statistics, [row["patient"] for row in rows], resamples, seed)
    found: Summary = {}
    for name, point, (low, high) in zip(names, points, ends, strict=True):
        found[name] = {"value": None if math.isnan(point) else point, "low": low, "high": high}
        remark = remarks.get(name, {})
        found[name] |= {key: value for key, value in remark.items() if (key == "reason") is math.isnan(point)}
    return found


def figures_of(
    rows: Sequence[Row], labels: Sequence[str], *, task: str, multilabel: bool = False, specificity: float = 0.9
) -> tuple[list[str], Statistics, Remarks]:
    """Return the names of the figures of rows, the function that gives them, and what is to be said of each.

    Arguments as of `summarize_rows`.
    """
    if task == "segmentation":
        return _segmentation(rows, labels[1:])
    return _classification(rows, labels, multilabel=multilabel, specificity=specificity)


def _segmentation(rows: Sequence[Row], structures: Sequence[str]) -> tuple[list[str], Statistics, Remarks]:
    """Return the names of the figures, the function that gives them, and what is to be said of each."""
    # Without SciPy there is no Hausdorff distance.
    metrics = [one for one in SEGMENTATION_METRICS if all(f"{one} {structure}" in rows[0] for structure in structures)]
    names = [[metric, *(f"{metric} {structure}" for structure in structures)] for metric in metrics]
    values = np.array([[[row[name] for name in each] for _, *each in names] for row in rows], float)

    def statistics(weights: np.ndarray) -> np.ndarray:
        each = weighted_means(rearrange(values, "cases metrics structures -> cases (metrics structures)"), weights)
        return _with_means(
            rearrange(each, "draws (metrics structures) -> draws metrics structures", metrics=len(metrics))
        )

    remarks: Remarks = {}
    undefined = np.isnan(values).sum(axis=0)
    for (whole, *each), counts in zip(names, undefined.tolist(), strict=True):
        for name, count in zip([whole, *each], [0, *counts], strict=True):
            remarks[name] = {"reason": "no case has the structure in both the truth and the prediction"}
            remarks[name] |= {"undefined": count} if count else {}
    return list(chain.from_iterable(names)), statistics, remarks


def _classification(
    rows: Sequence[Row], labels: Sequence[str], *, multilabel: bool, specificity: float
) -> tuple[list[str], Statistics, Remarks]:
    """Return the names of the figures, the function that gives them, and what is to be said of each."""
    soft = np.array([[row[f"probability {name}"] for name in labels] for row in rows])
    truth = np.array([_true_classes(row, labels, multilabel=multilabel) for row in rows])
    folds = np.array([row.get("fold", 0) for row in rows])
    check_finite(soft)
    chosen = chosen_classes(soft, multilabel=multilabel)
    right = (chosen == truth).mean(axis=1) if multilabel else (chosen & truth).any(axis=1).astype(float)
    # Of two exclusive classes the second says all, and there is no mean over classes.
    single = len(labels) == 2 and not multilabel
    ranked = range(1, 2) if single else range(len(labels))

    def statistics(weights: np.ndarray) -> np.ndarray:
        # Scores of two networks are on scales of their own, so cases are ranked within each fold.
        within = [
            [rank(soft[own, index], truth[own, index], weights[:, own], specificity) for index in ranked]
            for own in (folds == fold for fold in np.unique(folds))
        ]
        each = rearrange(np.array(within), "folds classes draws metrics -> draws metrics classes folds")
        each = mean_ignoring_nan(each)
        metrics = rearrange(each, "draws metrics one -> draws (metrics one)") if single else _with_means(each)
        return np.column_stack([metrics, weighted_means(right[:, None], weights)])

    names, remarks = [], {}
    held = truth.sum(axis=0).tolist()
    absent = sum(count in (0, len(rows)) for count in held)
    for metric in RANKING_METRICS:
        names.append(metric)
        remarks[metric] = {"reason": f"all {len(rows)} cases are of one class"}
        remarks[metric] |= {"undefined_classes": absent} if absent and not single else {}
        for label, count in zip(labels, held, strict=True):
            names += [] if single else [f"{metric} {label}"]
            remarks[f"{metric} {label}"] = {"reason": f"{count} of {len(rows)} cases are of this class"}
    return [*names, "accuracy"], statistics, remarks


def _true_classes(row: Row, labels: Sequence[str], *, multilabel: bool) -> list[bool]:
    """Return which classes the row says hold; of exclusive ones the whole cell is the name."""
    if not multilabel:
        return [row["class"] == name for name in labels]
    # Not split: a name may hold the separator itself.
    cell = f"{CLASS_SEPARATOR}{row['class']}{CLASS_SEPARATOR}"
    return [f"{CLASS_SEPARATOR}{name}{CLASS_SEPARATOR}" in cell for name in labels]


def _with_means(values: np.ndarray) -> np.ndarray:
    """Put the mean over what is defined before the columns of each metric, and the metrics beside one another."""
    means = mean_ignoring_nan(values)[..., None]
    return rearrange(np.concatenate([means, values], axis=-1), "draws metrics columns -> draws (metrics columns)")


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
