"""Cross-validation: each fold a run of its own, and what their test patients amount to together."""

from pathlib import Path
from typing import Any

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import ResumeError
from modelsgenesis.evaluation import Summary, explanations, flat
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.classification import summarize_classification_rows
from modelsgenesis.training.outcome import RESULTS_NAME, TEST_NAME, read_results, write_results
from modelsgenesis.training.run import RUN_NAME, Run, compare
from modelsgenesis.training.segmentation import summarize_segmentation_rows
from modelsgenesis.training.supervised import Row, read_rows, write_rows


def fold_folder(output: str | Path, fold: int) -> Path:
    """Return the folder of a fold's run.

    Example:
        >>> fold_folder("runs/hippocampus", 2).as_posix()
        'runs/hippocampus/fold2'
    """
    return Path(output) / f"fold{fold}"


def fold_state(output: str | Path, config: FinetuningConfig, fold: int) -> str:
    """Return whether a fold is `"new"`, `"begun"` or `"finished"`.

    Raises:
        ResumeError: It is finished, with another configuration; the message lists the differences.
    """
    folder = fold_folder(output, fold)
    if not (folder / RUN_NAME).exists():
        return "new"
    if not (folder / RESULTS_NAME).exists():
        return "begun"
    before: dict[str, Any] = Run(folder).description()["config"]
    now = config.override(fold=fold).to_dict()
    if config.patch_size is None:
        now["patch_size"] = before.get("patch_size")  # it was chosen then
    differences = compare(before, now)
    if differences:
        raise ResumeError(f"{folder}: the fold was trained with another configuration: {'; '.join(differences)}")
    return "finished"


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
    rows = [{**row, "fold": fold} for fold, folder in enumerate(folders) for row in read_rows(folder / TEST_NAME)]
    summary = summarize_rows(rows, data, config)
    for explanation in explanations(summary):
        reporter.note(explanation)
    for name, entry in summary.items():
        entry["folds"] = [result["test"].get(name, {}).get("value") for result in results]
    write_rows(output / TEST_NAME, rows)
    more = {"init": results[0]["init"], "split": [result["split"] for result in results]}
    for key in ("precision", "device"):  # which folds of a version before did not record
        more[key] = ", ".join(sorted({result.get(key, "not recorded") for result in results}))
    write_results(output / RESULTS_NAME, data=data, config=config, test=summary, rows=rows, more=more)
    return flat(summary)


def summarize_rows(rows: list[Row], data: LabelledData, config: FinetuningConfig) -> Summary:
    """Return what rows of a `test.csv` amount to, with intervals over their patients."""
    if not rows:
        return {}
    if data.task == "segmentation":
        return summarize_segmentation_rows(rows, data.labels, config)
    return summarize_classification_rows(rows, data.labels, config, multilabel=data.multilabel)
