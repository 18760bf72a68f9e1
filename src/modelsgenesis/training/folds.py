"""Cross-validation: each fold a run of its own, and what their test patients amount to together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, sha256_of
from modelsgenesis.metrics.summary import explanations, flat
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.outcome import RESULTS_NAME, TEST_NAME, read_results, summarize_rows, write_results
from modelsgenesis.training.supervised import Row, read_rows, write_rows


def fold_folder(output: str | Path, fold: int) -> Path:
    """Return the folder of a fold's run.

    Example:
        >>> fold_folder("runs/hippocampus", 2).as_posix()
        'runs/hippocampus/fold2'
    """
    return Path(output) / f"fold{fold}"


def pool_folds(
    output: str | Path, data: LabelledData, config: FinetuningConfig, reporter: Reporter
) -> dict[str, float]:
    """Put the test patients of all folds together, each measured by a network that has not seen it.

    Writes `results.json`, with each fold's own values, and `test.csv` beside the folders of the folds.

    Returns:
        The metrics over all patients that are defined; of a classification, cases are ranked within their fold.

    Raises:
        DataError: A fold has no results.
    """
    output = Path(output)
    folders = [fold_folder(output, fold) for fold in range(config.folds)]
    results = [read_results(folder) for folder in folders]
    rows = [{**row, "fold": fold} for fold, folder in enumerate(folders) for row in _rows_of(folder, results[fold])]
    with parsing(output, DataError, what="as folds", remedy=f"delete their {RESULTS_NAME} and resume"):
        summary = summarize_rows(rows, data, config)
        for name, entry in summary.items():
            entry["folds"] = [result["test"].get(name, {}).get("value") for result in results]
        more = {"init": results[0]["init"], "split": [result["split"] for result in results]}
        for key in ("precision", "device"):  # which folds of a version before did not record
            more[key] = ", ".join(sorted({result.get(key, "not recorded") for result in results}))
    for explanation in explanations(summary):
        reporter.note(explanation)
    write_rows(output / TEST_NAME, rows)
    write_results(output / RESULTS_NAME, data=data, config=config, test=summary, rows=rows, more=more)
    return flat(summary)


def _rows_of(folder: Path, results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a fold, which must be those that its results are of."""
    path = folder / TEST_NAME
    rows = read_rows(path)
    if sha256_of(path) != results.get("rows_sha256"):
        raise DataError(
            f"{path}: is not what {RESULTS_NAME} was made of: damaged, or of version 0.1.0; delete {RESULTS_NAME} in "
            f"{folder} and resume"
        )
    return rows
