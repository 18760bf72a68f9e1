"""What people see of a prediction without opening it: a picture beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from modelsgenesis.data import Volume
from modelsgenesis.data.predictions import OWN
from modelsgenesis.errors import DataError, printable
from modelsgenesis.figures.colours import RGB, colours
from modelsgenesis.figures.pictures import LEFT, outlines
from modelsgenesis.files import replacing
from modelsgenesis.reports.cases import slices_of

_SIDE, _GAP, _LINE, _ENTRY = 360, 12, 24, 300  # pixels: of a slice, between things, of a line of text and its width
_GROUND, _INK, _SOFT = (18, 23, 28), (232, 237, 241), (169, 183, 195)


class Entry(NamedTuple):
    """A line of a legend: what it says, its colour where it has one, and whether it stands out."""

    text: str
    colour: RGB | None = None
    bold: bool = False


def draw_preview(
    path: Path, title: str, scan: Volume, legend: Sequence[Entry], labels: np.ndarray | None = None, count: int = 0
) -> Path:
    """Draw a scan with its label map, if it has one: three planes through the largest structure, or the picture.

    Args:
        path: The PNG.
        title: A line above all.
        scan: The scan, or one of its channels.
        legend: Lines below.
        labels: Class indices on the scan's grid.
        count: Structures of the model, so that each has its colour whichever are there.

    Raises:
        DataError: The file cannot be written.
    """
    views, arrays = slices_of({"scan": scan}, {} if labels is None else {"predicted": replace(scan, array=labels)})
    pictures: dict[str, Image.Image] = {}
    for number, view in enumerate(views):
        stacks = (arrays.get(f"{number}/{name}") for name in ("scan", "predicted"))
        picture, structures = (None if stack is None else stack[len(stack) // 2] for stack in stacks)
        shown = {"count": count, "spacing": tuple(view["spacing"]), "side": _SIDE, "fill": 0.25}
        pictures[view["plane"]] = outlines(np.asarray(picture), structures, **shown)
    width = max(sum(one.width + _GAP for one in pictures.values()) + _GAP, _ENTRY + 2 * _GAP)
    columns, height = max(width // _ENTRY, 1), max(one.height for one in pictures.values())
    rows, top = -(-len(legend) // columns), 3 * _GAP + 2 * _LINE
    sheet = Image.new("RGB", (width, top + height + _GAP + rows * _LINE + _GAP), _GROUND)
    draw, left = ImageDraw.Draw(sheet), _GAP
    _write(draw, (_GAP, _GAP), title, width - 2 * _GAP, bold=True)
    for plane, one in pictures.items():
        _write(draw, (left, _GAP + _LINE), plane if len(pictures) > 1 else "", one.width, colour=_SOFT)
        sheet.paste(one, (left, top - _GAP + (height - one.height) // 2))
        side = LEFT.get(plane, "")[:1].upper()  # R of right, A of anterior
        _write(draw, (left + 4, top - _GAP + (height - _LINE) // 2), side, _LINE, bold=True)
        left += one.width + _GAP
    for number, entry in enumerate(legend):
        x, y = _GAP + number // rows * ((width - _GAP) // columns), top + height + number % rows * _LINE
        indent = 24 if entry.colour else 0
        if entry.colour:
            draw.rectangle((x, y + 3, x + 14, y + 17), entry.colour, _INK)
        _write(draw, (x + indent, y), entry.text, (width - _GAP) // columns - indent - _GAP, bold=entry.bold)
    about = PngInfo()
    about.add_text("Software", OWN)
    with replacing(path, DataError, suffix=".png") as temporary:
        sheet.save(temporary, pnginfo=about)
    return path


def structure_legend(labels: Sequence[str], sizes: Mapping[str, str]) -> list[Entry]:
    """Return the legend of a segmentation: the structures that were found, in their colours.

    Args:
        labels: Of the model, the background first.
        sizes: What is said of the size of each structure that was found.
    """
    shades = zip(labels[1:], colours(len(labels) - 1), strict=True)
    entries = [Entry(f"{name}: {sizes[name]}", colour) for name, colour in shades if name in sizes]
    return entries or [Entry("no structure was found", bold=True)]


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: float,
    *,
    bold: bool = False,
    colour: RGB = _INK,
) -> None:
    """Write a line, cut to a width."""
    found = find_spec("matplotlib")  # whose font has the letters of Europe; it is found, and not imported
    folder = Path(((found and found.submodule_search_locations) or [""])[0]) / "mpl-data" / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), 15)
    said = printable(text)
    while said and font.getlength(said) > width:
        said = f"{said[: -2 if said.endswith('…') else -1]}…"
    draw.text(place, said, colour, font)
