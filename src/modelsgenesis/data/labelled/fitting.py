"""Bringing an image to classify to the sides that a network was made for."""

from typing import Literal

import numpy as np

from modelsgenesis.data.resampling import interpolate
from modelsgenesis.errors import ShapeError

Fit = Literal["auto", "resize", "crop"]


def fit_image(image: np.ndarray, size: tuple[int, ...], fit: Fit = "auto") -> np.ndarray:
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
        >>> fit_image(np.ones((1, 256, 200), np.float32), (128, 128)).shape
        (1, 128, 128)
    """
    if image.ndim != len(size) + 1:
        raise ShapeError(f"image of shape {image.shape}: expected [channels, {len(size)} spatial axes]")
    if image.shape[1:] == size:
        return image
    if fit == "resize" or (fit == "auto" and len(size) == 2):
        steps = tuple(old / new for old, new in zip(image.shape[1:], size, strict=True))
        return interpolate(image, size, steps)
    return _centred(image, size)


def _centred(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Cut or pad around the centre."""
    result = np.full((len(image), *size), image.min(), np.float32)
    source, target = [slice(None)], [slice(None)]
    for old, new in zip(image.shape[1:], size, strict=True):
        side = min(old, new)
        source.append(slice((old - side) // 2, (old - side) // 2 + side))
        target.append(slice((new - side) // 2, (new - side) // 2 + side))
    result[tuple(target)] = image[tuple(source)]
    return result
