"""Metrics as a table for people: each with its interval, what undefined cases mean for it, and where the files are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.cli.console import print_line, print_table

_FILES = {
    "full results": "results.json",
    "each test case": "test.csv",
    "split, to reuse with --split": "split.json",
    "model, with its card in README.md": "",
}
_FILES_OF_FOLDS = {
    "full results, with those of each fold": "results.json",
    "each case, measured by the fold that did not train on it": "test.csv",
    "the models": "fold0, fold1 …",
}


def print_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Print the content of a fine-tuning's `results.json`."""
    patients, cases, folds = results["patients"], results["cases"], results.get("folds")
    together = bool(folds) and results.get("fold") is None
    if results["test"]:
        counted = "1 test patient" if patients == 1 else f"{patients} test patients"
        counted += f", {cases} images" if cases > patients else ""
        counted += f" in {folds} folds" if together else ""
        intervals = "95% bootstrap intervals over patients" if patients > 1 else "no confidence interval"
        more = {"specificity": results.get("specificity", 0), "basis": f"{counted}; {intervals}"}
        print_metrics(results["test"], alone=results["labels"][-1], **more)
    else:
        print_line("no test patients: nothing was measured")
    print_line()
    for what, name in (_FILES_OF_FOLDS if together else _FILES).items():
        print_line(f"{what}: {folder / name}")


def print_metrics(summary: Mapping[str, Mapping[str, Any]], *, alone: str, specificity: float, basis: str = "") -> None:
    """Print a row for each class and one for their mean, then a line about each figure that leaves cases out.

    Args:
        summary: As `summarize_rows` returns it.
        alone: The row's name where no metric names a class: of two exclusive classes the second.
        specificity: At which the sensitivity is given.
        basis: A line on what the figures rest on.
    """
    from modelsgenesis.metrics.measures import METRICS, explanations  # NumPy, which --help does without

    metrics = {name: metric for name, metric in METRICS.items() if name in summary}
    titles = {name: metric.title for name, metric in metrics.items()}
    if "sensitivity" in titles:
        titles["sensitivity"] += f" at specificity {specificity:g}"
    # `dice Anterior` is the Dice of Anterior, `dice` the mean over the structures.
    each = list(dict.fromkeys(name.partition(" ")[2] for name in summary if " " in name))
    rows = [(name, f" {name}") for name in each] if each else [(alone, "")]
    rows = [("mean", ""), *rows] if len(each) > 1 else rows
    cells = [
        [name, *(_cell(summary.get(key + suffix), one.digits) for key, one in metrics.items())] for name, suffix in rows
    ]
    print_table(["", *titles.values()], cells)
    for line in filter(None, [basis, *explanations(summary)]):
        print_line(line)


def _cell(entry: Mapping[str, Any] | None, digits: int) -> str:
    """Return `0.878 (0.871–0.885)`, a dash where undefined, nothing where there is no such figure."""
    if entry is None:
        return ""
    if entry["value"] is None:
        return "—"
    ends = entry["low"], entry["high"]
    value = f"{entry['value']:.{digits}f}"
    return value if None in ends else f"{value} ({ends[0]:.{digits}f}–{ends[1]:.{digits}f})"
