"""The results of a run as a table: each metric with its interval, what was left out, and where the files are."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hausdorff95": "95% Hausdorff, mm",
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "accuracy": "accuracy",
}
_NARROWEST = 100  # columns, where the output is no terminal


def print_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Print the content of a `results.json` for people."""
    if results["test"]:
        _print_table(results)
        typer.echo(_rests_on(results))
        for line in _left_out(results["test"]):
            typer.echo(line)
    else:
        typer.echo("no test patients: nothing was measured")
    typer.echo("")
    for name, what in _files(folder, results):
        typer.echo(f"{folder / name}: {what}")


def _print_table(results: Mapping[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    test: Mapping[str, Any] = results["test"]
    metrics = [name for name in _TITLES if name in test]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for metric in metrics:
        title = _TITLES[metric]
        table.add_column(f"{title} at {results['specificity']:g}" if metric == "sensitivity" else title)
    for row, suffix in _rows(results):
        table.add_row(row, *(_cell(test.get(f"{metric}{suffix}"), metric) for metric in metrics))
    width = None if sys.stdout.isatty() else max(_NARROWEST, 24 * (1 + len(metrics)))
    Console(highlight=False, width=width, file=sys.stdout).print(table)


def _rows(results: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Return the name of each row and what follows a metric's name in it."""
    labels = results["labels"][1:] if results["task"] == "segmentation" else results["labels"]
    each = [(label, f" {label}") for label in labels if any(name.endswith(f" {label}") for name in results["test"])]
    if not each:
        return [(labels[-1], "")]  # of two exclusive classes the second
    return each if len(each) == 1 else [("mean", ""), *each]


def _cell(entry: Mapping[str, Any] | None, metric: str) -> str:
    """Return `0.878 (0.871–0.885)`, a dash where undefined, nothing where there is no such figure."""
    if entry is None:
        return ""
    if entry["value"] is None:
        return "—"
    digits = 2 if metric == "hausdorff95" else 3
    ends = entry["low"], entry["high"]
    value = f"{entry['value']:.{digits}f}"
    return value if None in ends else f"{value} ({ends[0]:.{digits}f}–{ends[1]:.{digits}f})"


def _rests_on(results: Mapping[str, Any]) -> str:
    patients, cases = results["patients"], results["cases"]
    counted = f"{patients} test patients" + ("" if cases == patients else f", {cases} images")
    folds = f" of {results['folds']} folds" if results.get("folds") and results.get("fold") is None else ""
    specificity = f"; sensitivity at a specificity of {results['specificity']:g}" if "specificity" in results else ""
    intervals = "95% intervals by bootstrap over patients" if patients > 1 else "one patient has no interval"
    return f"{counted}{folds}; {intervals}{specificity}"


def _left_out(test: Mapping[str, Any]) -> list[str]:
    from modelsgenesis.evaluation import explanations

    return explanations(dict(test))


def _files(folder: Path, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    if results.get("folds") and results.get("fold") is None:
        return [
            ("results.json", "this, with each fold's own"),
            ("test.csv", "each case, measured by the fold that has not seen it"),
            ("fold0", "and so on: the models"),
        ]
    return [
        ("results.json", "this, in full"),
        ("test.csv", "each test case"),
        ("split.json", "which cases were for what; --split uses it again"),
        ("", "the model, with its card in README.md"),
    ]
