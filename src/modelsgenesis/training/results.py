"""What a fine-tuning leaves behind: the bundle's description, `results.json` and `test.csv`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import (
    BundleConfig,
    ClassificationConfig,
    FinetuningConfig,
    InputContract,
    Provenance,
    require_patch_size,
)
from modelsgenesis.configs.base import plain
from modelsgenesis.data.cases import LabelledData
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_csv, read_json, sha256_of, write_csv, write_json
from modelsgenesis.hardware import Hardware
from modelsgenesis.metrics.summary import Row, Summary, summarize_rows
from modelsgenesis.training.bundles import describe_environment, network_config
from modelsgenesis.training.splits import Split, count_split

RESULTS_NAME, TEST_NAME, SPLIT_NAME = "results.json", "test.csv", "split.json"
# Columns of test.csv that are not numbers; a case called 007 is to stay that.
_TEXTS = ("case", "patient", "class", "predicted")


def describe_bundle(
    network: nn.Module,
    config: FinetuningConfig,
    contract: InputContract,
    data: LabelledData,
    split: Split,
    *,
    init: str | None,
    hardware: Hardware,
    step: int,
    validation: Mapping[str, float],
    test: Summary,
) -> BundleConfig:
    """Return the content of a bundle's `config.json`.

    Args:
        network: With the head of the task.
        config: Recipe.
        contract: How images are prepared.
        data: What was learnt.
        split: Its cases that could be used, which are counted.
        init: What the network started from.
        hardware: Where it was trained.
        step: Step of the network.
        validation: What was measured on the validation patients.
        test: What was measured on the test patients; empty before the end.
    """
    counts = count_split(split, data)
    results: dict[str, Any] = {"step": step}
    for part, measured in {"test": _values_and_intervals(test), "validation": dict(validation)}.items():
        basis = {key: counts[part][key] for key in ("patients", "cases")}
        results |= {part: {**measured, **basis, "seed": config.seed}} if measured else {}
    facts = {f"{part}_patients": count["patients"] for part, count in counts.items()} | {"modality": contract.modality}
    # Counts and seeds, never names: the bundle is published.
    facts |= {key: value for key, value in _how_split(config).items() if value is not None}
    return BundleConfig(
        task=data.task,
        network=network_config(network),
        input=contract,
        labels=data.labels,
        multilabel=data.multilabel,
        patch_size=require_patch_size(config),
        provenance=Provenance(
            origin="finetuned",
            library_version=__version__,
            init=init,
            recipe=config.recipe(),
            data={"name": data.name, **facts},
            results=results,
            environment=describe_environment(hardware, config),
        ),
    )


def _values_and_intervals(test: Summary) -> dict[str, Any]:
    defined = {name: entry for name, entry in test.items() if entry["value"] is not None}
    return {
        name: {"value": entry["value"], **({} if entry["low"] is None else {"interval": [entry["low"], entry["high"]]})}
        for name, entry in defined.items()
    }


def _how_split(config: FinetuningConfig) -> dict[str, Any]:
    """Return what decided which patients were for what."""
    folds = {"folds": config.folds, "fold": config.fold} if config.folds else {}
    return {"labels_used": config.labelled_patients, "split_seed": config.split_seed, **folds}


def summarize(rows: Sequence[Row], data: LabelledData, config: FinetuningConfig) -> Summary:
    """Return each metric of the rows of cases, with its interval over their patients."""
    options: dict[str, Any] = {"task": data.task, "multilabel": data.multilabel}
    options |= {"resamples": config.bootstrap, "seed": config.split_seed}
    options |= {"specificity": config.specificity} if isinstance(config, ClassificationConfig) else {}
    return summarize_rows(rows, data.labels, **options)


def write_results(
    folder: Path, data: LabelledData, config: FinetuningConfig, rows: Sequence[Row], *, test: Summary, **more: Any
) -> None:
    """Write `test.csv`, and `results.json` with what a run, or all folds together, measured; None instead of NaN.

    Args:
        folder: Of the run, or of the folds.
        data: What was learnt.
        config: The training.
        rows: The rows of the test cases.
        test: What they amount to.
        more: What else it says.
    """
    write_csv(folder / TEST_NAME, rows, DataError, ("case", "patient"))
    content = {"task": data.task, "data": data.name, "labels": data.labels, **more}
    content |= {"patients": len({row["patient"] for row in rows}), "cases": len(rows), "seed": config.seed}
    content |= _how_split(config)
    content |= {"specificity": config.specificity} if isinstance(config, ClassificationConfig) else {}
    content |= {"rows_sha256": sha256_of(folder / TEST_NAME), "test": test}  # folds are put together by their rows
    write_json(folder / RESULTS_NAME, plain(content), DataError)


def read_results(folder: str | Path) -> dict[str, Any]:
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
    rows = read_csv(path, DataError)
    with parsing(path, DataError, what="as the measurements of a run"):
        rows = [{key: cell if key in _TEXTS else float(cell or "nan") for key, cell in row.items()} for row in rows]
    # A row that was changed or lost would change the pooled figures without a word.
    if sha256_of(path) != results.get("rows_sha256"):
        raise DataError(
            f"{path}: is not what {RESULTS_NAME} was made of: damaged, or of version 0.1.0; delete {RESULTS_NAME} in "
            f"{folder} and resume"
        )
    return rows
