"""Overlap of a predicted and a true segmentation."""

import numpy as np
import torch

from modelsgenesis.errors import ShapeError


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

    if predicted.shape != truth.shape:
        raise ShapeError(f"prediction of shape {predicted.shape}: expected the label's {truth.shape}")
    pair = [_one_hot(labels, classes) for labels in (predicted, truth)]
    return compute_dice(pair[0], pair[1], include_background=False)[0].tolist()


def _one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return [1, classes, *spatial] booleans."""
    values = torch.arange(classes).reshape(-1, *(1,) * labels.ndim)
    return (torch.from_numpy(labels.astype(np.int64)) == values)[None]


def mean_ignoring_nan(values: list[float]) -> float:
    """Return the mean of the defined values; NaN where none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
