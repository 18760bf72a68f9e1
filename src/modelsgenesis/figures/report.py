"""The report of a comparison in Markdown: conditions, means, differences, label efficiency, limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelsgenesis.metrics.significance import TESTS

Results = Mapping[str, Any]
"""The content of a comparison's `results.json`."""

_METRICS = {"auc": "AUC", "iou": "IoU", "dice": "Dice", "hausdorff95": "95% Hausdorff distance (mm)"}
_LIMITS = (
    "The spread and the p-values are over seeds, on one split into patients of one data set. Where the labelled "
    "patients are the same in all runs, another choice of them may move all. Another budget may order the "
    "initialisations otherwise, and where their budgets differ, so may that alone."
)


def comparison_report(results: Results) -> str:
    """Return `table.md`: what was run, means, differences and tests, label efficiency, and the limits.

    Args:
        results: The content of `results.json`.
    """
    metric = metric_title(results["metric"])
    parts = {
        f"# {results['data']['name']}: {metric} by initialisation": _bullets(_conditions(results)),
        f"## Mean ± standard deviation of {metric} over the runs": _means(results),
        "## Differences": _differences(results),
        "## Settings chosen on the validation patients": _tuning(results),
        "## Label efficiency": _bullets(map(sentence, results["efficiency"])),
        "## What this does not show": _LIMITS,
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items() if text) + "\n"


def metric_title(metric: str) -> str:
    """Return a metric as people write it.

    Example:
        >>> metric_title("auc"), metric_title("dice Anterior")
        ('AUC', 'Dice Anterior')
    """
    first, space, label = metric.partition(" ")
    return _METRICS.get(first, first.replace("_", " ")) + space + label


def subset_line(results: Results) -> str:
    """Return how the labelled patients were chosen; every table and figure says it."""
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


def _conditions(results: Results) -> list[str]:
    data, seeds, patients = results["data"], results["seeds"], results["data"]["patients"]
    rests_on = (
        f"{data['task']}: {patients['training']} training, {patients['validation']} validation and {patients['test']} "
        "test patients; those of validation decide which step of a training is kept, and their labels come on top"
    )
    arms = [f"{name}: {_arm(arm)}" for name, arm in results["arms"].items()]
    return [rests_on, subset_line(results), f"{len(seeds)} runs of each initialisation and label count", *arms]


def _arm(arm: Mapping[str, Any]) -> str:
    start = "random weights" if arm["init"] is None else f"from the weights of {arm['init']}"
    size = f"{arm['dims']}D, {arm['parameters']:,} parameters"
    return ", ".join([start, *arm["settings"], size, f"{arm['steps']} steps of {arm['batch_size']} samples"])


def _means(results: Results) -> str:
    rows = [["labels", *results["arms"]]]
    for labels, entry in results["labels"].items():
        rows.append([labels, *(_mean(entry["arms"][arm].get(results["metric"])) for arm in results["arms"])])
    return _table(rows)


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "—"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.4f}"
    return f"{summary['mean']:.4f}{spread} (n = {summary['n']})"


def _differences(results: Results) -> str:
    family = max(len(entry["comparisons"]) for entry in results["labels"].values())
    rows = [["labels", "difference", "mean (95% interval)", "95% over test patients", *TESTS.values()]]
    for labels, entry in results["labels"].items():
        for found in entry["comparisons"]:
            mean = "—" if found["difference"] is None else f"{_signed(found['difference'])} ({_span(found)})"
            p_values = [_p_value(found["p"][test], found["p_holm"][test], family) for test in TESTS]
            names = f"{found['arm']} − {found['reference']}"
            rows.append([labels, names, mean, _span(found["over_patients"]), *p_values])
    if not family:
        return ""
    said = (
        "Differences are of runs with the same seed; the interval of their mean is by Student's t, over the runs. Over "
        "test patients: percentile bootstrap of the difference of the means, the runs as they are. p-values are "
        "two-sided: Welch's t-test of the two groups of runs, Student's t-test and Wilcoxon's signed-rank test of the "
        "pairs; none from fewer than 3 runs, or where nothing varies."
    )
    if family > 1:
        said += f" The second number is Holm's correction over the {family} comparisons of a label count."
    return f"{_table(rows)}\n\n{said}"


def _span(ends: Mapping[str, Any] | None) -> str:
    return "none" if ends is None or ends["low"] is None else f"{_signed(ends['low'])} to {_signed(ends['high'])}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _p_value(p: float | None, corrected: float | None, family: int) -> str:
    """Return a p-value as text; of several comparisons the corrected one too."""
    # 0.000 would claim a certainty that no test has.
    shown = [f"{one:.3f}" if one >= 0.001 else f"{one:.0e}" for one in (p, corrected) if one is not None]
    return " / ".join(shown if family > 1 else shown[:1]) or "none"


def _tuning(results: Results) -> str:
    rows = [["initialisation", "labels", "candidate", "validation", ""]]
    for choice in results["tuning"]:
        for candidate in choice["candidates"]:
            mean = "diverged" if candidate["mean"] is None else f"{candidate['mean']:.4f}"
            mark = "chosen" if candidate["settings"] == choice["chosen"] else ""
            rows.append([choice["arm"], str(choice["labels"]), ", ".join(candidate["settings"]), mean, mark])
    said = (
        "Means over runs whose seeds no measured run has; the test patients were not read before the choice. Where the "
        "first or last of several values was chosen, a better one may lie beyond."
    )
    return f"{_table(rows)}\n\n{said}" if results["tuning"] else ""


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table, the first its head."""
    # A bar in a name would make a column of its own.
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])
