"""DICOM files written byte by byte, so that a test can have any tag wrong."""

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
POSITION, ORIENTATION, SPACING, THICKNESS = 0x00200032, 0x00200037, 0x00280030, 0x00180050
INTERCEPT, SLOPE, FRAMES, PHOTOMETRIC, PADDING = 0x00281052, 0x00281053, 0x00280008, 0x00280004, 0x00280120
SHARED, PER_FRAME = 0x52009229, 0x52009230
_GROUPS = {POSITION: 0x00209113, ORIENTATION: 0x00209116, SPACING: 0x00289110, THICKNESS: 0x00289110}
_GROUPS |= {INTERCEPT: 0x00289145, SLOPE: 0x00289145, 0x00189082: 0x00189114}
_LONG, _BINARY = {"OB", "OW", "SQ", "UN", "UT"}, {"US": "H", "SS": "h", "UL": "I", "FD": "d"}

Element = tuple[int, str, Any]

HOUNSFIELD: tuple[Element, ...] = ((INTERCEPT, "DS", -1024.0), (SLOPE, "DS", 1.0))
"""Rescale intercept and slope of a CT."""


def sequence(tag: int, *items: list[Element]) -> Element:
    """A sequence of items, each a list of elements."""
    return (tag, "SQ", list(items))


def enhanced(*frames: list[Element], shared: list[Element] | None = None) -> tuple[Element, ...]:
    """The elements of a multi-frame file: what holds for each frame and for all, in functional groups."""

    def groups(elements: list[Element]) -> list[Element]:
        items = defaultdict(list)
        for element in elements:
            items[_GROUPS[element[0]]].append(element)
        return [sequence(tag, item) for tag, item in items.items()]

    turned: Element = (ORIENTATION, "DS", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    common = [turned, (SPACING, "DS", (0.5, 0.75))] if shared is None else shared
    per_frame = sequence(PER_FRAME, *map(groups, frames))
    return (FRAMES, "IS", len(frames)), sequence(SHARED, groups(common)), per_frame


def encode(elements: list[Element], syntax: str = EXPLICIT) -> bytes:
    """Encode elements in the order of their tags; a list of bytes is written as compressed pixels are."""
    order = ">" if syntax == BIG else "<"
    content = b""
    for tag, kind, value in sorted(elements, key=lambda element: element[0]):
        data = _value(kind, value, order, syntax)
        data += (b"\0" if kind in ("UI", "OB", "OW", "SQ") else b" ") * (len(data) % 2)
        length = 0xFFFFFFFF if kind == "OB" and isinstance(value, list) else len(data)
        head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + (b"" if syntax == IMPLICIT else kind.encode())
        form = "I" if syntax == IMPLICIT else "HI" if kind in _LONG else "H"
        content += head + struct.pack(order + form, *[0] * (len(form) - 1), length) + data
    return content


def _value(kind: str, value: Any, order: str, syntax: str) -> bytes:
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, (list, tuple)) else [value]
    if kind in ("SQ", "OB"):
        items = [encode(item, syntax) if kind == "SQ" else item + b"\0" * (len(item) % 2) for item in values]
        content = b"".join(struct.pack(order + "HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return content if kind == "SQ" else content + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    if kind in _BINARY:
        return struct.pack(order + _BINARY[kind], value)
    return "\\".join(f"{one:.12g}" if isinstance(one, float) else str(one) for one in values).encode()


def write_dicom(
    path: Path,
    pixels: np.ndarray | None,
    *,
    modality: str = "CT",
    position: tuple[float, float, float] | None = (0.0, 0.0, 0.0),
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    spacing: tuple[float, float] = (0.5, 0.75),
    patient: str = "P1",
    series: str = "1.2.3",
    syntax: str = EXPLICIT,
    kind: str = CT_CLASS,
    pieces: list[bytes] | None = None,
    extra: tuple[Element, ...] = (),
) -> Path:
    """Write a file.

    Args:
        path: The file.
        pixels: 8 or 16 bits, [rows, columns], of uint8 also [rows, columns, 3], or frames of these.
        modality: As the other names a tag of the file; `extra` adds tags or takes their place.
        pieces: Compressed pixels that are written instead.
    """
    elements: list[Element] = [(0x00080016, "UI", kind), (0x00080060, "CS", modality), (0x00100020, "LO", patient)]
    elements += [(0x0020000D, "UI", "1.2"), (0x0020000E, "UI", series), (SPACING, "DS", spacing)]
    if position is not None:
        elements += [(POSITION, "DS", position), (ORIENTATION, "DS", orientation)]
    if pixels is not None:
        colour = pixels.dtype == np.uint8 and pixels.shape[-1] == 3
        rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        bits, signed = 8 * pixels.dtype.itemsize, int(pixels.dtype.kind == "i")
        elements += [(0x00280002, "US", 3 if colour else 1), (PHOTOMETRIC, "CS", "RGB" if colour else "MONOCHROME2")]
        shape = {0x06: 0, 0x10: rows, 0x11: columns, 0x100: bits, 0x101: bits, 0x102: bits - 1, 0x103: signed}
        elements += [(0x00280000 + number, "US", value) for number, value in shape.items()]
        stored = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
        elements.append((0x7FE00010, "OB", [b"", *pieces]) if pieces else (0x7FE00010, "OW", stored))
    meta = encode([(0x00020002, "UI", kind), (0x00020003, "UI", "1.9"), (0x00020010, "UI", syntax)])
    meta = encode([(0x00020000, "UL", len(meta))]) + meta
    body = encode(list({element[0]: element for element in (*elements, *extra)}.values()), syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    return path


def write_series(folder: Path, volume: np.ndarray, *, step: float = 2.0, **tags: Any) -> None:
    """Write slices, uint16 [slices, rows, columns], in names without an order; tags may be functions of the number."""
    start, prefix = tags.pop("start", 0.0), tags.pop("prefix", "IM")
    for number, pixels in enumerate(volume):
        place = {"position": (-10.0, -20.0, start + step * number), "extra": HOUNSFIELD}
        own = {name: value(number) if callable(value) else value for name, value in tags.items()}
        write_dicom(folder / f"{prefix}{(number * 7919) % 1000:04d}", pixels, **{**place, **own})
