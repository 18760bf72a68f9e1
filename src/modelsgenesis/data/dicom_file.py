"""A DICOM file: what it says of each frame, and the frame's values.

SimpleITK (GDCM) decodes pixels, but it neither tells what the functional groups of an enhanced file say of a frame nor
rescales each by its own numbers. So the elements that this package asks for are walked here, within limits. pydicom
would make objects of all elements: 2,000 frames take it 2.1 s and 16 MB of empty items two minutes and 1.4 GB; here
0.15 s and 3 s, and every length is checked against the file before it is used.
"""

import math
import mmap
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.itk import simpleitk
from modelsgenesis.data.reading import is_dicom
from modelsgenesis.data.volume import grey
from modelsgenesis.errors import ScanError, require
from modelsgenesis.files import open_regular, parsing

# Values by keyword: text, a tuple of numbers, or a list of such mappings for a sequence. `"PixelData"` holds start and
# length of each piece in the file. What a decoder needs beside them: their `"Kind"`, the `"Syntax"`, the `"Order"` of
# bytes, and `"Picture"`, the elements that describe the pixels as they are written.
Tags = dict[Any, Any]

_TABLE = """
00020002 UI MediaStorageSOPClassUID     00020010 UI TransferSyntaxUID           00080008 CS ImageType
00080016 UI SOPClassUID                 00080032 TM AcquisitionTime             00080060 CS Modality
00089007 CS FrameType                   00100020 LO PatientID                   00180050 DS SliceThickness
00180081 DS EchoTime                    00180086 IS EchoNumbers                 00180088 DS SpacingBetweenSlices
00181060 DS TriggerTime                 00181164 DS ImagerPixelSpacing          00189082 FD EffectiveEchoTime
00189087 FD DiffusionBValue             0020000D UI StudyInstanceUID            0020000E UI SeriesInstanceUID
00200012 IS AcquisitionNumber           00200032 DS ImagePositionPatient        00200037 DS ImageOrientationPatient
00200100 IS TemporalPositionIdentifier  00209128 UL TemporalPositionIndex       00209161 UI ConcatenationUID
00209153 FD NominalCardiacTriggerDelayTime                                      00280002 US SamplesPerPixel
00280004 CS PhotometricInterpretation   00280008 IS NumberOfFrames              00280010 US Rows
00280011 US Columns                     00281054 LO RescaleType                 00283000 SQ ModalityLUTSequence
00280030 DS PixelSpacing                00280100 US BitsAllocated               00280101 US BitsStored
00280102 US HighBit                     00280103 US PixelRepresentation         00280120 US PixelPaddingValue
00281052 DS RescaleIntercept            00281053 DS RescaleSlope                7FE00010 OW PixelData
52009229 SQ SharedFunctionalGroupsSequence
52009230 SQ PerFrameFunctionalGroupsSequence
"""  # fmt: skip
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_KNOWN = {int(row[0], 16): (row[2], row[1].encode()) for row in zip(*[iter(_TABLE.split())] * 3, strict=True)}
_PICTURE = {0x00280000 + number for number in (0x02, 0x04, 0x06, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)}
_PICTURE |= set(range(0x00281101, 0x00281224))  # palettes
_ITEM, _ITEM_END, _SEQUENCE_END, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # kinds with a length of four bytes
_KINDS = _LONG | frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d"}
_NATIVE = _IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"

# A scanner's 20,000 frames of 100 elements are below; a file that is not is refused after some seconds.
_ELEMENTS, _FRAMES, _DEPTH, _VALUE = 2_000_000, 1 << 16, 16, 1 << 16
_LARGEST = 1e12  # of a number: what is computed of more may overflow

# JPEG 2000 shrinks a constant slice to a 3,500th, but an image of more than 256 MB is not constant: what it may be
# of its compressed bytes keeps a small file from asking for all memory.
_RATIO, _EMPTY_RATIO, _EMPTY = 1032, 50_000, 1 << 28


def read_tags(path: Path) -> Tags:
    """Return the elements of a file up to its pixels.

    Raises:
        ScanError: It is not a DICOM file, an element reaches over its end, its structure is not DICOM's, or it is
            deflated as a whole.
    """
    with open_regular(path, ScanError) as file, parsing(path, ScanError):
        require(
            is_dicom(file.read(132)), ScanError, f"{path}: has no DICOM content; it is damaged or of another format"
        )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk, tags = _Walk(data, path), {}
            while data[walk.position : walk.position + 2] == b"\x02\0":  # always explicit and little-endian
                walk.element(tags)
            typed = data[walk.position + 4 : walk.position + 6] in _KINDS
            syntax = text(tags, "TransferSyntaxUID") or (_EXPLICIT if typed else _IMPLICIT)
            walk.explicit, walk.order = syntax != _IMPLICIT, ">" if syntax == _BIG else "<"
            tags |= {"Syntax": syntax, "Order": walk.order, "Picture": b""}
            while walk.position < walk.end and "PixelData" not in tags:
                start, tag = walk.position, walk.element(tags)
                if tag in _PICTURE:
                    tags["Picture"] += data[start : walk.position]
            return tags


class _Walk:
    """A position in a file that moves from element to element."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path = data, path
        self.position = 132 if data[128:132] == b"DICM" else 0
        self.end = len(data)  # of the file, sequence or item that the position is in
        self.order, self.explicit, self.left = "<", True, _ELEMENTS

    def element(self, tags: Tags, depth: int = 0) -> int:
        """Move behind an element, put its value into `tags` if it is asked for, and return its tag."""
        tag, told, length = self.head()
        if tag == _ITEM_END:
            return tag
        name, expected = _KNOWN.get(tag, ("", b""))
        kind = expected if told in (b"", b"UN") else told  # implicit files tell no kind
        start, end = self.position, self.after(length)
        item = struct.pack(self.order + "HH", _ITEM >> 16, _ITEM & 0xFFFF)
        nests = kind in (b"SQ", b"") and self.data[start : start + 4] == item
        if length == _UNDEFINED or (nests and (name or depth)):
            explicit = self.explicit and told != b"UN"  # what was written as unknown has no kinds inside
            value = self.items(end, depth + 1, explicit=explicit, pieces=name == "PixelData")
            name = name or (tag if depth == 1 and tag >> 16 & 1 == 0 else "")  # a functional group that is not private
        else:
            self.position = end
            value = [(start, length)] if name == "PixelData" else self.value(kind, start, length) if name else None
        if name:
            tags |= {name: value, "Kind": told}  # the last one is that of the pixels
        return tag

    def head(self) -> tuple[int, bytes, int]:
        """Return tag, kind and length of the element that starts here, and move to its value."""
        start, self.left = self.position, self.left - 1
        if self.left < 0:
            raise ScanError(f"{self.path}: its header has more than {_ELEMENTS:,} elements; expected an image")
        self.after(8)
        group, number = struct.unpack_from(self.order + "HH", self.data, start)
        kind = self.data[start + 4 : start + 6] if self.explicit and group != 0xFFFE else b""
        if kind and kind not in _KINDS:
            raise ScanError(
                f"{self.path}: ({group:04x},{number:04x}) has no known type; it is damaged or deflated, export it again"
            )
        form, place, size = ("I", 8, 12) if kind in _LONG else ("H", 6, 8) if kind else ("I", 4, 8)
        self.position = self.after(size)
        return group << 16 | number, kind, struct.unpack_from(self.order + form, self.data, start + place)[0]

    def value(self, kind: bytes, start: int, length: int) -> Any:
        """Return text or numbers; nothing of what is far longer than any that is asked for."""
        data = self.data[start : start + length] if length <= _VALUE else b""
        if code := _BINARY.get(kind):
            return struct.unpack(f"{self.order}{len(data) // struct.calcsize(code)}{code}", data)
        return data.decode("latin-1").strip("\0 ")

    def items(self, end: int, depth: int, *, explicit: bool, pieces: bool) -> list[Any]:
        """Return the items of a sequence, or of pixels the pieces of which they consist."""
        require(depth <= _DEPTH, ScanError, f"{self.path}: sequences nest over {_DEPTH} deep; it is damaged")
        outer = self.end, self.explicit
        self.end, self.explicit = end, explicit
        items: list[Any] = []
        while self.position < end:
            tag, _, length = self.head()
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise ScanError(f"{self.path}: a sequence holds other than items; it is damaged")
            start, self.end = self.position, self.after(length)
            items.append((start, length) if pieces else {})
            if pieces:
                self.position = self.end
            while self.position < self.end and self.element(items[-1], depth) != _ITEM_END:
                pass
            self.end = end
        self.end, self.explicit = outer
        return items[1:] if pieces else items  # the first one tells where frames start, or nothing

    def after(self, length: int) -> int:
        """Return where a value ends: one of undefined length at most with what it lies in."""
        left = self.end - self.position
        if left < length < _UNDEFINED:
            reason = f"an element of {length} bytes, {left} are left; it is truncated or damaged, copy it again"
            raise ScanError(f"{self.path}: {reason}")
        return self.position + length if length < _UNDEFINED else self.end


def text(tags: Tags, name: str) -> str:
    """Return a value as text, empty where there is none."""
    value = tags.get(name)
    return value if isinstance(value, str) else ""


def numbers(tags: Tags, name: str) -> list[float]:
    """Return the numbers of a value; none where one of them is not a finite number."""
    value = tags.get(name) or ()
    try:
        found = [float(part) for part in (value.split("\\") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        return []
    return found if all(abs(one) < _LARGEST for one in found) else []


def whole(tags: Tags, name: str, default: int = 0) -> int:
    """Return a whole number, `default` where there is none, -1 where the value is something else."""
    found = numbers(tags, name) if tags.get(name) else [default]
    return int(found[0]) if len(found) == 1 and found[0] == int(found[0]) else -1


def frames_of(path: Path, tags: Tags) -> list[Tags]:
    """Return what a file says of each frame: its own functional groups go before the shared ones and the file's.

    Classic files have one frame and no groups, so that the same keywords serve all (PS3.3 C.7.6.16). `"PixelData"`
    is where the frame's own pixels lie, `"Path"` and `"Folder"` tell the file.

    Raises:
        ScanError: The number of frames is impossible, or not that of the groups or pixels.
    """
    count = whole(tags, "NumberOfFrames", 1)
    if not 1 <= count <= _FRAMES:
        raise ScanError(f"{path}: NumberOfFrames {tags['NumberOfFrames']}; expected 1 to {_FRAMES:,}")
    shared, groups = tags.get(SHARED) or [{}], tags.get(PER_FRAME) or [{}] * count
    if not isinstance(shared, list) or not isinstance(groups, list) or len(groups) != count:
        raise ScanError(f"{path}: expected functional groups for each of {count} frames, export it again")
    sides = whole(tags, "Rows"), whole(tags, "Columns"), whole(tags, "SamplesPerPixel", 1)
    bits = whole(tags, "BitsAllocated", 16)
    used = whole(tags, "BitsStored", bits)
    high = whole(tags, "HighBit", used - 1)
    native, pieces, size = tags["Syntax"] in _NATIVE, tags["PixelData"], math.prod(sides) * bits // 8
    stored = pieces[0][1] if native else sum(length for _, length in pieces)
    possible = stored if native else max(_RATIO * stored, min(_EMPTY_RATIO * stored, _EMPTY))
    if min(sides) < 1 or not 1 <= used <= high + 1 <= bits <= 64 or size * count > possible:
        shown = f"{'×'.join(map(str, (*sides, count)))} pixels of {bits} bits in {stored} bytes"
        raise ScanError(f"{path}: {shown}; it is truncated or damaged, copy it again")
    if native:
        pieces = [(pieces[0][0] + number * size, size) for number in range(count)]
    if len(pieces) != count > 1:
        raise ScanError(f"{path}: {count} frames in {len(pieces)} pieces; expected one each, export it again")
    own = [[piece] for piece in pieces] if count > 1 else [pieces]
    common = {**tags, **_flat(shared[0]), "Path": path, "Folder": str(path.parent), "Bits": (bits, used, high)}
    return [{**common, **_flat(group), "PixelData": pixels} for group, pixels in zip(groups, own, strict=True)]


def _flat(groups: Tags) -> Tags:
    """Return the elements of all functional groups; no two hold the same."""
    items = [group[0] for group in groups.values() if group and isinstance(group, list)]
    return {name: value for item in items for name, value in item.items()}


def values_of(frame: Tags, *, picture: bool = False) -> tuple[np.ndarray, float | None]:
    """Return a frame's values after its own rescale, [rows, columns], and that of pixels outside the field of view.

    Args:
        frame: One of `frames_of`.
        picture: Whether MONOCHROME1 inverts the values. It says how they are shown: in a radiograph white is to be
            high, while Hounsfield units stay what they are.

    Raises:
        ScanError: The pixels are damaged, or slope or intercept cannot be.
    """
    rescale = frame.get("RescaleSlope") or "1", frame.get("RescaleIntercept") or "0"
    slope, intercept = (found[0] if len(found := numbers({"": told}, "")) == 1 else math.nan for told in rescale)
    if not slope or math.isnan(slope + intercept):
        raise ScanError(f"{frame['Path']}: slope and intercept are {rescale}; expected a number each, export it again")
    (bits, used, high), signed = frame["Bits"], whole(frame, "PixelRepresentation")
    photometric, padding = text(frame, "PhotometricInterpretation"), numbers(frame, "PixelPaddingValue")[:1]
    with parsing(frame["Path"], ScanError), open_regular(frame["Path"], ScanError) as file:
        # As they lie in the file, in one piece or several; `pread` needs no position.
        pixels = [os.pread(file.fileno(), length, start) for start, length in frame["PixelData"]]
        if frame["Syntax"] in _NATIVE and photometric.startswith("MONOCHROME") and bits in (16, 32):
            stored = np.frombuffer(pixels[0], f"{frame['Order']}{'i' if signed else 'u'}{bits // 8}")
            stored = stored << bits - 1 - high >> bits - used  # overlays were kept in the bits besides
        else:
            stored = _decode(frame, pixels)
        stored = stored.reshape(whole(frame, "Rows"), whole(frame, "Columns"), -1)
    stored = grey(stored) if stored.shape[2] > 1 else stored[..., 0]
    low, high = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else (0, 2**used - 1)
    if signed and padding and padding[0] > high:
        padding = [padding[0] - 2**bits]  # many write it without its sign
    if picture and photometric == "MONOCHROME1":
        slope, intercept = -slope, intercept + slope * (low + high)
    # The smallest integer type that holds whatever the bits could, so that all slices of a series have the same.
    ends = np.array([low, high, stored.min(), stored.max(), *padding], float) * slope + intercept
    least, most, kind = ends.min(), ends.max(), np.dtype(np.float32)
    if slope.is_integer() and intercept.is_integer() and max(-least, most) < 2**31:
        kind = np.min_scalar_type(int(most) if least >= 0 else int(min(least, -most - 1)))
    return (stored * slope + intercept).astype(kind), float(ends.astype(kind)[-1]) if padding else None


def _decode(frame: Tags, pieces: list[bytes]) -> np.ndarray:
    """Return the stored values of compressed or coloured pixels.

    GDCM is given nothing but the pixels and what describes them, in the syntax of the original: of the whole file it
    would take the first frame's rescale for all and invert MONOCHROME1.
    """
    sitk = simpleitk()
    syntax, order, pixels, size = frame["Syntax"], frame["Order"], pieces[0], len(pieces[0])
    if syntax not in _NATIVE:
        items = [(0xE000, b""), *((0xE000, piece) for piece in pieces), (0xE0DD, b"")]
        pixels = b"".join(struct.pack("<HHI", 0xFFFE, number, len(item)) + item for number, item in items)
        size = _UNDEFINED
    kind = frame["Kind"] and frame["Kind"] + b"\0\0"  # implicit files tell none
    name = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(name)) + name
    head = struct.pack(order + "HH", 0x7FE0, 0x0010) + kind + struct.pack(order + "I", size)
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        described = frame["Picture"].replace(b"MONOCHROME1", b"MONOCHROME2")
        file.write(bytes(128) + b"DICM" + meta + described + head + pixels)
        file.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(file.name)
        return sitk.GetArrayFromImage(reader.Execute())
