"""Case after case: a bad one costs the others nothing; and a row of what an answer is worth."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from modelsgenesis.data import LabelledCase, LabelledData, SkippedScan, Volume, check_same_grid, read_mask
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.errors import RangeError, ScanError, ShapeError
from modelsgenesis.metrics.classification import classification_row
from modelsgenesis.metrics.segmentation import measure_segmentation
from modelsgenesis.reporting import Reporter

Measured = tuple[dict[str, Any], np.ndarray | None]
"""A row of a case, and of a classification its probabilities."""

Measure = Callable[[LabelledCase], Measured]
"""What gets an answer to a case and measures it."""

CaseType = TypeVar("CaseType")
Result = TypeVar("Result")


def each_case(
    cases: Sequence[tuple[str, CaseType]],
    work: Callable[[CaseType], Result],
    *,
    title: str,
    strict: bool,
    reporter: Reporter,
) -> tuple[list[Result], list[SkippedScan]]:
    """Do the work on each case; one that cannot be used is reported and refused, unless `strict`.

    Args:
        cases: What a message calls each, and the case.
        work: Raises an error of this package for a case that cannot be used.
        title: Of the progress.
        strict: A bad case ends the run.
        reporter: Is told the progress.

    Raises:
        ScanError: A case cannot be used and `strict` is set.
    """
    results, refused = [], []
    reporter.begin(title, len(cases))
    for done, (name, case) in enumerate(cases, start=1):
        try:
            results.append(work(case))
        except (ScanError, ShapeError, RangeError, MemoryError) as error:
            if strict and not isinstance(error, MemoryError):
                raise
            reason = "does not fit into memory" if isinstance(error, MemoryError) else str(error)
            refused.append(SkippedScan(source=name, reason=reason.removeprefix(f"{name}: ")))
            if strict:
                raise ScanError(f"{name}: {reason}") from error
            reporter.note(f"left out {name}: {refused[-1].reason}")
        reporter.advance(done)
    reporter.end()
    return results, refused


def measure_labels(case: LabelledCase, data: LabelledData, labels: np.ndarray, scan: Volume) -> Measured:
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
    spacing = mask.spacing or (1.0,) * mask.array.ndim
    row = {"case": case.name, "patient": case.patient}
    return {**row, **measure_segmentation(labels, truth, data.labels, spacing)}, None


def measure_classes(case: LabelledCase, data: LabelledData, soft: np.ndarray) -> Measured:
    """Return the row of a classified case: what holds, what was predicted, and the probabilities."""
    row = classification_row(case.classes, soft, data.labels, multilabel=data.multilabel)
    return {"case": case.name, "patient": case.patient, **row}, soft
