"""The results of a run: each metric with its interval, what undefined cases mean for it, and where the files are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelsgenesis.cli.console import print_line, print_table

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hausdorff95": "HD95 (mm)",
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "accuracy": "accuracy",
}


def print_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Print the content of a `results.json` for people."""
    from modelsgenesis.metrics.summary import explanations

    test = results["test"]
    if test:
        metrics = [name for name in _TITLES if name in test]
        titles = {**_TITLES, "sensitivity": f"sensitivity at specificity {results.get('specificity', 0):g}"}
        rows = [
            [name, *(_cell(test.get(f"{metric}{suffix}"), metric) for metric in metrics)]
            for name, suffix in _rows(results)
        ]
        print_table(["", *(titles[metric] for metric in metrics)], rows)
        for line in (_basis(results), *explanations(dict(test))):
            print_line(line)
    else:
        print_line("no test patients: nothing was measured")
    print_line()
    for what, name in _files(results).items():
        print_line(f"{what}: {folder / name}")


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


def _basis(results: Mapping[str, Any]) -> str:
    """Return how many patients the figures come from, and what the intervals are."""
    patients, cases = results["patients"], results["cases"]
    counted = "1 test patient" if patients == 1 else f"{patients} test patients"
    counted += f", {cases} images" if cases > patients else ""
    folds = f" in {results['folds']} folds" if _is_summary_of_folds(results) else ""
    intervals = "95% bootstrap intervals over patients" if patients > 1 else "no confidence interval"
    return f"{counted}{folds}; {intervals}"


def _files(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of the run, by what is in them."""
    if _is_summary_of_folds(results):
        return {
            "full results, with those of each fold": "results.json",
            "each case, measured by the fold that did not train on it": "test.csv",
            "the models": "fold0, fold1 …",
        }
    return {
        "full results": "results.json",
        "each test case": "test.csv",
        "split, to reuse with --split": "split.json",
        "model, with its card in README.md": "",
    }


def _is_summary_of_folds(results: Mapping[str, Any]) -> bool:
    return bool(results.get("folds")) and results.get("fold") is None
