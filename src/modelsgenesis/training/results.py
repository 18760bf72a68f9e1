"""What a fine-tuning measured: `results.json`, the rows of `test.csv`, and the table that people read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig
from modelsgenesis.data.cases import LabelledData
from modelsgenesis.errors import DataError, require
from modelsgenesis.files import parsing, read_csv, read_json, sha256_of
from modelsgenesis.metrics.measures import UNIT, Row, explanations
from modelsgenesis.metrics.tables import ResultsTable, basis_of, results_table

RESULTS_NAME, TEST_NAME = "results.json", "test.csv"
_TEXTS = ("file", "case", "patient", "class", "predicted", UNIT)  # no numbers; a case called 007 is to stay that


def summary_options(data: LabelledData, config: FinetuningConfig) -> dict[str, Any]:
    """Return what `summarize_rows` has to know of data and configuration."""
    own = {"specificity": config.specificity} if isinstance(config, ClassificationConfig) else {}
    return {"labels": data.labels, "task": data.task, "multilabel": data.multilabel, **own}


def table_of(results: Mapping[str, Any]) -> ResultsTable:
    """Return the table of the content of `results.json`; without test patients it has no rows."""
    test, folds = results["test"], results.get("folds") if results.get("fold") is None else 0
    basis = basis_of(results["patients"], results["cases"], what="test patient", folds=folds or 0)
    notes = [basis, *explanations(test)] if test else ["no test patients: nothing was measured"]
    own = {"alone": results["labels"][-1], "specificity": results.get("specificity")}
    notes += [f"remark: {one}" for one in results.get("remarks", ())]
    return results_table({(): test} if test else {}, **own, notes=notes)


def read_test_results(folder: str | Path) -> dict[str, Any]:
    """Return the `results.json` of a finished run or of folds together: metrics with intervals, and their basis.

    Raises:
        DataError: It is missing, no JSON, or does not hold results.
    """
    path = Path(folder) / RESULTS_NAME
    content = read_json(path, DataError)
    test = content.get("test") if isinstance(content, dict) else None
    if not isinstance(test, dict) or not all(isinstance(entry, dict) and "value" in entry for entry in test.values()):
        raise DataError(f"{path}: does not hold the results of a run; delete it and resume the run")
    return content


def read_rows(folder: Path, results: Mapping[str, Any]) -> list[Row]:
    """Read the `test.csv` of a run: numbers become floats again, empty cells NaN, all but the texts of a case.

    Raises:
        DataError: It is missing or no such CSV, or not the one that the run's results were made from.
    """
    path = folder / TEST_NAME
    rows = read_measured(path)
    # A row that was changed or lost would change the pooled figures without a word.
    told = f"{path}: is not what {RESULTS_NAME} was made of: damaged, or of 0.1.0; delete {RESULTS_NAME} and resume"
    require(sha256_of(path) == results.get("rows_sha256"), DataError, told)
    return rows


def read_measured(path: Path) -> list[Row]:
    """Read the table of measured cases of a run or an evaluation; errors as of `read_rows`, but for another table."""
    rows = read_csv(path, DataError)
    with parsing(path, DataError, what="as the measurements of a run"):
        return [{key: cell if key in _TEXTS else float(cell or "nan") for key, cell in row.items()} for row in rows]
