"""The frames of a DICOM file: what holds for each, and its values, decoded by SimpleITK (GDCM)."""

import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.dicom_tags import NATIVE, Tags, numbers, text, whole
from modelsgenesis.data.raster import grey
from modelsgenesis.errors import MissingExtraError, ScanError, UnreadableScanError
from modelsgenesis.files import open_regular, parsing

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FRAMES = 1 << 16

# JPEG 2000 shrinks a constant slice to a 3,500th, but an image of more than 256 MB is not constant: what it may be
# of its compressed bytes keeps a small file from asking for all memory.
_RATIO, _EMPTY_RATIO, _EMPTY = 1032, 50_000, 1 << 28


def frames_of(path: Path, tags: Tags) -> list[Tags]:
    """Return what a file says of each frame: its own functional groups go before the shared ones and the file's.

    Classic files have one frame and no groups, so that the same keywords serve all (PS3.3 C.7.6.16). `"PixelData"`
    is where the frame's own pixels lie, `"Path"` and `"Folder"` tell the file.

    Raises:
        UnreadableScanError: The number of frames is impossible, or not that of the groups or pixels.
    """
    count = whole(tags, "NumberOfFrames", 1)
    if not 1 <= count <= _FRAMES:
        raise UnreadableScanError(f"{path}: NumberOfFrames {tags['NumberOfFrames']}; expected 1 to {_FRAMES:,}")
    shared, groups = tags.get(SHARED) or [{}], tags.get(PER_FRAME) or [{}] * count
    if not isinstance(shared, list) or not isinstance(groups, list) or len(groups) != count:
        raise UnreadableScanError(f"{path}: expected functional groups for each of {count} frames, export it again")
    common = {**tags, **_flat(shared[0]), "Path": path, "Folder": str(path.parent)}
    pieces = _pieces(path, tags, count)
    return [{**common, **_flat(group), "PixelData": own} for group, own in zip(groups, pieces, strict=True)]


def _flat(groups: Tags) -> Tags:
    """Return the elements of all functional groups; no two hold the same."""
    items = [group[0] for group in groups.values() if group and isinstance(group, list)]
    return {name: value for item in items for name, value in item.items()}


def _pieces(path: Path, tags: Tags, count: int) -> list[list[tuple[int, int]]]:
    """Return start and length of the pixels of each frame, of compressed ones in pieces.

    Raises:
        UnreadableScanError: Rows, columns and frames promise more than there is.
    """
    sides = whole(tags, "Rows"), whole(tags, "Columns"), whole(tags, "SamplesPerPixel", 1)
    (bits, used, high, _), pieces = _bits(tags), tags["PixelData"]
    native, size = tags["Syntax"] in NATIVE, math.prod(sides) * bits // 8
    stored = pieces[0][1] if native else sum(length for _, length in pieces)
    possible = stored if native else max(_RATIO * stored, min(_EMPTY_RATIO * stored, _EMPTY))
    if min(sides) < 1 or not 1 <= used <= high + 1 <= bits <= 64 or size * count > possible:
        shown = f"{'×'.join(map(str, (*sides, count)))} pixels of {bits} bits in {stored} bytes"
        raise UnreadableScanError(f"{path}: {shown}; it is truncated or damaged, copy it again")
    if native:
        return [[(pieces[0][0] + number * size, size)] for number in range(count)]
    if len(pieces) != count > 1:
        raise UnreadableScanError(f"{path}: {count} frames in {len(pieces)} pieces; expected one each, export it again")
    return [[piece] for piece in pieces] if count > 1 else [pieces]


def values_of(frame: Tags, *, picture: bool = False) -> tuple[np.ndarray, float | None]:
    """Return a frame's values after its own rescale, [rows, columns], and that of pixels outside the field of view.

    Args:
        frame: One of `frames_of`.
        picture: Whether MONOCHROME1 inverts the values. It says how they are shown: in a radiograph white is to be
            high, while Hounsfield units stay what they are.

    Raises:
        UnreadableScanError: The pixels are damaged.
        ScanError: Slope or intercept cannot be.
    """
    stored, padding = _stored(frame), numbers(frame, "PixelPaddingValue")[:1]
    slope, intercept = _factor(frame, "RescaleSlope", 1.0), _factor(frame, "RescaleIntercept", 0.0)
    bits, used, _, signed = _bits(frame)
    low, high = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else (0, 2**used - 1)
    if signed and padding and padding[0] > high:
        padding = [padding[0] - 2**bits]  # many write it without its sign
    if picture and text(frame, "PhotometricInterpretation") == "MONOCHROME1":
        slope, intercept = -slope, intercept + slope * (low + high)
    ends = np.array([low, high, stored.min(), stored.max(), *padding], float) * slope + intercept
    least, most, kind = ends.min(), ends.max(), np.dtype(np.float32)
    if slope.is_integer() and intercept.is_integer() and max(-least, most) < 2**31:
        kind = np.min_scalar_type(int(most) if least >= 0 else int(min(least, -most - 1)))
    return (stored * slope + intercept).astype(kind), float(ends.astype(kind)[-1]) if padding else None


def _factor(frame: Tags, name: str, default: float) -> float:
    found = numbers(frame, name) if frame.get(name) else [default]
    if len(found) != 1 or found[0] == 0 != default:
        raise ScanError(f"{frame['Path']}: {name} is {frame[name]!r}; expected a number, export it again")
    return found[0]


def _stored(frame: Tags) -> np.ndarray:
    """Return the stored values of a frame, [rows, columns], colours made grey.

    Raises:
        UnreadableScanError: They are damaged.
    """
    rows, columns, (bits, used, high, signed) = whole(frame, "Rows"), whole(frame, "Columns"), _bits(frame)
    with parsing(frame["Path"], UnreadableScanError):
        plain = text(frame, "PhotometricInterpretation").startswith("MONOCHROME") and bits in (16, 32)
        if plain and frame["Syntax"] in NATIVE:
            kind = f"{frame['Order']}{'i' if signed else 'u'}{bits // 8}"
            array = np.frombuffer(pixels_of(frame)[0], kind).reshape(rows, columns)
            return array << bits - 1 - high >> bits - used  # overlays were kept in the bits besides
        array = _decode(frame).reshape(rows, columns, -1)
    return grey(array) if array.shape[2] > 1 else array[..., 0]


def _bits(tags: Tags) -> tuple[int, int, int, int]:
    """Return the bits of a pixel, how many of them are used, the highest one's number, and whether it is a sign."""
    bits = whole(tags, "BitsAllocated", 16)
    used = whole(tags, "BitsStored", bits)
    return bits, used, whole(tags, "HighBit", used - 1), whole(tags, "PixelRepresentation")


def _decode(frame: Tags) -> np.ndarray:
    """Return the stored values of compressed or coloured pixels.

    GDCM is given nothing but the pixels and what describes them: of the whole file it would take the first frame's
    rescale for all and invert MONOCHROME1.
    """
    sitk = simpleitk()
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(_bare_file(frame))
        file.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(file.name)
        return sitk.GetArrayFromImage(reader.Execute())


def pixels_of(frame: Tags) -> list[bytes]:
    """Return the pixels of a frame as they lie in the file, in one piece or several."""
    contents = []
    with open_regular(frame["Path"], UnreadableScanError) as file, parsing(frame["Path"], UnreadableScanError):
        for start, length in frame["PixelData"]:
            file.seek(start)
            contents.append(file.read(length))
    return contents


def _bare_file(frame: Tags) -> bytes:
    """Return a DICOM file of one frame's pixels and the elements that describe them, in the syntax of the original."""
    syntax, order, contents = frame["Syntax"], frame["Order"], pixels_of(frame)
    pixels, size = contents[0], len(contents[0])
    if syntax not in NATIVE:
        items = [(0xE000, b""), *((0xE000, content) for content in contents), (0xE0DD, b"")]
        pixels = b"".join(struct.pack("<HHI", 0xFFFE, number, len(item)) + item for number, item in items)
        size = 0xFFFFFFFF
    kind = frame["Kind"] and frame["Kind"] + b"\0\0"  # implicit files tell none
    name = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(name)) + name
    head = struct.pack(order + "HH", 0x7FE0, 0x0010) + kind + struct.pack(order + "I", size)
    return bytes(128) + b"DICM" + meta + frame["Picture"].replace(b"MONOCHROME1", b"MONOCHROME2") + head + pixels


def simpleitk() -> Any:
    """Return SimpleITK, told to keep its warnings to itself: what matters is raised.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import SimpleITK as sitk  # noqa: N813 - its own customary name
    except ImportError as error:
        raise MissingExtraError("reading DICOM", "io") from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk
