"""Moving an array between grids of the same field of view, an axis at a time."""

import numpy as np


def resampled_shape(shape: tuple[int, ...], spacing: tuple[float, ...], wanted: tuple[float, ...]) -> tuple[int, ...]:
    """Return how many voxels of the wanted size cover the field of view, at least 1 along each axis.

    Example:
        >>> resampled_shape((512, 512, 133), (0.7, 0.7, 2.5), (1.0, 1.0, 2.5))
        (358, 358, 133)
    """
    return tuple(max(1, round(side * old / new)) for side, old, new in zip(shape, spacing, wanted, strict=True))


def source_positions(length: int, new_length: int, step: float) -> np.ndarray:
    """Return where the new voxels' centres lie, in old voxels; both grids share their centre.

    Args:
        length: Voxels of the old grid.
        new_length: Voxels of the new one.
        step: New voxel size over old.

    Example:
        >>> source_positions(4, 2, 2.0).tolist()
        [0.5, 2.5]
    """
    return (np.arange(new_length) - (new_length - 1) / 2) * step + (length - 1) / 2


def interpolate(array: np.ndarray, shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """Interpolate linearly along the last axes, averaging over the new voxel where it is larger than the old.

    Args:
        array: [..., *spatial], float32.
        shape: [*new spatial].
        steps: New voxel size over old, an axis each.

    Returns:
        [..., *new spatial], float32, within the range of the input.
    """
    first = array.ndim - len(shape)
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[first + axis])
    for axis in order:  # what shrinks comes first, so that the others have less to do
        if steps[axis] != 1 or shape[axis] != array.shape[first + axis]:
            weights = _weights(array.shape[first + axis], shape[axis], steps[axis])
            array = np.moveaxis(np.tensordot(array, weights, axes=(first + axis, 1)), -1, first + axis)
    return np.ascontiguousarray(array, dtype=np.float32)


def nearest(array: np.ndarray, shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """Take the nearest voxel along the last axes; see `interpolate` for the arguments."""
    first = array.ndim - len(shape)
    for axis, (side, step) in enumerate(zip(shape, steps, strict=True)):
        length = array.shape[first + axis]
        index = np.clip(np.rint(source_positions(length, side, step)), 0, length - 1).astype(np.intp)
        if side != length or step != 1:
            array = np.take(array, index, axis=first + axis)
    return np.ascontiguousarray(array)


def _weights(length: int, new_length: int, step: float) -> np.ndarray:
    """Return [new, old] weights: a triangle as wide as the larger voxel, each row adding up to 1."""
    width = max(step, 1.0)
    centres = np.clip(source_positions(length, new_length, step), 0, length - 1)
    weights = np.maximum(0.0, 1 - np.abs(np.arange(length) - centres[:, None]) / width)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
