"""Measuring a model, or predictions that are written already, on labelled data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import (
    LabelledCase,
    LabelledData,
    Refusal,
    read_labelled,
)
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, ShapeError
from modelsgenesis.evaluation import (
    Member,
    Summary,
    classify_case,
    flat,
    native_labels,
    segment_case,
    summarize_classification,
    summarize_segmentation,
)
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split, read_split
from modelsgenesis.verbs.answers import check_writable, csv_text, describe_model, write_text
from modelsgenesis.verbs.measuring import Measure, Measured, classification_row, segmentation_row
from modelsgenesis.verbs.members import Models, expand_folds, list_models, load_members, model_names
from modelsgenesis.verbs.models import public_name
from modelsgenesis.verbs.written import measure_written, written_predictions

RESULTS_NAME, CASES_NAME = "results.json", "cases.csv"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured.

    Attributes:
        folder: Holds `results.json` and `cases.csv`.
        summary: By metric its value and 95% interval over patients; see `Summary`.
        rows: One a case.
        refused: Cases that could not be measured, with the reason.
    """

    folder: Path
    summary: Summary
    rows: tuple[dict[str, Any], ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def values(self) -> dict[str, float]:
        """The values that are defined, by metric."""
        return flat(self.summary)


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """How figures are summarized.

    Attributes:
        bootstrap: Resamples of the patients for the intervals.
        seed: Of them.
        specificity: Of a classification, at which the sensitivity is given.
    """

    bootstrap: int = 1000
    seed: int = 0
    specificity: float = 0.9


def evaluate(
    model: Models,
    data: str | Path | LabelledData,
    *,
    output: str | Path = "evaluation",
    split: str | Path | Split | None = None,
    config: PredictionConfig | None = None,
    options: MeasuringOptions | None = None,
    device: str = "auto",
    strict: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Predict the cases of a labelled data set and measure the answers, each in its scan's own grid.

    Args:
        model: One or several; see `predict_all`. Or a folder of label maps, or a table of classes, as `predict_all`
            writes them: then nothing is predicted, and cases are matched by their names.
        data: A labelled data set in any known layout; its classes are the model's, in any order.
        output: Folder of `results.json` and `cases.csv`.
        split: A split, or its file: its test cases are measured; by default all.
        config: Overlap, flips, where windows are put together.
        options: Bootstrap and specificity.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        strict: A bad case ends the run instead of being left out.
        token: Of the Hub.
        reporter: Is told the progress.

    Returns:
        Metrics with intervals over patients, and a row a case.

    Raises:
        ConfigurationError: Model and data do not fit each other.
        DataError: The data cannot be used, no case could be measured, or the output cannot be written.
        ScanError: A case cannot be used and `strict` is set.

    Example:
        found = modelsgenesis.evaluate("runs/hippocampus", "Task04_Hippocampus", split="runs/hippocampus/split.json")
        found.summary["dice"]  # {'value': 0.88, 'low': 0.87, 'high': 0.89}
    """
    reporter, options = reporter or Reporter(), options or MeasuringOptions()
    folder = Path(output)
    check_writable([folder / RESULTS_NAME])
    data = data if isinstance(data, LabelledData) else read_labelled(data)
    cases, part = _cases(data, split)
    written = written_predictions(model)
    if written is not None:
        measure, about = measure_written(written, data), {"predictions": public_name(written)}
    else:
        config = config or PredictionConfig()
        hardware = choose_hardware(device, config.precision)
        members = load_members(model, hardware, token=token, reporter=reporter)
        _warn_of_training(model, cases, reporter)
        about = describe_model(model_names(model), len(members), config, hardware)
        measure = _measure_members(members, data, config, hardware)
    rows, soft, refused = _measure_all(cases, measure, strict, reporter)
    if not rows:
        raise DataError(f"{data.name}: none of {len(cases)} cases could be measured; the first: {refused[0].reason}")
    summary = _summarize(rows, soft, data, options)
    content = {"task": data.task, "data": data.name, **about, "part": part, "labels": list(data.labels)}
    content |= {"patients": len({row["patient"] for row in rows}), "cases": len(rows), "refused": len(refused)}
    content |= {"bootstrap": options.bootstrap, "seed": options.seed}
    if data.task == "classification":
        content["specificity"] = options.specificity
    _write(folder, rows, {**content, "metrics": summary})
    return Evaluation(folder=folder, summary=summary, rows=tuple(rows), refused=tuple(refused))


def _write(folder: Path, rows: Sequence[dict[str, Any]], content: Mapping[str, Any]) -> None:
    """Write `cases.csv`, where what is undefined is an empty cell, and `results.json`."""
    header = list(rows[0])
    body = [["" if _undefined(row[key]) else row[key] for key in header] for row in rows]
    write_text(folder / CASES_NAME, csv_text([header, *body]))
    write_text(folder / RESULTS_NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _undefined(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cases(data: LabelledData, split: str | Path | Split | None) -> tuple[list[LabelledCase], str]:
    """Return the cases to measure, and what they are called."""
    if split is None:
        return list(data.cases), "all"
    test = set((split if isinstance(split, Split) else read_split(split)).test)
    unknown = sorted(test - {case.name for case in data.cases})
    if unknown:
        raise DataError(f"the split names {unknown[0]!r}, which is not in {data.name}")
    if not test:
        raise DataError("the split has no test cases; expected some to measure")
    return [case for case in data.cases if case.name in test], "test"


def match_classes(member: Member, data: LabelledData) -> np.ndarray:
    """Return which of the model's classes is each class of the data.

    Raises:
        ConfigurationError: They are for different tasks, or their classes are not the same.
    """
    config = member.config
    if config.task != data.task:
        raise ConfigurationError(f"{member.name}: is for {config.task}, {data.name} for {data.task}; expected the same")
    if sorted(config.labels) != sorted(data.labels):
        raise ConfigurationError(
            f"{member.name}: its classes {', '.join(config.labels)} are not the {', '.join(data.labels)} of {data.name}"
        )
    return np.array([config.labels.index(label) for label in data.labels])


def _measure_members(
    members: list[Member], data: LabelledData, config: PredictionConfig, hardware: Hardware
) -> Measure:
    """Return what predicts a case and measures the answer."""
    order = match_classes(members[0], data)

    def measure(case: LabelledCase) -> Measured:
        volumes = [image.read() for image in case.images]
        if data.task == "classification":
            soft = classify_case(members, volumes, config=config, hardware=hardware)
            return classification_row(case, data, soft[order])
        labels = native_labels(segment_case(members, volumes, config=config, hardware=hardware))
        return segmentation_row(case, data, np.argsort(order).astype(labels.dtype)[labels], volumes[0])

    return measure


def _warn_of_training(model: Models, cases: Sequence[LabelledCase], reporter: Reporter) -> None:
    """Say so where a run is measured on what it was trained on."""
    measured = {case.name for case in cases}
    for one in [fold for each in list_models(model) for fold in expand_folds(each)]:
        file = Path(one) / "split.json"
        if file.is_file():
            seen = measured & set(read_split(file).training)
            if seen:
                reporter.note(
                    f"warning: {public_name(one)} was trained on {len(seen)} of the {len(measured)} cases; expect "
                    f"figures that are too good, or measure its test part with --split {file}"
                )


def _measure_all(
    cases: Sequence[LabelledCase], measure: Measure, strict: bool, reporter: Reporter
) -> tuple[list[dict[str, Any]], list[np.ndarray], list[Refusal]]:
    rows, soft, refused = [], [], []
    reporter.begin("measuring", len(cases))
    for done, case in enumerate(cases, start=1):
        try:
            row, probabilities = measure(case)
        except (ScanError, ShapeError) as error:
            if strict:
                raise
            refused.append(Refusal(source=case.name, reason=str(error)))
            reporter.note(f"left out {case.name}: {error}")
        else:
            rows.append({**row, "_classes": case.classes})
            if probabilities is not None:
                soft.append(probabilities)
        reporter.advance(done)
    reporter.end()
    return rows, soft, refused


def _summarize(
    rows: list[dict[str, Any]], soft: list[np.ndarray], data: LabelledData, options: MeasuringOptions
) -> Summary:
    patients = [row["patient"] for row in rows]
    held = [row.pop("_classes") for row in rows]
    if data.task == "segmentation":
        return summarize_segmentation(rows, data.labels, patients, resamples=options.bootstrap, seed=options.seed)
    truth = np.array([[index in classes for index in range(len(data.labels))] for classes in held])
    return summarize_classification(
        np.stack(soft),
        truth,
        data.labels,
        patients,
        multilabel=data.multilabel,
        specificity=options.specificity,
        resamples=options.bootstrap,
        seed=options.seed,
    )
