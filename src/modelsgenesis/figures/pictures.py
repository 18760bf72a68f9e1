"""Pictures of scans and patches, drawn by Pillow alone: milliseconds, so that a run can draw at each validation."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelsgenesis.errors import ShapeError

_SHOWN = 6
_SIDE = 150  # pixels of a picture's longer side, at least
_GAP, _LINE = 6, 22  # pixels between pictures, and of a line of text
_RESTORATION = ("original", "deformed", "restored", "absolute error")


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
    original: np.ndarray,
    deformed: np.ndarray,
    restored: np.ndarray,
    path: str | Path,
    *,
    title: str = "",
    shown: int = _SHOWN,
) -> Path:
    """Draw the middle slices of patches: a row per patch; original, deformed, restored, and the error.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: [n, 1, *patch].
        restored: [n, 1, *patch].
        path: The PNG to write.
        title: A line above all.
        shown: Rows at most.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    batches = (original, deformed, restored, np.abs(restored - original))
    rows = [[middle_slice(batch[index, 0]) for batch in batches] for index in range(min(shown, len(original)))]
    return draw_pictures(rows, _RESTORATION, path, title=title)


def draw_deformations(
    original: np.ndarray, deformed: Sequence[np.ndarray], names: Sequence[str], path: str | Path, *, title: str
) -> Path:
    """Draw what each deformation does: a row per patch; the original, then one column per deformation.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: One array of that shape per deformation.
        names: Their titles.
        path: The PNG to write.
        title: A line above all.

    Returns:
        The path.
    """
    rows = [[middle_slice(batch[index, 0]) for batch in (original, *deformed)] for index in range(len(original))]
    return draw_pictures(rows, ("original", *names), path, title=title)


def draw_pictures(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
    labels: Sequence[str] = (),
) -> Path:
    """Draw grey pictures as a table on white.

    Args:
        rows: Pictures [height, width] in [0, 1]; each is enlarged or shrunk to its cell, in its own proportions.
        columns: A heading per column.
        path: The PNG to write; its folder is made.
        title: A line above all.
        labels: A text per row, on its left; a sheet may be shown to others, so no name of a patient.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    title, columns, labels = _plain(title), [*map(_plain, columns)], [*map(_plain, labels)]
    # Enlarged by whole numbers, the voxels of a small patch stay squares; a whole scan is shrunk to fit beside it.
    sides = np.array(rows[0][-1].shape)
    height, width = (sides * max(1, -(-_SIDE // sides.max()))).tolist()
    left = (_SIDE if any(labels) else 0) + _GAP
    top = _LINE * (2 if title else 1) + _GAP
    size = (left + len(columns) * (width + _GAP), top + len(rows) * (height + _GAP))
    table = Image.new("L", size, color=255)
    draw = ImageDraw.Draw(table)
    draw.text((size[0] / 2, _GAP), title, fill=0, anchor="mt", font=_font(title, size[0] - 2 * _GAP))
    for column, name in enumerate(columns):
        middle = left + column * (width + _GAP) + width / 2
        draw.text((middle, top - 2 * _GAP), name, fill=0, anchor="ms", font=_font(name, width))
        for row, pictures in enumerate(rows):
            picture, y = pictures[column], top + row * (height + _GAP)
            scale = min(height / picture.shape[0], width / picture.shape[1])
            shown = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
            levels = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
            place = (round(middle - shown[0] / 2), y + (height - shown[1]) // 2)
            table.paste(levels.resize(shown, Image.Resampling.NEAREST), place)
    for row, label in enumerate(labels):
        draw.multiline_text((_GAP, top + row * (height + _GAP)), label, fill=0, font=_font("", _SIDE))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return path


def _font(text: str, width: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the largest of Pillow's own fonts, up to 14 pixels, in which a text is no wider than that."""
    sizes = (ImageFont.load_default(size) for size in (14, 12, 10, 8))
    return next((font for font in sizes if font.getlength(text) <= width), ImageFont.load_default(8))


def _plain(text: str) -> str:
    """Return a text in the letters that Pillow's own font has, which draws an empty box for any other."""
    text = unicodedata.normalize("NFKD", text.translate({ord("×"): "x", ord("−"): "-", ord("–"): "-"}))
    return "".join(one if one.isascii() else "?" for one in text if not unicodedata.combining(one))
