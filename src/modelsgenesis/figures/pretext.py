"""Pictures of sub-volumes: restored, and deformed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelsgenesis.figures.canvas import blank_figure, middle_slice, save_figure

_SHOWN = 6
_SIDE = 150  # pixels of a picture's longer side, at least
_GAP, _LINE = 6, 22  # pixels between pictures, and of a line of text
_COLUMNS = ("original", "deformed", "restored", "absolute error")


def draw_restorations(
    original: np.ndarray,
    deformed: np.ndarray,
    restored: np.ndarray,
    path: str | Path,
    *,
    title: str = "",
    shown: int = _SHOWN,
) -> Path:
    """Draw the middle slices of sub-volumes: a row a sub-volume; original, deformed, restored, and the error.

    It takes milliseconds and no optional library, so that a run can draw at each validation.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: Of the same shape.
        restored: Of the same shape.
        path: The PNG to write.
        title: A line above all.
        shown: Rows at most.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    rows = []
    for index in range(min(shown, len(original))):
        batch = [one[index, 0] for one in (original, deformed, restored)]
        rows.append([middle_slice(picture) for picture in (*batch, np.abs(batch[2] - batch[0]))])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _mosaic(rows, _COLUMNS, title).save(path)
    return path


def _mosaic(rows: Sequence[Sequence[np.ndarray]], columns: Sequence[str], title: str) -> Image.Image:
    """Return pictures of [height, width] in [0, 1] as a table on white, with a heading for each column."""
    height, width = rows[0][0].shape
    scale = max(1, -(-_SIDE // max(height, width)))
    height, width = height * scale, width * scale
    top = _LINE * (2 if title else 1) + _GAP
    size = (len(columns) * (width + _GAP) + _GAP, top + len(rows) * (height + _GAP))
    mosaic = Image.new("L", size, color=255)
    draw = ImageDraw.Draw(mosaic)
    if title:
        draw.text((size[0] / 2, _GAP), title, fill=0, anchor="mt", font=_font(title, size[0] - 2 * _GAP))
    for column, name in enumerate(columns):
        left = _GAP + column * (width + _GAP)
        draw.text((left + width / 2, top - 2 * _GAP), name, fill=0, anchor="ms", font=_font(name, width))
        for row, pictures in enumerate(rows):
            levels = (np.clip(pictures[column], 0, 1) * 255).round().astype(np.uint8)
            picture = Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST)
            mosaic.paste(picture, (left, top + row * (height + _GAP)))
    return mosaic


def _font(text: str, width: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the largest of Pillow's own fonts, up to 14 pixels, in which a text is no wider than that."""
    sizes = (ImageFont.load_default(size) for size in (14, 12, 10, 8))
    return next((font for font in sizes if font.getlength(text) <= width), ImageFont.load_default(8))


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
