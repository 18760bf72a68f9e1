"""What supervised training leaves behind: the bundle's description, `results.json` and `test.csv`."""

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
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import DataError
from modelsgenesis.files import read_json, write_json
from modelsgenesis.hardware import Hardware
from modelsgenesis.metrics.summary import Summary
from modelsgenesis.training.bundles import describe_environment, network_config
from modelsgenesis.training.classification import summarize_classification_rows
from modelsgenesis.training.parts import Parts
from modelsgenesis.training.segmentation import summarize_segmentation_rows
from modelsgenesis.training.supervised import Row, plain
from modelsgenesis.training.trainer import Progress

RESULTS_NAME, TEST_NAME, SPLIT_NAME = "results.json", "test.csv", "split.json"


def describe_bundle(
    network: nn.Module,
    config: FinetuningConfig,
    contract: InputContract,
    data: LabelledData,
    parts: Parts,
    *,
    init: str | None,
    hardware: Hardware,
    progress: Progress,
    test: Summary,
) -> BundleConfig:
    """Return the content of a bundle's `config.json`.

    Args:
        network: With the head of the task.
        config: Recipe.
        contract: How images are prepared.
        data: What was learnt.
        parts: The cases, of which it says how many there are.
        init: What the network started from.
        hardware: Where it was trained.
        progress: With the metrics of the best validation.
        test: What was measured on the test patients; empty before.
    """
    counts = {part: len({case.patient for case in cases}) for part, cases in parts.items()}
    drawn = {key: value for key, value in _drawn(config).items() if value is not None}
    rests_on = {
        part: {"patients": counts[part], "cases": len(cases), "seed": config.seed} for part, cases in parts.items()
    }
    measured = {name: _on_card(entry) for name, entry in test.items() if entry["value"] is not None}
    results: dict[str, Any] = {"test": {**measured, **rests_on["test"]}} if test else {}
    results |= {"validation": {**progress.metrics, **rests_on["validation"]}} if progress.metrics else {}
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
            data={
                "name": data.name,
                **{f"{part}_patients": count for part, count in counts.items()},
                "modality": contract.modality,
                **drawn,
            },
            results={**results, "step": progress.best_step},
            environment=describe_environment(hardware, config),
        ),
    )


def _on_card(entry: Mapping[str, Any]) -> dict[str, Any]:
    ends = [entry["low"], entry["high"]]
    return {"value": entry["value"], **({} if None in ends else {"interval": ends})}


def write_results(
    path: Path,
    *,
    data: LabelledData,
    config: FinetuningConfig,
    test: Summary,
    rows: Sequence[Row],
    more: Mapping[str, Any],
) -> None:
    """Write what a run, or all folds together, measured: JSON, with None instead of NaN.

    Args:
        path: `results.json`.
        data: What was learnt.
        config: Of the training.
        test: What was measured on the test patients.
        rows: Of the test cases.
        more: What else it says.
    """
    settled = {"specificity": config.specificity} if isinstance(config, ClassificationConfig) else {}
    content = {
        "task": data.task,
        "data": data.name,
        "labels": data.labels,
        **more,
        "patients": len({row["patient"] for row in rows}),
        "cases": len(rows),
        "seed": config.seed,
        **_drawn(config),
        **settled,
        "test": test,
    }
    write_json(path, plain(content), DataError)


def read_results(folder: str | Path) -> dict[str, Any]:
    """Return the `results.json` of a finished run or of folds together.

    Raises:
        DataError: It is missing, no JSON, or holds no results.
    """
    path = Path(folder) / RESULTS_NAME
    content = read_json(path, DataError)
    test = content.get("test") if isinstance(content, dict) else None
    if not isinstance(test, dict) or not all(isinstance(entry, dict) and "value" in entry for entry in test.values()):
        raise DataError(f"{path}: does not hold the results of a run; delete it and resume the run")
    return content


def summarize_rows(rows: Sequence[Row], data: LabelledData, config: FinetuningConfig) -> Summary:
    """Return what rows of a `test.csv` amount to, with intervals over their patients."""
    if not rows:
        return {}
    if data.task == "segmentation":
        return summarize_segmentation_rows(rows, data.labels, config)
    return summarize_classification_rows(rows, data.labels, config, multilabel=data.multilabel)


def _drawn(config: FinetuningConfig) -> dict[str, Any]:
    """Return what decided which patients were for what."""
    folds = {"folds": config.folds, "fold": config.fold} if config.folds else {}
    return {"labels_used": config.labelled_patients, "split_seed": config.split_seed, **folds}
