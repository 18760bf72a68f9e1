"""Dice, intersection over union and the 95% Hausdorff distance of the structures of a label map."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch

from modelsgenesis.errors import ShapeError

SEGMENTATION_METRICS = ("dice", "iou", "hausdorff95")
"""Of each structure: Dice in [0, 1], intersection over union in [0, 1], 95% Hausdorff distance in mm."""


def dice_per_class(predicted: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    """Return the Dice coefficient of each class but the background.

    Args:
        predicted: Integer labels [*spatial].
        truth: Integer labels of the same shape.
        classes: Number of classes with the background, class 0.

    Returns:
        A number in [0, 1] for each class; NaN where the truth has none of it.

    Raises:
        ShapeError: The shapes differ.

    Example:
        >>> import numpy as np
        >>> dice_per_class(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), classes=4)
        [0.6666666666666666, 0.6666666666666666, nan]
    """
    if predicted.shape != truth.shape:
        raise ShapeError(f"prediction of shape {predicted.shape}: expected the label's {truth.shape}")
    values = []
    # A class at a time: one-hot, a whole-body scan with a hundred structures would take a hundred volumes of memory.
    for index in range(1, classes):
        ours, theirs = predicted == index, truth == index
        size = int(theirs.sum())
        # An absent structure has no Dice: 0 for any false positive, 1 for none, would swamp the mean over cases.
        values.append(2 * int((ours & theirs).sum()) / (int(ours.sum()) + size) if size else float("nan"))
    return values


def measure_segmentation(
    predicted: np.ndarray, truth: np.ndarray, labels: Sequence[str], spacing: Sequence[float] | None
) -> dict[str, float]:
    """Measure a label map of one case.

    Args:
        predicted: Class indices [*spatial].
        truth: Class indices of the same shape.
        labels: Class names, the background first.
        spacing: Voxel size along each axis, mm; None where it is unknown, and then there is no distance.

    Returns:
        `dice <structure>` and `iou <structure>`, and `hausdorff95 <structure>` in mm where SciPy is installed; NaN
        where undefined.

    Raises:
        ShapeError: The shapes differ.

    Example:
        >>> found = measure_segmentation(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), ["background", "a"], (1, 2))
        >>> round(found["dice a"], 3), round(found["iou a"], 3)
        (0.667, 0.5)
    """
    dice = dice_per_class(predicted, truth, len(labels))
    # IoU follows from Dice case by case (not from their means).
    columns = {"dice": dice, "iou": [value / (2 - value) for value in dice]}
    if spacing is not None and find_spec("scipy") is not None:
        columns["hausdorff95"] = [
            _hausdorff95(predicted == index, truth == index, spacing) for index in range(1, len(labels))
        ]
    return {
        f"{metric} {label}": value
        for metric, values in columns.items()
        for label, value in zip(labels[1:], values, strict=True)
    }


def _hausdorff95(ours: np.ndarray, theirs: np.ndarray, spacing: Sequence[float]) -> float:
    """Return MONAI's distance in mm of two masks; NaN where one is empty: there is no distance to nothing."""
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    if not (ours.any() and theirs.any()):  # MONAI would answer infinity, with a warning
        return float("nan")
    masks = (torch.from_numpy(mask)[None, None] for mask in (ours, theirs))
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes to itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        return float(
            compute_hausdorff_distance(
                *masks, include_background=True, percentile=95, spacing=[float(side) for side in spacing]
            )
        )
