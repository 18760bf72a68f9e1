"""Measure predictions on labelled cases: one way for `finetune`, `evaluate` and `compare`, on each scan's own grid."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from modelsgenesis.data import LabelledCase, LabelledData, SkippedScan, Volume, check_same_grid, read_mask
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.data.names import channel_order
from modelsgenesis.errors import ConfigurationError, ScanError, ShapeError
from modelsgenesis.inference.ensemble import Ensemble
from modelsgenesis.metrics.classification import classification_row
from modelsgenesis.metrics.segmentation import measure_segmentation
from modelsgenesis.metrics.summary import Row
from modelsgenesis.reporting import Reporter

CaseType = TypeVar("CaseType")
Result = TypeVar("Result")


def measure_cases(
    ensemble: Ensemble, cases: Sequence[LabelledCase], data: LabelledData, *, strict: bool, reporter: Reporter
) -> tuple[list[Row], list[SkippedScan]]:
    """Predict labelled cases and measure each prediction; arguments and errors as of `measure_case` and `each_case`.

    Example:
        ensemble = Ensemble([Member(name="run", network=network, config=bundle.config)], PredictionConfig(), hardware)
        rows, skipped = measure_cases(ensemble, data.cases, data, strict=False, reporter=Reporter())
        summarize_rows(rows, data.labels, task=data.task)["dice"]
    """
    match_classes(ensemble, data)  # before the first case
    named = [(case.name, case) for case in cases]
    return each_case(
        named, partial(measure_case, ensemble, data=data), title="evaluating", strict=strict, reporter=reporter
    )


def measure_case(ensemble: Ensemble, case: LabelledCase, data: LabelledData) -> Row:
    """Predict a labelled case and measure the prediction in the scan's own voxels.

    Not on the prepared grid, which two models need not share and where a mask has lost its thin parts: so figures of
    any two models compare, and are those of the label map that a user gets.

    Args:
        ensemble: One model or several.
        case: With its files; they are read anew.
        data: The data set of the case. Its classes and channels may come in another order than the model's.

    Returns:
        `case`, `patient`, and what `measure_segmentation` or `classification_row` returns; see `summarize_rows`.

    Raises:
        ConfigurationError: The model is for another task or other classes.
        ScanError: The case cannot be used, or its mask lies on another grid.
    """
    classes = match_classes(ensemble, data)
    order = channel_order(data.channels, ensemble.channels) or range(len(case.images))
    volumes = [case.images[index].read() for index in order]
    if data.task == "classification":
        return measure_classes(case, data, ensemble.classify(volumes)[classes])
    labels = ensemble.segment(volumes).labels()
    # argsort inverts the order of the classes: from the model's indices to the data's.
    return measure_labels(case, data, np.argsort(classes).astype(labels.dtype)[labels], volumes[0])


def measure_labels(case: LabelledCase, data: LabelledData, labels: np.ndarray, scan: Volume) -> Row:
    """Measure a label map on the case's mask.

    Args:
        case: With its mask.
        data: What the values of the mask mean.
        labels: Class indices of the data, [*spatial].
        scan: What the label map lies on.

    Raises:
        ScanError: There is no mask, it cannot be used, or it lies on another grid.
    """
    if case.mask is None:
        raise ScanError(f"{case.name}: has no mask; expected a case of a segmentation")
    mask = read_mask(case.mask)
    check_same_grid(scan, mask)
    truth = label_indices(mask.array, data, str(case.mask))
    spacing = mask.spacing or (1.0,) * mask.array.ndim  # planes such as PNG have none: distances in pixels
    row = {"case": case.name, "patient": case.patient}
    return {**row, **measure_segmentation(labels, truth, data.labels, spacing)}


def measure_classes(case: LabelledCase, data: LabelledData, probabilities: np.ndarray) -> Row:
    """Return the row of a classified case, whose probabilities are in the order of the data's classes."""
    row = classification_row(case.classes, probabilities, data.labels, multilabel=data.multilabel)
    return {"case": case.name, "patient": case.patient, **row}


def match_classes(ensemble: Ensemble, data: LabelledData) -> np.ndarray:
    """Return, for each class of the data, its index in the model.

    Raises:
        ConfigurationError: They are for different tasks, or their classes are not the same.
    """
    name, labels = ensemble.name, ensemble.labels
    if ensemble.task != data.task:
        raise ConfigurationError(f"{name}: is for {ensemble.task}, {data.name} for {data.task}; expected the same")
    if sorted(labels) != sorted(data.labels):
        raise ConfigurationError(
            f"{name}: its classes {', '.join(labels)} are not the {', '.join(data.labels)} of {data.name}"
        )
    return np.array([labels.index(label) for label in data.labels])


def each_case(
    cases: Sequence[tuple[str, CaseType]],
    work: Callable[[CaseType], Result],
    *,
    title: str,
    strict: bool,
    reporter: Reporter,
) -> tuple[list[Result], list[SkippedScan]]:
    """Do the work on each case; one that cannot be used is reported and skipped, unless `strict`.

    Args:
        cases: What a message calls each, and the case.
        work: Raises an error of this package for a case that cannot be used.
        title: Title of the progress, such as `"predicting"`.
        strict: A bad case ends the run.
        reporter: Receives the progress.

    Raises:
        ScanError: A case cannot be used and `strict` is set.
    """
    results, skipped = [], []
    reporter.begin(title, len(cases))
    for done, (name, case) in enumerate(cases, start=1):
        try:
            results.append(work(case))
        # Nothing else: a bug, or a model that fits no case, must not look like one bad scan.
        except (ScanError, ShapeError, MemoryError) as error:
            reason = "does not fit into memory" if isinstance(error, MemoryError) else str(error)
            if strict:
                raise ScanError(f"{name}: {reason.removeprefix(f'{name}: ')}") from error
            skipped.append(SkippedScan(source=name, reason=reason.removeprefix(f"{name}: ")))
            reporter.note(f"skipped {name}: {skipped[-1].reason}")
        reporter.advance(done)
    reporter.end()
    return results, skipped
