"""From the records of finished runs to the numbers of a comparison: means, differences, tests, corrections."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from modelsgenesis.comparison.patients import patient_interval
from modelsgenesis.metrics.significance import Test, holm, paired_difference, paired_t, summarize, welch, wilcoxon

Record = Mapping[str, Any]

_TESTS = {"welch": welch, "paired_t": paired_t, "wilcoxon": wilcoxon}


def lower_is_better(metric: str) -> bool:
    """Tell whether a smaller value of a metric is the better one."""
    return metric.split()[0] in ("hausdorff95", "loss")


def value_of(record: Record, metric: str) -> float | None:
    """Return a metric of a run on the test patients; None where it is not defined."""
    value = record["test"].get(metric)
    return None if value is None or not math.isfinite(value) else float(value)


def values_by_seed(records: Sequence[Record], arm: str, labels: int, metric: str) -> dict[int, float]:
    """Return the defined values of an arm with a label count, by seed in their order."""
    found = {
        record["seed"]: value
        for record in records
        if record["arm"] == arm and record["labels"] == labels
        if (value := value_of(record, metric)) is not None
    }
    return dict(sorted(found.items()))


def analyse(
    records: Sequence[Record], arms: Sequence[str], pairs: Sequence[tuple[str, str]], metric: str
) -> dict[str, Any]:
    """Return, by label count, what each arm measured and how it differs from its reference.

    Args:
        records: Of the finished runs.
        arms: Names in the order to show them.
        pairs: Arms to compare: each with its reference.
        metric: What is tested; every metric is summarised.

    Returns:
        JSON values: `{"5": {"arms": {arm: {metric: summary}}, "comparisons": [...]}}`. A comparison is first arm
        minus reference; Holm's correction is over the comparisons of one label count, each test by itself.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    counts = sorted({record["labels"] for record in records})
    metrics = list(dict.fromkeys(name for record in records for name in record["test"]))
    tables: dict[str, Any] = {}
    for labels in counts:
        summaries = {arm: _summaries(records, arm, labels, metrics) for arm in arms}
        comparisons = [_comparison(records, arm, reference, labels, metric) for arm, reference in pairs]
        _correct(comparisons)
        tables[str(labels)] = {"arms": summaries, "comparisons": comparisons}
    return tables


def _summaries(records: Sequence[Record], arm: str, labels: int, metrics: Sequence[str]) -> dict[str, Any]:
    values = {metric: list(values_by_seed(records, arm, labels, metric).values()) for metric in metrics}
    return {metric: asdict(summarize(found)) for metric, found in values.items() if found}


def _comparison(records: Sequence[Record], arm: str, reference: str, labels: int, metric: str) -> dict[str, Any]:
    """Return the difference of two arms with a label count, and its tests."""
    ours, theirs = (values_by_seed(records, name, labels, metric) for name in (arm, reference))
    seeds = [seed for seed in ours if seed in theirs]
    asked = {"arm": arm, "reference": reference, "metric": metric, "pairs": len(seeds)}
    if not seeds:
        none = {"p": None, "why": "no seed has finished in both arms"}
        return {**asked, "difference": None, "tests": {name: dict(none) for name in _TESTS}}
    paired = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    values = {"welch": (list(ours.values()), list(theirs.values())), "paired_t": paired, "wilcoxon": paired}
    first, second = (
        [one for one in records if (one["arm"], one["labels"]) == (name, labels) and one["seed"] in seeds]
        for name in (arm, reference)
    )
    return {
        **asked,
        "difference": asdict(paired_difference(*paired)),
        "over_patients": patient_interval(first, second, metric),
        "tests": {name: _plain(test(*values[name])) for name, test in _TESTS.items()},
    }


def _plain(test: Test) -> dict[str, Any]:
    return {key: value for key, value in asdict(test).items() if value is not None and value != ""} | {"p": test.p}


def _correct(comparisons: Sequence[dict[str, Any]]) -> None:
    for name in _TESTS:
        corrected = holm([comparison["tests"][name]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, corrected, strict=True):
            comparison["tests"][name]["p_holm"] = p
