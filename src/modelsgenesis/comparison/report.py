"""The results of a comparison in words: tables in Markdown, what they do not show, and an extract for a card."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelsgenesis.comparison.efficiency import sentence
from modelsgenesis.metrics.significance import MINIMUM_RUNS

Results = Mapping[str, Any]

_METRICS = {"auc": "AUC", "iou": "IoU", "dice": "Dice", "hausdorff95": "95% Hausdorff distance (mm)"}
_TITLES = {"welch": "Welch's t", "paired_t": "paired t", "wilcoxon": "Wilcoxon"}


def table(results: Results) -> str:
    """Return `table.md`: what was run, means, differences and tests, label efficiency, and the limits.

    Args:
        results: The content of `results.json`.
    """
    metric = metric_title(results["metric"])
    parts = [
        f"# {results['data']['name']}: {metric} by starting point",
        _bullets(conditions(results)),
        f"## Mean ± standard deviation of {metric} over the runs\n\n{means(results)}",
    ]
    if compared := differences(results):
        parts.append(f"## Differences\n\n{compared}")
    if results["tuning"]:
        parts.append(f"## Settings chosen on the validation patients\n\n{tuning(results)}")
    if results["efficiency"]:
        parts.append(f"## Label efficiency\n\n{_bullets(map(sentence, results['efficiency']))}")
    parts.append(f"## What this does not show\n\n{_bullets(limits(results))}")
    return "\n\n".join(parts) + "\n"


def metric_title(metric: str) -> str:
    """Return a metric as people write it.

    Example:
        >>> metric_title("auc"), metric_title("dice Anterior")
        ('AUC', 'Dice Anterior')
    """
    first, _, rest = metric.partition(" ")
    return " ".join([_METRICS.get(first, first.replace("_", " ")), *([rest] if rest else [])])


def number(count: int, thing: str) -> str:
    """Return a count with its thing in the singular or plural.

    Example:
        >>> number(1, "run"), number(3, "run")
        ('1 run', '3 runs')
    """
    return f"{count} {thing}{'' if count == 1 else 's'}"


def conditions(results: Results) -> list[str]:
    """Return one line each on data, labels, budget, seeds and arms."""
    data, seeds, counts = results["data"], results["seeds"], results["data"]["patients"]
    span = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else seeds[0]
    budgets = {name: _budget(arm) for name, arm in results["arms"].items()}
    budget = f"budget of every training: {next(iter(budgets.values()))}"
    if not equal_budgets(results):
        own = "; ".join(f"{name} {text}" for name, text in budgets.items())
        budget = f"unequal budgets: {own}" + ("; unless tuned otherwise" if results["tuning"] else "")
    patients = (
        f"{data['task']}, {number(counts['test'], 'test patient')}, {number(counts['training'], 'training patient')}, "
        f"{number(counts['validation'], 'validation patient')} that decide which step of a training is kept, beside "
        "the labels counted below"
    )
    runs = (
        f"{number(len(seeds), 'run')} of each arm and label count, seeds {span}; a seed changes the initialisation of "
        "what is new, order and augmentation, and is the same in every arm"
    )
    arms = [f"{name}: {_arm(arm)}" for name, arm in results["arms"].items()]
    return [patients, subset_line(results), runs, budget, *arms]


def equal_budgets(results: Results) -> bool:
    """Return whether all trainings had as many steps of as many samples; what an arm sets or was tuned may differ."""
    tuned = {setting.partition("=")[0] for choice in results["tuning"] for setting in choice["chosen"]}
    return len({_budget(arm) for arm in results["arms"].values()}) == 1 and not tuned & {"steps", "batch_size"}


def _budget(arm: Mapping[str, Any]) -> str:
    return f"{number(arm['steps'], 'step')} of {number(arm['batch_size'], 'sample')}"


def subset_line(results: Results) -> str:
    """Return how the labelled patients were chosen; every table and figure says it."""
    if results["resample_labels"]:
        return "labelled patients: drawn anew for each seed, the same in every arm"
    return "labelled patients: the same in all runs of a label count, the smaller subset within the larger"


def _arm(arm: Mapping[str, Any]) -> str:
    start = "random weights" if arm["init"] is None else f"from the weights of {arm['init']}"
    own = f", with {', '.join(arm['settings'])}" if arm["settings"] else ""
    return f"{start}{own}; {arm['dims']}D, {arm['parameters']:,} parameters"


def means(results: Results) -> str:
    """Return the table of means, a row a label count and a column an arm."""
    rows = [["labels", *results["arms"]]]
    for labels, entry in results["labels"].items():
        rows.append([labels, *(_mean(entry["arms"][arm].get(results["metric"])) for arm in results["arms"])])
    return _markdown(rows)


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "—"
    spread = "" if summary["deviation"] is None else f" ± {summary['deviation']:.4f}"
    return f"{summary['mean']:.4f}{spread} (n = {summary['n']})"


def differences(results: Results) -> str:
    """Return the table of differences: mean with its interval, and the p-values with their corrections; "" of none."""
    family = max(len(entry["comparisons"]) for entry in results["labels"].values())
    rows = [["labels", "difference", "mean (95% interval)", "95% over test patients", *_TITLES.values()]]
    notes: list[str] = []
    for labels, entry in results["labels"].items():
        for comparison in entry["comparisons"]:
            difference, tests = comparison["difference"], comparison["tests"]
            mean = "—" if difference is None else f"{_signed(difference['mean'])} ({_span(difference, 'none')})"
            names = f"{comparison['arm']} − {comparison['reference']}"
            p_values = [_p_value(tests[name], family) for name in _TITLES]
            rows.append([labels, names, mean, _span(comparison.get("over_patients"), "—"), *p_values])
            why = next((test["why"] for test in tests.values() if test.get("why")), None)
            if why:
                notes.append(f"{labels} labels, {comparison['arm']}: no p-value, since {why}.")
    said = (
        "Differences are of runs with the same seed; the interval of their mean is Student's t's, over the runs. Over "
        "test patients: percentile bootstrap of the difference of the arms' means, the runs as they are. "
        "p-values are two-sided: Welch's t-test of the two groups of runs (the poster's), Student's t-test and "
        "Wilcoxon's signed-rank test of the pairs."
    )
    if family > 1:
        said += f" The second number is Holm's correction over the {family} comparisons of a label count."
    return "\n\n".join([_markdown(rows), said, *notes]) if family else ""


def _span(ends: Mapping[str, Any] | None, without: str) -> str:
    return without if ends is None or ends["low"] is None else f"{_signed(ends['low'])} to {_signed(ends['high'])}"


def _signed(number: float) -> str:
    return f"{number:+.4f}".replace("-", "−")


def _p_value(test: Mapping[str, Any], family: int) -> str:
    if test["p"] is None:
        return "none"
    return probability(test["p"]) + (f" / {probability(test['p_holm'])}" if family > 1 else "")


def probability(p: float) -> str:
    """Return a p-value as text.

    Example:
        >>> probability(0.0412), probability(0.00003)
        ('0.041', '3e-05')
    """
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def tuning(results: Results) -> str:
    """Return the table of candidates with their mean on the validation patients."""
    rows = [["arm", "labels", "candidate", f"{metric_title(results['metric'])}, validation", ""]]
    edges: list[str] = []
    for choice in results["tuning"]:
        for candidate in choice["candidates"]:
            mean = "diverged" if candidate["mean"] is None else f"{candidate['mean']:.4f}"
            mark = "chosen" if candidate["settings"] == choice["chosen"] else ""
            rows.append([choice["arm"], str(choice["labels"]), ", ".join(candidate["settings"]), mean, mark])
        edges += [f"{choice['arm']} with {choice['labels']} labels chose {edge}" for edge in choice["edge"]]
    said = (
        f"Means over {number(len(results['tuning_seeds']), 'run')} with seeds from {results['tuning_seeds'][0]}, "
        "which no measured run has; the test patients were not read before the choice."
    )
    if edges:
        said += f" At the edge of what was tried, so that a better value may lie beyond: {'; '.join(edges)}."
    return f"{_markdown(rows)}\n\n{said}"


def limits(results: Results) -> list[str]:
    """Return what a reader might think that the numbers show, and that they do not."""
    patients, runs = results["data"]["patients"], len(results["seeds"])
    one_split = (
        f"One data set and one split into patients: {number(patients['test'], 'test patient')}, the same in every run. "
        "The standard deviation and the p-values are over seeds, that is over what training draws at random. How far "
        "other patients of the same kind would move a difference is a column of its own; nothing here speaks of other "
        "hospitals or other tasks."
    )
    subset = (
        "The labelled patients vary with the seed, so the spread holds their choice too, but only among the "
        f"{patients['training']} training patients of this split."
        if results["resample_labels"]
        else "The labelled patients are the same in all runs of a label count: everything is conditional on this one "
        "choice, and with few labels another choice may move all arms by more than the spread."
    )
    budget = (
        "Equal steps are an equal budget, not each arm's best: another budget, network or recipe may order the arms "
        "otherwise."
        if equal_budgets(results)
        else "The budgets are unequal: a difference may be that of the budget and not of the start."
    ) + ("" if results["tuning"] else " No settings were tuned.")
    lines = [one_split, subset, budget]
    if patients["validation"]:
        chosen = "its step and its settings" if results["tuning"] else "its step"
        lines.append(
            f"The labels of {number(patients['validation'], 'validation patient')} are used as well: an arm with few "
            f"labels has their help in choosing {chosen}."
        )
    if runs < MINIMUM_RUNS:
        lines.append(f"{number(runs, 'run')} cannot give a p-value; {MINIMUM_RUNS} are the least.")
    if len(results["labels"]) > 1:
        lines.append("Several label counts are several questions: the correction is over arms, not over label counts.")
    return lines


def card_results(results: Results) -> dict[str, Any]:
    """Return the comparison as a bundle's `provenance.results` holds it: one measure an arm and label count.

    Example:
        config = replace(config, provenance=replace(provenance, results=card_results(results)))
    """
    metric = results["metric"]
    found: dict[str, Any] = {"patients": results["data"]["patients"]["test"]}
    for labels, entry in results["labels"].items():
        known = {arm: summaries[metric] for arm, summaries in entry["arms"].items() if metric in summaries}
        found[f"{metric} with {labels} labels"] = {
            arm: {"mean": one["mean"], "deviation": one["deviation"], "runs": one["n"]} for arm, one in known.items()
        }
    return {"comparison": found}


def card_section(results: Results) -> str:
    """Return the comparison as a section of a model card, its limits included."""
    patients, runs = results["data"]["patients"]["test"], len(results["seeds"])
    held_out = number(patients, "held-out patient")
    rests_on = f"{metric_title(results['metric'])}, {held_out}, {number(runs, 'run')}; {subset_line(results)}."
    parts = [f"## Compared on {results['data']['name']}", rests_on, means(results)]
    parts += [differences(results), _bullets(map(sentence, results["efficiency"]))]
    parts.append(f"What this does not show:\n\n{_bullets(limits(results))}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table, the first its head."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])
