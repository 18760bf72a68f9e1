"""Pictures of sub-volumes: restored, and deformed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelsgenesis.figures.canvas import blank_figure, middle_slice, save_figure

_SHOWN = 6


def draw_restorations(
    original: np.ndarray, deformed: np.ndarray, restored: np.ndarray, path: str | Path, *, shown: int = _SHOWN
) -> Path:
    """Draw the middle slices of sub-volumes: a row a sub-volume; original, deformed, restored, and the error.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: Of the same shape.
        restored: Of the same shape.
        path: The PNG to write.
        shown: Rows at most.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = min(shown, len(original))
    figure = blank_figure(8.4, 2.1 * rows + 0.3)
    axes = figure.subplots(rows, 4, squeeze=False)
    for row in range(rows):
        error = np.abs(restored[row, 0] - original[row, 0])
        pictures = [original[row, 0], deformed[row, 0], restored[row, 0], error]
        for axis, picture in zip(axes[row], pictures, strict=True):
            axis.imshow(middle_slice(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("original", "deformed", "restored", "absolute error"), strict=True):
        axis.set_title(title, fontsize=10)
    return save_figure(figure, Path(path))


def draw_deformations(
    original: np.ndarray,
    deformed: Sequence[np.ndarray],
    names: Sequence[str],
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draw what each deformation does: a row a sub-volume; the original, then one column a deformation.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: One array of that shape a deformation.
        names: Their titles.
        path: The PNG to write.
        title: Of the whole.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows, columns = len(original), len(names) + 1
    figure = blank_figure(1.9 * columns, 2.0 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        for axis, batch in zip(axes[row], (original, *deformed), strict=True):
            axis.imshow(middle_slice(batch[row, 0]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    for axis, name in zip(axes[0], ("original", *names), strict=True):
        axis.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return save_figure(figure, Path(path))
