"""Bringing an image to classify to the sides that a network was made for, and cutting boxes out."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from modelsgenesis.data.preparation import interpolate
from modelsgenesis.errors import ShapeError

Fit = Literal["auto", "resize", "crop"]


def resize_or_crop(image: np.ndarray, size: tuple[int, ...], fit: Fit = "auto") -> np.ndarray:
    """Bring an image to a size.

    Args:
        image: float32 [channels, *spatial].
        size: [*sides].
        fit: `"resize"` interpolates linearly and averages where it shrinks; `"crop"` cuts or pads with the lowest
            value around the centre; `"auto"` resizes planes and crops volumes, whose voxels have a size in mm.

    Returns:
        float32 [channels, *size]; the image itself where it has the size.

    Raises:
        ShapeError: The image has other axes than the size.

    Example:
        >>> resize_or_crop(np.ones((1, 256, 200), np.float32), (128, 128)).shape
        (1, 128, 128)
    """
    if image.ndim != len(size) + 1:
        raise ShapeError(f"image of shape {image.shape}: expected [channels, {len(size)} spatial axes]")
    if image.shape[1:] == size:
        return image
    if fit == "resize" or (fit == "auto" and len(size) == 2):
        steps = tuple(old / new for old, new in zip(image.shape[1:], size, strict=True))
        return interpolate(image, size, steps)
    first = [int((old - new) / 2) for old, new in zip(image.shape[1:], size, strict=True)]  # towards 0 on either side
    return cut_box(image, (0, *first), (len(image), *size))


def cut_box(array: np.ndarray, first: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """Return a copy of a box that overlaps an array, filled up with the lowest value where it reaches over the edge.

    Example:
        >>> cut_box(np.array([3, 1, 2]), [1], [4]).tolist()
        [1, 2, 1, 1]
    """
    ends = [start + side for start, side in zip(first, sides, strict=True)]
    inside = tuple(slice(max(start, 0), end) for start, end in zip(first, ends, strict=True))
    margins = [(max(-a, 0), max(b - length, 0)) for a, b, length in zip(first, ends, array.shape, strict=True)]
    return np.pad(array[inside], margins, constant_values=array.min())
