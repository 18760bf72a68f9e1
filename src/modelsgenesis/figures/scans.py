"""Pictures of whole scans: contact sheets, and segmentations over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsgenesis.figures.canvas import blank_figure, middle_slice, save_figure


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
    figure = blank_figure(1.8 * len(titles), 1.9 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, picture in zip(line, (row.stored, row.prepared, *row.patches), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(row.label, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return save_figure(figure, Path(path))


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
    figure = blank_figure(3.6 * len(labels), 3.9)
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    highest = max(int(label.max()) for label in labels)
    for axis, label, name in zip(axes, labels, names, strict=True):
        axis.imshow(middle_slice(image), cmap="gray", vmin=0, vmax=1)
        shown = np.ma.masked_equal(middle_slice(label), 0)
        axis.imshow(shown, cmap="tab10", vmin=1, vmax=max(highest, 10), alpha=0.55, interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
    return save_figure(figure, Path(path))
