"""How far a difference of two arms would move with other test patients; the seeds stay as they were."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modelsgenesis.metrics.classification import RANKING_METRICS, rank
from modelsgenesis.metrics.summary import intervals, mean_ignoring_nan, weighted_means

Record = Mapping[str, Any]
Statistic = Callable[[np.ndarray], np.ndarray]

_RANKINGS = ("auc", "average_precision")


def patient_interval(
    first: Sequence[Record], second: Sequence[Record], metric: str, resamples: int = 1000
) -> dict[str, float] | None:
    """Return the 95% bootstrap interval over test patients of the difference of two arms, each the mean of its runs.

    Patients are drawn with replacement, the same ones for both arms and all runs, each with all of its cases.

    Args:
        first: Runs of one arm.
        second: Runs of the other, on the same test cases.
        metric: Of a segmentation any; of a classification an AUC or average precision.
        resamples: Of the patients.

    Returns:
        `low` and `high`; None where the cases do not tell the metric, or there is a single patient.
    """
    means = [_mean_over_runs(records, metric) for records in (first, second)]
    if None in means:
        return None
    ours, theirs = (mean for mean in means if mean is not None)
    patients = [case["patient"] for case in first[0]["cases"]]
    ((low, high),) = intervals(lambda weights: (ours(weights) - theirs(weights))[:, None], patients, resamples)
    return None if low is None or high is None else {"low": low, "high": high}


def _mean_over_runs(records: Sequence[Record], metric: str) -> Statistic | None:
    """Return the function from weights [resamples, cases] to the mean of an arm's runs [resamples]."""
    statistics = [_statistic(record.get("cases", []), metric) for record in records]
    known = [statistic for statistic in statistics if statistic is not None]
    if not known or len(known) < len(statistics):
        return None
    return lambda weights: np.mean([statistic(weights) for statistic in known], axis=0)


def _statistic(cases: Sequence[Mapping[str, Any]], metric: str) -> Statistic | None:
    first, _, label = metric.partition(" ")
    if not cases:
        return None
    if first in _RANKINGS:
        return _ranking(cases, first, label)
    names = [name for name in cases[0] if name == metric or (not label and name.startswith(f"{first} "))]
    if not names:
        return None
    values = np.array([[case[name] for name in names] for case in cases], np.float64)  # None becomes NaN
    return lambda weights: mean_ignoring_nan(weighted_means(values, weights))


def _ranking(cases: Sequence[Mapping[str, Any]], metric: str, label: str) -> Statistic | None:
    labels = [name.removeprefix("probability ") for name in cases[0] if name.startswith("probability ")]
    exclusive = all(case["class"] in labels for case in cases)
    # Of two exclusive classes the second says all, as in the summaries.
    chosen = [label] if label else labels[1:] if len(labels) == 2 and exclusive else labels
    if not exclusive or not set(chosen) <= set(labels):
        return None
    columns = [
        (np.array([case[f"probability {name}"] for case in cases]), np.array([case["class"] == name for case in cases]))
        for name in chosen
    ]
    column = RANKING_METRICS.index(metric)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return mean_ignoring_nan(
            np.stack([rank(scores, truth, weights)[:, column] for scores, truth in columns], axis=-1)
        )

    return statistic
