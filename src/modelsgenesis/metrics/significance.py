"""Significance of a difference between initialisations: tests over runs, intervals over runs and over patients.

The tests are SciPy's. With fewer than 3 runs, or where nothing varies, p is None.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from modelsgenesis.configs.base import plain
from modelsgenesis.metrics.measures import METRICS, Row, figures_of, intervals

# Fewer runs than this say next to nothing about how runs vary: they get no p-value and no interval.
MINIMUM_RUNS = 3

# The tests of `compare_runs` and their names in a report.
TESTS = {"paired_t": "paired t", "wilcoxon": "Wilcoxon", "welch": "Welch's t"}

# The one that a verdict and stars rest on. Runs of a seed share what it draws, the labelled patients too where they are
# drawn anew; and it agrees with the interval beside it, which Welch's test need not.
LEADING = "paired_t"

_ROUNDING = 1e-12  # a spread below this share of the values is rounding, for which SciPy would return p = 0
_RESAMPLES = 2000

# A run: `arm`, `labels`, `seed`, `test` (metrics by name), and `cases`, a row for each test case.
Record = Mapping[str, Any]


def analyse(
    records: Sequence[Record], pairs: Sequence[tuple[str, str]], metric: str, task: Mapping[str, Any]
) -> dict[str, Any]:
    """Return, by label count, what each arm measured and how it differs from its reference.

    Args:
        records: The finished runs.
        pairs: Arms to compare, each with its reference.
        metric: What is tested; every metric is summarised.
        task: `labels`, `task` and more of `summarize_rows`, by which the test cases are summarised anew.

    Returns:
        JSON values: `{"5": {"arms": {arm: {metric: summary}}, "comparisons": [...]}}`. A difference is first arm minus
        reference. Holm's correction is over the comparisons of one label count, for each test by itself.
    """
    metrics = dict.fromkeys(name for record in records for name in record["test"])
    tables: dict[str, Any] = {}
    for labels in sorted({record["labels"] for record in records}):
        own = [record for record in records if record["labels"] == labels]
        runs = {arm: [one for one in own if one["arm"] == arm] for arm in dict.fromkeys(one["arm"] for one in own)}
        values = {arm: {name: values_by_seed(own, name) for name in metrics} for arm, own in runs.items()}
        comparisons: list[dict[str, Any]] = []
        for arm, reference in pairs:
            own = (values[one].get(metric, {}) for one in (arm, reference))
            found = compare_runs(*own, lower_is_better=METRICS[metric.split()[0]].lower_is_better)
            ours, theirs = ([run.get("cases", []) for run in runs[one]] for one in (arm, reference))
            found |= {"arm": arm, "reference": reference, "over_patients": patient_interval(ours, theirs, metric, task)}
            comparisons.append({**found, "p_holm": {}})
        # One label count is one family of tests: of ten arms that change nothing, one is below 0.1 by luck.
        for test in TESTS:
            for entry, p in zip(comparisons, holm([entry["p"][test] for entry in comparisons]), strict=True):
                entry["p_holm"][test] = p
        summaries = {
            arm: {name: {**summarize(one.values()), "seeds": list(one)} for name, one in own.items() if one}
            for arm, own in values.items()
        }
        tables[str(labels)] = {"arms": summaries, "comparisons": comparisons}
    return tables


def values_by_seed(records: Sequence[Record], metric: str) -> dict[int, float]:
    """Return the values of a metric that are defined, by seed in their order."""
    # By seed and not by place: a run whose metric is undefined has no partner, and must not shift the others.
    found = {record["seed"]: record["test"].get(metric) for record in records}
    return {seed: float(found[seed]) for seed in sorted(found) if found[seed] is not None and np.isfinite(found[seed])}


def summarize(values: Iterable[float]) -> dict[str, Any]:
    """Return the values of runs with their number, mean and standard deviation (n − 1 in the denominator).

    Example:
        >>> summarize([1.0, 2.0, 3.0])
        {'n': 3, 'mean': 2.0, 'std': 1.0, 'values': [1.0, 2.0, 3.0]}
    """
    numbers = np.array(list(values))
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
    return {"n": len(numbers), "mean": float(numbers.mean()), "std": std, "values": numbers.tolist()}


def compare_runs(
    ours: Mapping[int, float], theirs: Mapping[int, float], *, lower_is_better: bool = False
) -> dict[str, Any]:
    """Return how the runs of two arms differ.

    Args:
        ours: Values of one arm, by seed.
        theirs: Values of its reference.
        lower_is_better: Whether the largest difference is the worst, as of a distance.

    Returns:
        `pairs` of the same seed; `difference`, its mean over them, with the ends `low` and `high` of its 95% interval
        by Student's t; `worst`, the difference and `seed` of the pair that speaks most against the first arm; and `p`,
        the two-sided p-values: `paired_t` and `wilcoxon` of the pairs, `welch` of the two groups of runs, the test of
        the 2019 paper, which does not use that they share seeds. With n pairs Wilcoxon's is at least 2 / 2ⁿ: five
        pairs cannot reach 0.05.

    Example:
        >>> found = compare_runs({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 2.0, 2: 2.0})
        >>> found["difference"], round(found["low"], 3), round(found["p"]["paired_t"], 4), found["worst"]
        (1.0, -1.484, 0.2254, {'seed': 1, 'difference': 0.0})

    References:
        Welch, B. L. (1947), Biometrika 34. Wilcoxon, F. (1945), Biometrics Bulletin 1.
    """
    stats: Any = import_module("scipy.stats")  # untyped
    seeds = [seed for seed in ours if seed in theirs]
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    groups = [np.array(list(values.values())) for values in (ours, theirs)]

    def varies(numbers: np.ndarray) -> bool:
        return bool(np.ptp(numbers) > _ROUNDING * np.abs(numbers).max())

    mean, low, high = (float(differences.mean()) if seeds else None), None, None
    p: dict[str, float | None] = dict.fromkeys(TESTS)
    if len(seeds) >= MINIMUM_RUNS:
        low = high = mean
        # Runs that do not depend on the seed say nothing about chance, however far apart they are.
        if varies(differences):
            paired = stats.ttest_1samp(differences, 0.0)
            p["paired_t"] = float(paired.pvalue)
            low, high = map(float, paired.confidence_interval(0.95))
        if differences.any():
            p["wilcoxon"] = float(stats.wilcoxon(differences).pvalue)
        if any(map(varies, groups)):
            with warnings.catch_warnings():  # one of the two may be constant
                warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
                p["welch"] = float(stats.ttest_ind(*groups, equal_var=False).pvalue)
    lost = differences if lower_is_better else -differences
    worst = {"seed": seeds[lost.argmax()], "difference": float(differences[lost.argmax()])} if seeds else None
    return {"pairs": len(seeds), "difference": mean, "low": low, "high": high, "worst": worst, "p": p}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for several tests at once by Holm's step-down procedure.

    Args:
        p_values: Those of one family of tests; None stays None and does not count.

    Returns:
        Corrected values in the same order, at most 1: of those below 0.05, the chance that any is false is 0.05.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        Holm, S. (1979), Scandinavian Journal of Statistics 6.
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for done, (p, index) in enumerate(made):
        highest = max(highest, min(p * (len(made) - done), 1.0))
        corrected[index] = highest
    return corrected


def patient_interval(
    ours: Sequence[Sequence[Row]], theirs: Sequence[Sequence[Row]], metric: str, task: Mapping[str, Any]
) -> dict[str, float] | None:
    """Return the 95% bootstrap interval over test patients of the difference of two arms, each the mean of its runs.

    Patients are drawn with replacement, the same ones for both arms and all runs, each with all of its cases: what is
    hard for both arms does not blur their difference.

    Args:
        ours: Rows of the test cases of each run of one arm.
        theirs: Those of its reference, on the same cases.
        metric: What is compared.
        task: `labels`, `task` and more of `summarize_rows`.

    Returns:
        `low` and `high`; None where the rows do not tell the metric, or there is a single patient.
    """
    arms = [[figures_of(rows, **task) for rows in runs if rows] for runs in (ours, theirs)]
    if not all(arms) or any(metric not in figures for own in arms for figures, _ in own):
        return None

    def difference(weights: np.ndarray) -> np.ndarray:
        each = [[statistics(weights)[:, list(figures).index(metric)] for figures, statistics in own] for own in arms]
        return (np.mean(each[0], axis=0) - np.mean(each[1], axis=0))[:, None]

    ((low, high),) = intervals(difference, [row["patient"] for row in ours[0]])
    return None if low is None or high is None else {"low": low, "high": high}


def label_efficiency(records: Sequence[Record], pairs: Sequence[tuple[str, str]], metric: str) -> list[dict[str, Any]]:
    """Return, for each arm and label count, how many labels its reference needs for the same.

    The uncertainty is that of the runs: those of each arm are drawn again with replacement, and the interval holds
    the middle 95% of the counts that result.

    Args:
        records: The finished runs.
        pairs: Arms to compare, each with its reference.
        metric: What must be equal.

    Returns:
        Rows with `equals`, `low` and `high`: 0 for fewer labels than were run, None for more; what was run is from
        `fewest` to `most`. There are no rows with a single label count.
    """
    sign, random = -1 if METRICS[metric.split()[0]].lower_is_better else 1, np.random.default_rng(0)
    means: dict[str, dict[int, np.ndarray]] = {}  # by arm and label count: that of the runs, then of runs drawn again
    for arm, labels in sorted({(record["arm"], record["labels"]) for record in records}):
        runs = [record for record in records if (record["arm"], record["labels"]) == (arm, labels)]
        if values := list(values_by_seed(runs, metric).values()):
            drawn = random.choice(values, (_RESAMPLES, len(values))).mean(axis=1)
            means.setdefault(arm, {})[labels] = sign * np.array([np.mean(values), *drawn])
    rows: list[dict[str, Any]] = []
    for arm, reference in pairs:
        curves = means.get(reference, {})
        for labels, targets in means.get(arm, {}).items() if len(curves) > 1 else ():
            needed = [
                labels_needed({count: curve[draw] for count, curve in curves.items()}, target)
                for draw, target in enumerate(targets)
            ]
            low, high = np.quantile(needed[1:], (0.025, 0.975), method="nearest").tolist()
            found = plain({"equals": needed[0], "low": low, "high": high})  # infinity is null in JSON
            row = {"arm": arm, "reference": reference, "labels": labels, "fewest": min(curves), "most": max(curves)}
            rows.append({**row, **found})
    return rows


def labels_needed(curve: Mapping[int, float], target: float) -> float:
    """Return the label count at which a curve first reaches a value, linear in the logarithm between its points.

    Args:
        curve: Value by label count, higher is better.
        target: The value to reach.

    Returns:
        The count; 0 where the first point is above the target already, infinity where no point reaches it.

    Example:
        >>> labels_needed({5: 0.6, 20: 0.8}, 0.7)
        10.0
        >>> labels_needed({5: 0.6, 20: 0.8}, 0.9)
        inf
    """
    counts = sorted(curve)
    if curve[counts[0]] > target:
        return 0.0
    for low, high in pairwise([counts[0], *counts]):
        if curve[high] >= target:
            share = (target - curve[low]) / (curve[high] - curve[low]) if high > low else 0.0
            return round(low * (high / low) ** share, 6)
    return np.inf
