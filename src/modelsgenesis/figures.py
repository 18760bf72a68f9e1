"""Pictures of restorations, deformations and curves. Arrays in, PNG files out; needs the extra `report`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.errors import MissingExtraError, ShapeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 6


def _figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing a figure", "report") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> Path:
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
    figure = _figure(8.4, 2.1 * rows + 0.3)
    axes = figure.subplots(rows, 4, squeeze=False)
    for row in range(rows):
        error = np.abs(restored[row, 0] - original[row, 0])
        pictures = [original[row, 0], deformed[row, 0], restored[row, 0], error]
        for axis, picture in zip(axes[row], pictures, strict=True):
            axis.imshow(middle_slice(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("original", "deformed", "restored", "absolute error"), strict=True):
        axis.set_title(title, fontsize=10)
    return _save(figure, Path(path))


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
    figure = _figure(1.9 * columns, 2.0 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        for axis, batch in zip(axes[row], (original, *deformed), strict=True):
            axis.imshow(middle_slice(batch[row, 0]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    for axis, name in zip(axes[0], ("original", *names), strict=True):
        axis.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return _save(figure, Path(path))


@dataclass(frozen=True, kw_only=True, eq=False)
class ContactRow:
    """A scan on a contact sheet; pictures are [rows, columns] in [0, 1].

    Attributes:
        label: What to call it; a sheet may be shown to others, so no name of a patient.
        stored: A slice as it is in the file.
        prepared: A slice as a network sees it.
        patches: A slice of a sub-volume, then the same slice under each deformation.
    """

    label: str
    stored: np.ndarray
    prepared: np.ndarray
    patches: tuple[np.ndarray, ...]


def draw_contact_sheet(rows: Sequence[ContactRow], titles: Sequence[str], path: str | Path) -> Path:
    """Draw scans one below the other: as stored, as prepared, a sub-volume and its deformations.

    Args:
        rows: The scans.
        titles: One a column.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(1.8 * len(titles), 1.9 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, picture in zip(line, (row.stored, row.prepared, *row.patches), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(row.label, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return _save(figure, Path(path))


def draw_segmentations(image: np.ndarray, labels: Sequence[np.ndarray], names: Sequence[str], path: str | Path) -> Path:
    """Draw a scan's middle slice with each of several segmentations over it.

    Args:
        image: [*spatial] in [0, 1].
        labels: Class indices of that shape, 0 for the background.
        names: One title a segmentation.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(3.6 * len(labels), 3.9)
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    highest = max(int(label.max()) for label in labels)
    for axis, label, name in zip(axes, labels, names, strict=True):
        axis.imshow(middle_slice(image), cmap="gray", vmin=0, vmax=1)
        shown = np.ma.masked_equal(middle_slice(label), 0)
        axis.imshow(shown, cmap="tab10", vmin=1, vmax=max(highest, 10), alpha=0.55, interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
    return _save(figure, Path(path))


def draw_curve(log: str | Path, validation: str | Path, path: str | Path) -> Path:
    """Draw a run's training loss and, in panels of their own, what its validations measured.

    Args:
        log: `log.csv` of the run.
        validation: `validation.csv` of the run.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    steps, measured = _columns(Path(log)), _columns(Path(validation))
    losses = {name: values for name, values in measured.items() if name.endswith("loss")}
    others = {name: values for name, values in measured.items() if name not in losses and name != "step"}
    figure = _figure(9 if others else 6, 3.6)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    axes[0].plot(steps["step"], steps["loss"], color="0.75", linewidth=0.8, label="training, each step")
    for name, values in losses.items():
        style = "-o" if name == "restoration_loss" else "--"
        axes[0].plot(measured["step"], values, style, markersize=3, label=name.replace("_", " "))
    if all(value > 0 for value in steps["loss"]):
        axes[0].set_yscale("log")
    for name, values in others.items():
        axes[-1].plot(measured["step"], values, "-o", markersize=3, label=name.replace("_", " "))
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return _save(figure, Path(path))


def _columns(path: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV of numbers; a file that is not there has none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}
