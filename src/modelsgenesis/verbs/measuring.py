"""One case measured: a row of what its answer is worth."""

from collections.abc import Callable
from typing import Any

import numpy as np

from modelsgenesis.data import LabelledCase, LabelledData, Volume, check_same_grid, read_mask
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.errors import ScanError
from modelsgenesis.evaluation import measure_segmentation

Measured = tuple[dict[str, Any], np.ndarray | None]
"""A row of a case, and of a classification its probabilities."""

Measure = Callable[[LabelledCase], Measured]
"""What gets an answer to a case and measures it."""


def segmentation_row(case: LabelledCase, data: LabelledData, labels: np.ndarray, scan: Volume) -> Measured:
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
    return {
        "case": case.name,
        "patient": case.patient,
        **measure_segmentation(labels, truth, data.labels, spacing),
    }, None


def classification_row(case: LabelledCase, data: LabelledData, soft: np.ndarray) -> Measured:
    """Return the row of a classified case: what holds, what was predicted, and the probabilities."""
    chosen = np.flatnonzero(soft >= 0.5).tolist() if data.multilabel else [int(soft.argmax())]
    row = {
        "case": case.name,
        "patient": case.patient,
        "class": ";".join(data.labels[index] for index in case.classes),
        "predicted": ";".join(data.labels[index] for index in chosen),
        **{f"probability {name}": float(value) for name, value in zip(data.labels, soft, strict=True)},
    }
    return row, soft
