"""The texts of a comparison: the report `table.md`, its tables, and its sentences."""

from collections.abc import Mapping
from typing import Any

from modelsgenesis.metrics.measures import metric_title
from modelsgenesis.metrics.significance import TESTS
from modelsgenesis.metrics.tables import ResultsTable, results_table

Results = Mapping[str, Any]
"""The content of a comparison's `results.json`."""


def stars(p: float | None) -> str:
    """Return the mark of a p-value.

    Example:
        >>> stars(0.0004), stars(0.03), stars(0.2), stars(None)
        ('***', '*', 'n.s.', 'no test')
    """
    if p is None:
        return "no test"
    return "*" * sum(p < level for level in (0.05, 0.01, 0.001)) or "n.s."


def comparison_report(results: Results) -> str:
    """Return `table.md`: what was run, means, differences and tests, label efficiency, and the limits.

    Args:
        results: The content of `results.json`.
    """
    data, metric, patients = results["data"], metric_title(results["metric"]), results["data"]["patients"]
    basis = (
        f"{data['task']}: {patients['training']} training, {patients['validation']} validation and {patients['test']} "
        "test patients; the validation patients decide which step of each training is kept, and their labels are "
        "needed in addition"
    )
    conditions = [basis, how_labelled(results), f"{len(results['seeds'])} runs of each initialisation and label count"]
    for name, arm in results["arms"].items():
        start = "random weights" if arm["init"] is None else f"from the weights of {arm['init']}"
        size = f"{arm['dims']}D, {arm['parameters']:,} parameters"
        budget = f"{arm['steps']} steps of {arm['batch_size']} samples"
        conditions.append(f"{name}: {', '.join([start, *arm['settings'], size, budget])}")
    means = tuple(
        (labels, *(_mean(entry["arms"][arm].get(results["metric"])) for arm in results["arms"]))
        for labels, entry in results["labels"].items()
    )
    main = ResultsTable(("labels", *results["arms"]), means)
    parts = {
        f"# {data['name']}: {metric} by initialisation": "\n".join(f"- {line}" for line in conditions),
        f"## Mean ± standard deviation of {metric} over the runs": str(main),
        "## Every metric": str(comparison_table(results)),
        "## Differences": _differences(results),
        "## Settings chosen on the validation patients": _tuning(results),
        "## Label efficiency": "\n".join(f"- {sentence(row)}" for row in results["efficiency"]),
        "## Remarks": "\n".join(f"- {remark}" for remark in results.get("remarks", ())),
        "## What this does not show": "The spread and the p-values are over seeds, on one split into patients of one "
        "data set. Where the labelled patients are the same in all runs, another choice could shift all results. "
        "Another budget may change the order of the initialisations, and so may budgets that differ between them.",
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items() if text) + "\n"


def comparison_table(results: Results) -> ResultsTable:
    """Return the table of a comparison: a row per label count, initialisation and structure."""
    summaries: dict[tuple[str, ...], Any] = {}
    for labels, entry in results["labels"].items():
        for arm, metrics in entry["arms"].items():
            summaries[labels, arm] = own = {}
            for name, one in metrics.items():
                unit = {"unit": results["unit"]} if name.startswith("hausdorff95") and results.get("unit") else {}
                own[name] = {"value": one["mean"], "std": one["std"], **unit}
    note = f"Mean ± standard deviation over {len(results['seeds'])} runs."
    return results_table(summaries, ("labels", "initialisation"), alone=results["data"]["classes"][-1], notes=[note])


def how_labelled(results: Results) -> str:
    """Return how the labelled patients were chosen; the table and the figure say it."""
    if results["resample_labels"]:
        return "labelled patients: drawn anew for each seed, the same in every initialisation"
    return "labelled patients: the same in all runs of a label count, the smaller subset within the larger"


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of the label efficiency as a sentence.

    Example:
        >>> row = {"arm": "genesis", "reference": "scratch", "labels": 5, "equals": 9.04, "low": 7.0, "high": None,
        ...        "fewest": 5, "most": 20}
        >>> sentence(row)
        'genesis with 5 labels equals scratch with 9 (95% over the runs: 7 to more than 20).'
    """

    def count(value: float | None) -> str:
        if value is None:
            return f"more than {row['most']}"
        return f"{round(value, 1):g}" if value else f"fewer than {row['fewest']}"

    ends = " to ".join(dict.fromkeys([count(row["low"]), count(row["high"])]))
    equals = f"{row['arm']} with {row['labels']} labels equals {row['reference']} with {count(row['equals'])}"
    return f"{equals} (95% over the runs: {ends})."


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "—"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.4f}"
    return f"{summary['mean']:.4f}{spread} (n = {summary['n']})"


def _differences(results: Results) -> str:
    family = max(len(entry["comparisons"]) for entry in results["labels"].values())
    header = ("labels", "difference", "mean (95% interval)", "95% over test patients", *TESTS.values())
    rows: list[tuple[str, ...]] = []
    for labels, entry in results["labels"].items():
        for found in entry["comparisons"]:
            mean = "—" if found["difference"] is None else f"{found['difference']:+.4f} ({_interval(found)})"
            # With their correction; two digits and never 0.000, which would claim a certainty that no test has.
            pairs = [[found[key][test] for key in ("p", "p_holm")] for test in TESTS]
            told = [" / ".join(dict.fromkeys(f"{p:.2g}" for p in pair if p is not None)) for pair in pairs]
            names = f"{found['arm']} − {found['reference']}"
            rows.append((labels, names, mean, _interval(found["over_patients"]), *(one or "none" for one in told)))
    said = (
        "Differences are between runs with the same seed; the interval of their mean is Student's t over the runs. "
        "Over test patients: percentile bootstrap of the difference of the means, the runs held fixed. p-values are "
        "two-sided: Welch's t-test of the two groups of runs, Student's t-test and Wilcoxon's signed-rank test of the "
        "pairs; none with fewer than 3 runs or without variation."
    )
    if family > 1:
        said += f" A second number is Holm's correction over the {family} comparisons of a label count."
    return f"{ResultsTable(header, tuple(rows))}\n\n{said}" if family else ""


def _interval(ends: Mapping[str, Any] | None) -> str:
    return "none" if ends is None or ends["low"] is None else f"{ends['low']:+.4f} to {ends['high']:+.4f}"


def _tuning(results: Results) -> str:
    said = (
        "Means over runs with seeds that no measured run uses; no test patient was measured before the choice. Where "
        "the first or last of several values was chosen, a better one may lie beyond it."
    )
    lines: list[str] = []
    for choice in results["tuning"]:
        means = {", ".join(one["settings"]): one["mean"] for one in choice["candidates"]}
        told = [f"{one} {'diverged' if mean is None else f'{mean:.4f}'}" for one, mean in means.items()]
        chosen = ", ".join(choice["chosen"])
        lines.append(f"- {choice['arm']}, {choice['labels']} labels: {chosen} was chosen from {'; '.join(told)}")
    return "\n".join([*lines, "", said]) if lines else ""
