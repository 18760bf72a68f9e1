"""What every picture needs: an empty figure, a slice, a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelsgenesis.errors import MissingExtraError, ShapeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing a figure", "report") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG, its folder too, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def middle_slice(array: np.ndarray) -> np.ndarray:
    """Return the middle slice along the last axis as a picture: patient's front, or the image's top, up.

    Args:
        array: [x, y, z] of a volume or [x, y] of an image.

    Returns:
        [rows, columns].

    Raises:
        ShapeError: The array has other than 2 or 3 axes.
    """
    if array.ndim not in (2, 3):
        raise ShapeError(f"array of shape {array.shape}: expected 2 or 3 spatial axes to draw a slice")
    if array.ndim == 2:
        return array
    # RAS: x grows to the patient's right hand in storage order, y to the front; radiologists see the right on the left.
    return array[:, :, array.shape[2] // 2].T[::-1, ::-1]
