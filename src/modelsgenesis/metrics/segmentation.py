"""Segmentation metrics of a case: Dice, intersection over union, 95% Hausdorff distance."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch

from modelsgenesis.errors import MissingExtraError, ShapeError

SEGMENTATION_METRICS = ("dice", "iou", "hausdorff95")
"""Of each structure: overlap in [0, 1], intersection over union in [0, 1], 95% Hausdorff distance in mm."""


def dice_per_class(predicted: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    """Return the Dice coefficient of each class but the background, as MONAI computes it.

    Args:
        predicted: Integer labels [*spatial].
        truth: Integer labels of the same shape.
        classes: Number of classes with the background, class 0.

    Returns:
        One number in [0, 1] a class; NaN where the truth has none of the class.

    Raises:
        ShapeError: The shapes differ.

    Example:
        >>> import numpy as np
        >>> dice_per_class(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), classes=3)
        [0.6666666865348816, 0.6666666865348816]
    """
    from monai.metrics.meandice import compute_dice

    return compute_dice(*_pair(predicted, truth, classes), include_background=False)[0].tolist()


def hausdorff95_per_class(
    predicted: np.ndarray, truth: np.ndarray, classes: int, spacing: Sequence[float]
) -> list[float]:
    """Return the 95% Hausdorff distance of each class but the background, as MONAI computes it.

    Args:
        predicted: Integer labels [*spatial].
        truth: Integer labels of the same shape.
        classes: Number of classes with the background, class 0.
        spacing: Voxel size along each axis, mm.

    Returns:
        One distance in mm a class; NaN where the prediction or the truth has none of the class: there is no
        distance to nothing.

    Raises:
        ShapeError: The shapes differ.
        MissingExtraError: scipy is not installed.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("the Hausdorff distance", "report")
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    ours, theirs = _pair(predicted, truth, classes)
    both = [index for index in range(1, classes) if ours[0, index].any() and theirs[0, index].any()]
    values = np.full(classes - 1, np.nan)
    if both:  # MONAI warns of empty ones
        size = [float(side) for side in spacing]
        with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes to itself
            warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
            found = compute_hausdorff_distance(
                ours[:, both], theirs[:, both], include_background=True, percentile=95, spacing=size
            )
        values[np.subtract(both, 1)] = found[0].numpy()
    return values.tolist()


def measure_segmentation(
    predicted: np.ndarray, truth: np.ndarray, labels: Sequence[str], spacing: Sequence[float] | None
) -> dict[str, float]:
    """Measure one case.

    Args:
        predicted: Class indices [*spatial].
        truth: Class indices of the same shape.
        labels: Class names, the background first.
        spacing: Voxel size along each axis, mm; None where it is not known, and then there is no distance.

    Returns:
        `dice <structure>` and `iou <structure>`, and `hausdorff95 <structure>` in mm where scipy is installed; NaN
        where undefined.

    Raises:
        ShapeError: The shapes differ.

    Example:
        >>> found = measure_segmentation(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), ["background", "a"], (1, 2))
        >>> round(found["dice a"], 3), round(found["iou a"], 3)
        (0.667, 0.5)
    """
    classes = len(labels)
    dice = dice_per_class(predicted, truth, classes)
    columns = {"dice": dice, "iou": [value / (2 - value) for value in dice]}
    if spacing is not None and find_spec("scipy") is not None:
        columns["hausdorff95"] = hausdorff95_per_class(predicted, truth, classes, spacing)
    return {
        f"{metric} {label}": value
        for metric, values in columns.items()
        for label, value in zip(labels[1:], values, strict=True)
    }


def mean_ignoring_nan(values: Sequence[float]) -> float:
    """Return the mean of the defined values; NaN where none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _pair(predicted: np.ndarray, truth: np.ndarray, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both as booleans [1, classes, *spatial].

    Raises:
        ShapeError: The shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ShapeError(f"prediction of shape {predicted.shape}: expected the label's {truth.shape}")
    return _one_hot(predicted, classes), _one_hot(truth, classes)


def _one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return [1, classes, *spatial] booleans."""
    values = torch.arange(classes).reshape(-1, *(1,) * labels.ndim)
    return (torch.from_numpy(labels.astype(np.int64)) == values)[None]
