"""Pictures of scans, patches and label maps, drawn by Pillow alone."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelsgenesis.errors import ShapeError
from modelsgenesis.figures.colours import colours

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The planes of a volume, each with the axis of an array [x, y, z] in RAS that it is perpendicular to."""

LEFT = {"axial": "right", "coronal": "right", "sagittal": "anterior"}
"""What of a patient is on the left of a slice of each plane, as `take_slice` cuts it."""

_SIDE = 150  # pixels of a picture's longer side, at least
_GAP, _LINE = 6, 22  # pixels between pictures, and of a line of text
_PLAIN = {ord("×"): "x", ord("−"): "-", ord("–"): "-"}  # Pillow's own fonts draw an empty box for them
_WIDTH, _DASH = 2, 5  # pixels: of an outline, and of a dash and the gap after it


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
    return array if array.ndim == 2 else take_slice(array, 2, array.shape[2] // 2)


def take_slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Return a slice of a volume as radiologists see it: head or front up, the patient's right on the left.

    Args:
        volume: [x, y, z], in RAS.
        axis: The axis that the slice is perpendicular to; `PLANES` names them.
        index: Where along it.

    Returns:
        [rows, columns]; of a sagittal slice the front is on the left.
    """
    # RAS: x grows to the patient's right hand in storage order, y to the front, z to the head.
    return volume.take(index, axis=axis).T[::-1, ::-1]


def plane_title(plane: str) -> str:
    """Return what a slice is called: its plane, and which side is where; a picture of no plane keeps its name.

    Example:
        >>> plane_title("axial")
        'axial, right on the left'
    """
    return f"{plane}, {LEFT[plane]} on the left" if plane in LEFT else plane


def outlines(
    picture: np.ndarray,
    solid: np.ndarray | None = None,
    dashed: np.ndarray | None = None,
    *,
    count: int = 0,
    spacing: tuple[float, float] = (1.0, 1.0),
    side: int = 320,
    fill: float = 0.0,
) -> Image.Image:
    """Draw a slice in grey with the outlines of one or two label maps, each structure in its colour.

    Where both agree the solid line shows through the gaps of the dashes, which are lighter.

    Args:
        picture: [rows, columns] in [0, 1], or uint8.
        solid: [rows, columns]: the truth, or the only map; 0 is background, structures count from 1.
        dashed: [rows, columns]: the prediction beside a truth.
        count: Structures of the data set, so that each has its colour whichever are in this slice.
        spacing: Millimetres between rows and between columns: the slice is drawn in its true proportions.
        side: Pixels of the longer side.
        fill: Opacity of what the solid lines enclose, in [0, 1].

    Returns:
        An RGB picture.

    Raises:
        ShapeError: A label map has another shape than the picture.

    Example:
        >>> square = np.zeros((8, 8), dtype=np.uint8)
        >>> square[2:6, 2:6] = 1
        >>> outlines(np.zeros((8, 8)), square, spacing=(2.0, 1.0), side=64).size
        (32, 64)
    """
    maps = [one for one in (solid, dashed) if one is not None]
    for one in maps:
        if one.shape != picture.shape:
            raise ShapeError(f"label map of shape {one.shape}: expected {picture.shape}, that of the picture")
    lengths = np.array(picture.shape) * spacing
    height, width = np.maximum((lengths * side / lengths.max()).round(), 1).astype(int).tolist()
    grey = picture if picture.dtype == np.uint8 else (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    levels = Image.fromarray(np.ascontiguousarray(grey))
    drawn = np.array(levels.resize((width, height), Image.Resampling.BILINEAR).convert("RGB"))
    palette = np.array([(0, 0, 0), *colours(max([count, *(int(one.max(initial=0)) for one in maps)]))], float)
    # Enlarged to the nearest voxel, so that a line runs where the label map changes.
    place = np.ix_(np.arange(height) * picture.shape[0] // height, np.arange(width) * picture.shape[1] // width)
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    if solid is not None:
        large = solid[place]
        if fill:
            drawn[large > 0] = (1 - fill) * drawn[large > 0] + fill * palette[large[large > 0]]
        line = _edge(large, 0) | _edge(large, 1)
        lines.append((line, palette[large[line]]))
    if dashed is not None:
        large, (y, x) = dashed[place], np.ogrid[:height, :width]
        # Lines from left to right are cut along x, those from top to bottom along y: every direction has gaps.
        line = (_edge(large, 0) & (x // _DASH % 2 == 0)) | (_edge(large, 1) & (y // _DASH % 2 == 0))
        lines.append((line, ((palette[large[line]] + 255) / 2).round()))
    every = np.any([np.zeros((height, width), bool), *(line for line, _ in lines)], axis=0)
    rim = np.pad(every, 1)
    rim = rim[:-2] | rim[1:-1] | rim[2:]
    rim = rim[:, :-2] | rim[:, 1:-1] | rim[:, 2:]
    drawn[rim] //= 2  # a dark rim, so that a line is seen on bright tissue too
    for line, shades in lines:
        drawn[line] = shades
    return Image.fromarray(drawn)


def _edge(labels: np.ndarray, axis: int) -> np.ndarray:
    """Return where a structure has another one, the background, or the picture's border near along an axis."""
    steps = [step for step in range(-_WIDTH, _WIDTH + 1) if step]
    padded = np.pad(labels, [(_WIDTH, _WIDTH) if one == axis else (0, 0) for one in range(2)])
    near = (padded.take(range(_WIDTH + step, _WIDTH + step + labels.shape[axis]), axis=axis) for step in steps)
    return (labels > 0) & np.any([one != labels for one in near], axis=0)


def draw_restorations(
    original: np.ndarray, deformed: np.ndarray, restored: np.ndarray, path: str | Path, *, title: str = ""
) -> Path:
    """Draw the middle slices of at most six patches: a row per patch; original, deformed, restored, and the error.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: [n, 1, *patch].
        restored: [n, 1, *patch].
        path: The PNG to write.
        title: A line above all.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    patches = zip(original, deformed, restored, np.abs(restored - original), strict=True)
    rows = [[middle_slice(patch[0]) for patch in row] for row in patches]
    return draw_pictures(rows[:6], ("original", "deformed", "restored", "absolute error"), path, title=title)


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
    # Enlarged by whole numbers, the voxels of a small patch stay squares; a whole scan is shrunk to fit beside it.
    sides = np.array(rows[0][-1].shape)
    height, width = (sides * max(1, -(-_SIDE // sides.max()))).tolist()
    left, top = (_SIDE if any(labels) else 0) + _GAP, _LINE * (2 if title else 1) + _GAP
    table = Image.new("L", (left + len(columns) * (width + _GAP), top + len(rows) * (height + _GAP)), color=255)
    # Each text has a place, an anchor, and a width that it should not exceed.
    texts: list[tuple[str, float, float, str | None, float]]
    texts = [(label, _GAP, top + row * (height + _GAP), None, np.inf) for row, label in enumerate(labels)]
    texts.append((title, table.width / 2, _GAP, "mt", table.width - 2 * _GAP))
    for column, name in enumerate(columns):
        middle = left + column * (width + _GAP) + width / 2
        texts.append((name, middle, top - 2 * _GAP, "ms", width))
        for row, pictures in enumerate(rows):
            picture, y = pictures[column], top + row * (height + _GAP)
            scale = min(height / picture.shape[0], width / picture.shape[1])
            shown = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
            levels = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
            place = (round(middle - shown[0] / 2), y + (height - shown[1]) // 2)
            table.paste(levels.resize(shown, Image.Resampling.NEAREST), place)
    for text, x, y, anchor, most in texts:
        said = unicodedata.normalize("NFKD", text.translate(_PLAIN))
        said = "".join(one if one.isascii() else "?" for one in said if not unicodedata.combining(one))
        fonts = [ImageFont.load_default(size) for size in (14, 12, 10, 8)]
        font = next((one for one in fonts if one.getlength(said) <= most), fonts[-1])
        ImageDraw.Draw(table).text((x, y), said, fill=0, anchor=anchor, font=font)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return path
