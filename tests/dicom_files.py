"""DICOM files written byte by byte, so that a test can have any tag wrong."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

_LONG = {"OB", "OW", "SQ", "UN", "UT"}
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"

Element = tuple[int, str, Any]


def sequence(tag: int, *items: list[Element]) -> Element:
    """A sequence of items, each a list of elements."""
    return (tag, "SQ", list(items))


def encode(elements: list[Element], syntax: str = EXPLICIT) -> bytes:
    """Encode elements in the order of their tags."""
    order = ">" if syntax == BIG else "<"
    content = b""
    for tag, kind, value in sorted(elements, key=lambda element: element[0]):
        data = _value(kind, value, order, syntax)
        data += (b"\0" if kind in ("UI", "OB", "OW", "SQ") else b" ") * (len(data) % 2)
        head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if syntax == IMPLICIT:
            head += struct.pack("<I", len(data))
        elif kind in _LONG:
            head += kind.encode() + struct.pack(order + "HI", 0, len(data))
        else:
            head += kind.encode() + struct.pack(order + "H", len(data))
        content += head + data
    return content


def _value(kind: str, value: Any, order: str, syntax: str) -> bytes:
    if kind == "SQ":
        items = [encode(item, syntax) for item in value]
        return b"".join(struct.pack(order + "HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if kind == "US":
        return struct.pack(order + "H", value)
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, (list, tuple)) else [value]
    return "\\".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values).encode()


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
    instance: str = "",
    syntax: str = EXPLICIT,
    extra: tuple[Element, ...] = (),
) -> Path:
    """Write a file; `pixels` are uint16 [rows, columns] or uint8 [rows, columns, 3], or frames of these."""
    elements: dict[int, Element] = {}

    def put(tag: int, kind: str, value: Any) -> None:
        elements[tag] = (tag, kind, value)

    put(0x00080016, "UI", CT_CLASS)
    put(0x00080018, "UI", instance)
    put(0x00080060, "CS", modality)
    put(0x00100020, "LO", patient)
    put(0x0020000D, "UI", "1.2")
    put(0x0020000E, "UI", series)
    put(0x00280030, "DS", spacing)
    if position is not None:
        put(0x00200032, "DS", position)
        put(0x00200037, "DS", orientation)
    if pixels is not None:
        colour = pixels.dtype == np.uint8 and pixels.shape[-1] == 3
        size = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        bits = 8 * pixels.dtype.itemsize
        put(0x00280002, "US", 3 if colour else 1)
        put(0x00280004, "CS", "RGB" if colour else "MONOCHROME2")
        put(0x00280006, "US", 0)
        put(0x00280010, "US", size[0])
        put(0x00280011, "US", size[1])
        put(0x00280100, "US", bits)
        put(0x00280101, "US", bits)
        put(0x00280102, "US", bits - 1)
        put(0x00280103, "US", int(pixels.dtype.kind == "i"))
        order = ">" if syntax == BIG else "<"
        put(0x7FE00010, "OW", pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
    for tag, kind, value in extra:
        put(tag, kind, value)
    meta = encode([(0x00020002, "UI", CT_CLASS), (0x00020003, "UI", instance or "1.9"), (0x00020010, "UI", syntax)])
    meta = encode([(0x00020000, "UL", struct.pack("<I", len(meta)))]) + meta
    body = encode(list(elements.values()), syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    return path


HOUNSFIELD: tuple[Element, ...] = ((0x00281052, "DS", -1024.0), (0x00281053, "DS", 1.0))
"""Rescale intercept and slope of a CT."""


def write_series(
    folder: Path, volume: np.ndarray, *, step: float = 2.0, skip: tuple[int, ...] = (), **tags: Any
) -> None:
    """Write a series of slices, uint16 [slices, rows, columns], under names without an order."""
    start = tags.pop("start", 0.0)
    prefix = tags.pop("prefix", "IM")
    for number, pixels in enumerate(volume):
        if number not in skip:
            position = (-10.0, -20.0, start + step * number)
            name = f"{prefix}{(number * 7919) % 1000:04d}"
            write_dicom(folder / name, pixels, **{"position": position, "extra": HOUNSFIELD, **tags})
