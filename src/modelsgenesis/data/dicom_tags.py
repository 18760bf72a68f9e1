"""The data elements of a DICOM file, walked without decoding its pixels.

A walk tells in a fraction of a millisecond what a file is, and proves that every length fits the file before
a decoder trusts it: a damaged length makes decoders ask for gigabytes.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

from modelsgenesis.errors import ScanError, UnreadableScanError

Tags = dict[int, Any]
"""Values by tag: bytes, or a list of such mappings for a sequence."""

PIXELS = 0x7FE00010
_ORDER = 0  # no element has this tag: the byte order is kept here
_TRANSFER_SYNTAX = 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_IMPLICIT, _BIG, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {
    b"AE",
    b"AS",
    b"AT",
    b"CS",
    b"DA",
    b"DS",
    b"DT",
    b"FL",
    b"FD",
    b"IS",
    b"LO",
    b"LT",
    b"PN",
    b"SH",
    b"SL",
}
_SHORT |= {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_DEPTH = 16  # of sequences in sequences
_KEPT = 2**16  # bytes of a value that is kept


def is_dicom(path: Path) -> bool:
    """Tell a DICOM file by its content: the magic word, or a first element that can only be DICOM's.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    return start[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x02\x00\x00\x00")


def read_tags(path: Path) -> Tags:
    """Return the elements of a file up to its pixels; those are told by their length in bytes, an int.

    Raises:
        UnreadableScanError: An element reaches over the end of the file, or its structure is none of DICOM's.
        ScanError: The whole file is deflated, which no scanner writes.
    """
    if path.stat().st_size < 16:
        raise UnreadableScanError(f"{path}: {path.stat().st_size} bytes; expected a DICOM file, it is truncated")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Walk(data, path).file()
        except (struct.error, IndexError) as error:
            raise UnreadableScanError(f"{path}: ends within an element; it is truncated, copy it again") from error


class _Walk:
    """A position in a file that moves from element to element."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path = data, path
        self.position = 132 if data[128:132] == b"DICM" else 0
        self.order, self.explicit = "<", True

    def file(self) -> Tags:
        """Walk the meta information, always explicit and little-endian, then the data set."""
        tags: Tags = {}
        while self.data[self.position : self.position + 2] == b"\x02\x00":
            tag, value = self.element(0)
            tags[tag] = value
        syntax = tags.get(_TRANSFER_SYNTAX, b"").strip(b"\0 ")
        if syntax == _DEFLATED:
            raise ScanError(f"{self.path}: is deflated as a whole; expected another transfer syntax, export it again")
        if syntax:
            self.explicit, self.order = syntax != _IMPLICIT, ">" if syntax == _BIG else "<"
        else:
            self.explicit = self.data[self.position + 4 : self.position + 6] in _LONG | _SHORT
        tags[_ORDER] = self.order
        while self.position < len(self.data) - 8 and PIXELS not in tags:
            tag, value = self.element(0)
            tags[tag] = value
        return tags

    def element(self, depth: int) -> tuple[int, Any]:
        """Return a tag and its value, and move behind it."""
        group, number = struct.unpack_from(self.order + "HH", self.data, self.position)
        tag = group << 16 | number
        kind, length = self.length(tag)
        if tag == PIXELS:
            return tag, self.pixels(length)
        if kind == b"SQ" or (length == _UNDEFINED and kind in (b"UN", b"")):
            return tag, self.sequence(length, depth + 1, implicit=kind == b"UN")
        self.check(length)
        value = self.data[self.position : self.position + length] if length <= _KEPT else b""
        self.position += length
        return tag, value

    def length(self, tag: int) -> tuple[bytes, int]:
        """Return the kind of value and its length, and move to the value; implicit files tell no kind."""
        start = self.position
        if tag >> 16 == 0xFFFE or not self.explicit:
            self.position += 8
            return b"", struct.unpack_from(self.order + "I", self.data, start + 4)[0]
        kind = self.data[start + 4 : start + 6]
        if kind in _LONG:
            self.position += 12
            return kind, struct.unpack_from(self.order + "I", self.data, start + 8)[0]
        if kind not in _SHORT:
            raise UnreadableScanError(f"{self.path}: element {_shown(tag)} has no known type; it is damaged")
        self.position += 8
        return kind, struct.unpack_from(self.order + "H", self.data, start + 6)[0]

    def sequence(self, length: int, depth: int, *, implicit: bool) -> list[Tags]:
        """Return the items of a sequence."""
        if depth > _DEPTH:
            raise UnreadableScanError(f"{self.path}: sequences nest over {_DEPTH} deep; it is damaged")
        before = self.explicit
        self.explicit = before and not implicit  # a sequence of unknown type is written without types
        end = self.end(length)
        items = []
        while self.position < end:
            tag, size = self.item()
            if tag == _SEQUENCE_END:
                break
            items.append(self.tags(self.end(size), depth))
        self.explicit = before
        return items

    def tags(self, end: int, depth: int) -> Tags:
        """Return the elements of an item."""
        tags: Tags = {}
        while self.position < end:
            tag, value = self.item_end() or self.element(depth)
            if tag == _ITEM_END:
                break
            tags[tag] = value
        return tags

    def item(self) -> tuple[int, int]:
        """Return the tag and length of an item, or of a sequence's end."""
        group, number, length = struct.unpack_from(self.order + "HHI", self.data, self.position)
        tag = group << 16 | number
        if tag not in (_ITEM, _SEQUENCE_END):
            raise UnreadableScanError(f"{self.path}: a sequence holds {_shown(tag)}; expected items, it is damaged")
        self.position += 8
        return tag, length

    def item_end(self) -> tuple[int, None] | None:
        """Move behind the end of an item of undefined length, if there."""
        group, number = struct.unpack_from(self.order + "HH", self.data, self.position)
        if group << 16 | number != _ITEM_END:
            return None
        self.position += 8
        return _ITEM_END, None

    def pixels(self, length: int) -> int:
        """Return the bytes of the pixels, raw or in compressed fragments."""
        if length != _UNDEFINED:
            self.check(length)
            return length
        total = 0
        while True:
            tag, size = self.item()
            if tag == _SEQUENCE_END:
                return total
            self.check(size)
            self.position += size
            total += size

    def end(self, length: int) -> int:
        """Return where a sequence or item of a length ends; the end of the file for an undefined one."""
        if length == _UNDEFINED:
            return len(self.data)
        self.check(length)
        return self.position + length

    def check(self, length: int) -> None:
        """Refuse a length that reaches over the end of the file."""
        if self.position + length > len(self.data):
            raise UnreadableScanError(
                f"{self.path}: an element of {length} bytes, {len(self.data) - self.position} are left; it "
                "is truncated or damaged, copy it again"
            )


def text(tags: Tags, tag: int) -> str:
    """Return a value as text, empty where there is none."""
    value = tags.get(tag, b"")
    return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else ""


def numbers(tags: Tags, tag: int) -> list[float]:
    """Return the numbers of a decimal string, empty where there is none or it is no number."""
    try:
        return [float(part) for part in text(tags, tag).split("\\") if part.strip()]
    except ValueError:
        return []


def integer(tags: Tags, tag: int, default: int = 0) -> int:
    """Return an unsigned short."""
    value = tags.get(tag, b"")
    order = "big" if tags.get(_ORDER) == ">" else "little"
    return int.from_bytes(value[:2], order) if isinstance(value, bytes) and len(value) >= 2 else default


def _shown(tag: int) -> str:
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
