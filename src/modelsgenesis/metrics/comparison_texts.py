"""The texts of a comparison: the report `table.md`, its tables, and its sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelsgenesis.errors import counted
from modelsgenesis.metrics.measures import METRICS, metric_title
from modelsgenesis.metrics.significance import LEADING, MINIMUM_RUNS, TESTS
from modelsgenesis.metrics.tables import ResultsTable, results_table

Results = Mapping[str, Any]
"""The content of a comparison's `results.json`."""

SIGNIFICANT = 0.05
"""A p-value from which on nothing is decided."""

LIMITS = (
    "The spread and the p-values are over seeds, on one split into patients of one data set. Where the labelled "
    "patients are the same in all runs, another choice could shift all results. Another budget may change the order of "
    "the initialisations, and so may budgets that differ between them."
)
TUNING = (
    "Means over runs with seeds that no measured run uses; no test patient was measured before the choice. Where the "
    "first or last of several values was chosen, a better one may lie beyond it."
)


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
    """Return `table.md`: the verdict, what was run, means, differences and tests, label efficiency, and the limits.

    Args:
        results: The content of `results.json`.
    """
    metric = metric_title(results["metric"])
    means = tuple(
        (labels, *(_mean(entry["arms"][arm].get(results["metric"])) for arm in results["arms"]))
        for labels, entry in results["labels"].items()
    )
    main = ResultsTable(("labels", *results["arms"]), means)
    title, tuned = f"# {results['data']['name']}: {metric} by initialisation", tuning_lines(results)
    parts = {
        title: f"{verdict(results)}\n\n{_pairs(conditions(results))}",
        f"## Mean ± standard deviation of {metric} over the runs": str(main),
        "## Every metric": str(comparison_table(results)),
        "## Differences": str(differences(results) or ""),
        "## Settings chosen on the validation patients": f"{_pairs(tuned)}\n\n{TUNING}" if tuned else "",
        "## Label efficiency": _list([sentence(row) for row in results["efficiency"]]),
        "## Remarks": _list(results.get("remarks", ())),
        "## What this does not show": LIMITS,
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items() if text) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return _list(": ".join(pair) for pair in pairs)


def verdict(results: Results) -> str:
    """Return in one sentence which initialisation is better with how many labels, as far as the tests say.

    It rests on the t-test of the pairs of runs with Holm's correction at 0.05, as the stars of the chart do.

    Args:
        results: The content of `results.json`.
    """
    runs = len(results["seeds"])
    if runs < MINIMUM_RUNS:
        return f"No verdict: {counted(runs, 'run')} of each initialisation, and a test takes {MINIMUM_RUNS}."
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for labels, entry in results["labels"].items():
        for one in entry["comparisons"]:
            p = one["p_holm"][LEADING]
            own = found.setdefault((one["arm"], one["reference"]), {"better": [], "worse": [], "undecided": []})
            told = labels + (" (no test)" if p is None else f" (p {_p(p)})")
            own[_outcome(results["metric"], one)].append(told)
    clauses: list[str] = []
    for (arm, reference), outcomes in found.items():
        told = [f"{outcome} with {_and(counts)}" for outcome, counts in outcomes.items() if counts]
        decided = outcomes["better"] or outcomes["worse"]
        first = told[0].replace(" with", f" than {reference} with", 1) if decided else told[0]
        subject = arm if decided else f"{arm} against {reference}"
        clauses.append(f"{subject} is {', '.join([first, *told[1:]])}")
    if not clauses:
        return "No verdict: one initialisation alone is compared with nothing."
    how = f"{runs} runs each, {TESTS[LEADING]}-test{', Holm-corrected' if len(found) > 1 else ''}"
    patients = "labelled patient" if list(results["labels"]) == ["1"] else "labelled patients"
    return f"In {metric_title(results['metric'])}, {'; '.join(clauses)} {patients} ({how})."


def _outcome(metric: str, comparison: Mapping[str, Any]) -> str:
    """Return whether an initialisation is better than its reference, as far as the test says."""
    p = comparison["p_holm"][LEADING]
    if p is None or p >= SIGNIFICANT:
        return "undecided"
    lower = comparison["difference"] < 0
    return "better" if lower == METRICS[metric.split()[0]].lower_is_better else "worse"


def _p(value: float) -> str:
    return f"= {value:.2g}" if value >= 1e-4 else "< 0.0001"


def _and(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def conditions(results: Results) -> list[tuple[str, str]]:
    """Return what was run: patients, how they were chosen, and each initialisation."""
    data, patients = results["data"], results["data"]["patients"]
    basis = (
        f"patients: {patients['training']} training, {patients['validation']} validation and {patients['test']} test; "
        "the validation patients decide which step of each training is kept, and their labels are needed in addition"
    )
    runs = f"{len(results['seeds'])} of each initialisation and label count"
    seen = results.get("seen", {})  # what is known of whether weights have seen test patients
    said = [(data["task"], basis), ("labelled patients", how_labelled(results)), ("runs", runs)]
    for name, arm in results["arms"].items():
        start = "random weights" if arm["init"] is None else f"from the weights of {arm['init']}"
        size = f"{arm['dims']}D, {arm['parameters']:,} parameters"
        budget = f"{arm['steps']} steps of {arm['batch_size']} samples"
        said.append((name, ", ".join([start, *arm["settings"], size, budget, *filter(None, [seen.get(name)])])))
    return said


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
        return "drawn anew for each seed, the same in every initialisation"
    return "the same in all runs of a label count, the smaller subset within the larger"


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of the label efficiency as a sentence.

    Example:
        >>> row = {"arm": "genesis", "reference": "scratch", "labels": 5, "equals": 9.04, "low": 7.0, "high": None,
        ...        "fewest": 5, "most": 20}
        >>> sentence(row)
        'genesis with 5 labels equals scratch with 9 (95% over the runs: 7 to more than 20).'
    """
    needed, interval = needed_labels(row)
    equals = f"{row['arm']} with {counted(row['labels'], 'label')} equals {row['reference']} with {needed}"
    return f"{equals} (95% over the runs: {interval})."


def needed_labels(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return how many labels a row of the label efficiency says that the reference needs, and the interval."""

    def count(value: float | None) -> str:
        if value is None:
            return f"more than {row['most']}"
        return f"{round(value, 1):g}" if value else f"fewer than {row['fewest']}"

    return count(row["equals"]), " to ".join(dict.fromkeys([count(row["low"]), count(row["high"])]))


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "—"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.4f}"
    return f"{summary['mean']:.4f}{spread} (n = {summary['n']})"


def differences(results: Results) -> ResultsTable | None:
    """Return the table of differences with their intervals and tests; None of one initialisation alone."""
    family = max(len(entry["comparisons"]) for entry in results["labels"].values())
    header = ("difference", "labels", "mean (95% interval)", "worst pair", "95% over test patients", *TESTS.values())
    rows: list[tuple[str, ...]] = []
    for labels, entry in results["labels"].items():
        for found in entry["comparisons"]:
            mean = "—" if found["difference"] is None else f"{found['difference']:+.4f} ({_interval(found)})"
            # With their correction; two digits and never 0.000, which would claim a certainty that no test has.
            pairs = [[found[key][test] for key in ("p", "p_holm")] for test in TESTS]
            told = [" / ".join(dict.fromkeys(f"{p:.2g}" for p in pair if p is not None)) for pair in pairs]
            names, worst = f"{found['arm']} − {found['reference']}", found.get("worst")  # older results have none
            pair = f"{worst['difference']:+.4f} (seed {worst['seed']})" if worst else "—"
            patients = _interval(found["over_patients"])
            rows.append((names, labels, mean, pair, patients, *(one or "none" for one in told)))
    said = (
        "Differences are between runs with the same seed; the interval of their mean is Student's t over the runs. "
        "The worst pair is the one that speaks most against the first. Over test patients: percentile bootstrap of the "
        "difference of the means, the runs held fixed. p-values are two-sided: Student's t-test and Wilcoxon's "
        "signed-rank test of the pairs, Welch's t-test of the two groups of runs, which ignores the pairs; none with "
        "fewer than 3 runs or without variation."
    )
    if family > 1:
        said += f" A second number is Holm's correction over the {family} comparisons of a label count."
    return ResultsTable(header, tuple(rows), notes=(said,)) if family else None


def _interval(ends: Mapping[str, Any] | None) -> str:
    return "none" if ends is None or ends["low"] is None else f"{ends['low']:+.4f} to {ends['high']:+.4f}"


def tuning_lines(results: Results) -> list[tuple[str, str]]:
    """Return, for each initialisation and label count, which settings were chosen from which."""
    lines: list[tuple[str, str]] = []
    for choice in results["tuning"]:
        means = {", ".join(one["settings"]): one["mean"] for one in choice["candidates"]}
        told = [f"{one} {'diverged' if mean is None else f'{mean:.4f}'}" for one, mean in means.items()]
        chosen = f"{', '.join(choice['chosen'])} was chosen from {'; '.join(told)}"
        lines.append((f"{choice['arm']}, {counted(choice['labels'], 'label')}", chosen))
    return lines


def remarks_of_runs(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what runs remarked, with how many of an initialisation and a label count did."""
    runs: Counter[tuple[str, int]] = Counter()
    said: Counter[tuple[str, int, str]] = Counter()
    for record in records:
        runs[own := (record["arm"], record["labels"])] += 1
        said.update((*own, remark) for remark in record.get("remarks", ()))
    return [
        f"{arm}, {counted(labels, 'label')}: {remark} ({count} of {counted(runs[arm, labels], 'run')})"
        for (arm, labels, remark), count in said.items()
    ]
