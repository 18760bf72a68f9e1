"""Measure predictions on labelled cases: one way for `finetune`, `evaluate` and `compare`, on each scan's own grid."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import LabelledCase, LabelledData, SkippedScan, Volume, check_same_grid, read_mask
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.data.names import channel_order
from modelsgenesis.errors import ConfigurationError, ScanError, ShapeError
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.ensemble import Member, classify_case, native_labels, prepare_for, segment_case
from modelsgenesis.metrics.classification import classification_row
from modelsgenesis.metrics.segmentation import measure_segmentation
from modelsgenesis.metrics.summary import Row
from modelsgenesis.reporting import Reporter

CaseType = TypeVar("CaseType")
Result = TypeVar("Result")


def measure_case(
    members: Sequence[Member],
    case: LabelledCase,
    data: LabelledData,
    *,
    config: PredictionConfig | None = None,
    hardware: Hardware,
) -> Row:
    """Predict a labelled case and measure the prediction in the scan's own voxels.

    Not on the prepared grid, which two models need not share and where a mask has lost its thin parts: so figures of
    any two models compare, and are those of the label map that a user gets.

    Args:
        members: One model, or an ensemble; see `check_members`.
        case: With its files; they are read anew.
        data: The data set of the case. Its classes and channels may come in another order than the model's.
        config: Overlap and flips.
        hardware: Where and how to compute.

    Returns:
        `case`, `patient`, and what `measure_segmentation` or `classification_row` returns; see `summarize_rows`.

    Raises:
        ConfigurationError: The model is for another task or other classes.
        ScanError: The case cannot be used, or its mask lies on another grid.

    Example:
        rows = [measure_case([member], case, data, hardware=hardware) for case in data.cases]
        summarize_rows(rows, data.labels, task=data.task)["dice"]
    """
    config, classes = config or PredictionConfig(), match_classes(members[0], data)
    order = channel_order(data.channels, members[0].config.input.channels) or range(len(case.images))
    volumes = [case.images[index].read() for index in order]
    if data.task == "classification":
        soft = classify_case(members, volumes, config=config, hardware=hardware)
        return measure_classes(case, data, soft[classes])
    labels = native_labels(segment_case(prepare_for(members, volumes), config=config, hardware=hardware))
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


def match_classes(member: Member, data: LabelledData) -> np.ndarray:
    """Return, for each class of the data, its index in the model.

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
    results, refused = [], []
    reporter.begin(title, len(cases))
    for done, (name, case) in enumerate(cases, start=1):
        try:
            results.append(work(case))
        except (ScanError, ShapeError, MemoryError) as error:
            if strict and not isinstance(error, MemoryError):
                raise
            reason = "does not fit into memory" if isinstance(error, MemoryError) else str(error)
            refused.append(SkippedScan(source=name, reason=reason.removeprefix(f"{name}: ")))
            if strict:
                raise ScanError(f"{name}: {reason}") from error
            reporter.note(f"skipped {name}: {refused[-1].reason}")
        reporter.advance(done)
    reporter.end()
    return results, refused
