"""The frames of a DICOM file: what pydicom reads of each, and its values, decoded by SimpleITK (GDCM) where compressed.

SimpleITK alone neither tells what the functional groups of an enhanced file say of a frame nor rescales each by its own
numbers; so it is given nothing but the pixels of a frame and what describes them.
"""

import logging
import math
import mmap
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.itk import simpleitk
from modelsgenesis.data.volume import grey
from modelsgenesis.errors import MissingExtraError, ScanError
from modelsgenesis.files import open_regular, parsing

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_STARTS = (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x02\x00\x00\x00")
_RESCALE = ("RescaleSlope", "RescaleIntercept", "NumberOfFrames", "ModalityLUTSequence")
_WRONG = (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError)  # what pydicom raises of a value

_FRAMES = 1 << 16
_LARGEST = 1e12  # of a number: what is computed of more may overflow

# JPEG 2000 shrinks a constant slice to a 3,500th, but an image of more than 256 MB is not constant: what it may be
# of its compressed bytes keeps a small file from asking for all memory.
_RATIO, _EMPTY_RATIO, _EMPTY = 1032, 50_000, 1 << 28


@cache
def _tag(name: str) -> Any:
    """Return the tag of a keyword, which pydicom looks up slowly."""
    from pydicom.tag import Tag

    return Tag(name)


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a file. Classic files have one, and no functional groups, so that the same keywords serve all.

    Attributes:
        path: The file.
        number: Of the frame, from 0.
        header: Pydicom's data set of the file.
        stored: Where the pixels of all frames start in the file, and the bytes that they take.
        groups: The data sets to look into, of which the first that has a keyword counts: the frame's own functional
            groups, the shared ones, the header (PS3.3 C.7.6.16).
    """

    path: Path
    number: int
    header: Any
    stored: tuple[int, int]
    groups: tuple[Any, ...]

    def element(self, name: str) -> Any:
        """Return the element of a keyword that counts for the frame, unconverted as long as nobody asked; or None."""
        tag = _tag(name)
        return next((group.get_item(tag) for group in self.groups if tag in group), None)

    def text(self, name: str) -> str:
        """Return a value as it is written, empty where there is none; nothing is converted that could fail."""
        value = getattr(self.element(name), "value", "")
        return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else str(value or "")

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of a value; none where one of them is not a finite number."""
        tag = _tag(name)
        try:
            value: Any = next((group[tag].value for group in self.groups if tag in group), None)
            found = [float(one) for one in (value if np.ndim(value) else [value])]
        except _WRONG:
            return []
        return found if all(abs(one) < _LARGEST for one in found) else []

    def whole(self, name: str, default: int = 0) -> int:
        """Return a whole number, `default` where there is none, -1 where the value is something else."""
        found = self.numbers(name) if self.text(name) else [default]
        return int(found[0]) if len(found) == 1 and found[0] == int(found[0]) else -1

    @property
    def bits(self) -> tuple[int, int, int, int]:
        """The bits of a pixel, how many of them are used, the highest one's number, and whether it is a sign."""
        bits = self.whole("BitsAllocated", 16)
        used = self.whole("BitsStored", bits)
        return bits, used, self.whole("HighBit", used - 1), self.whole("PixelRepresentation")

    @property
    def size(self) -> int:
        """Bytes of its pixels before compression."""
        return math.prod(self.whole(name, 1) for name in ("Rows", "Columns", "SamplesPerPixel")) * self.bits[0] // 8

    @property
    def syntax(self) -> str:
        """The transfer syntax; a file without one is as pydicom found it to be."""
        implicit, little = self.header.original_encoding
        found = _NATIVE[0 if implicit else 1 if little else 2]
        return str(self.header.file_meta.get("TransferSyntaxUID", found))

    def pixels(self) -> bytes:
        """Return its pixels as they lie in the file."""
        with parsing(self.path, ScanError), self.path.open("rb") as file:
            native = self.syntax in _NATIVE
            file.seek(self.stored[0] + (self.number * self.size if native else 0))
            if native:
                return file.read(self.size)
            from pydicom.encaps import get_frame

            return get_frame(file, self.number, number_of_frames=self.whole("NumberOfFrames", 1))


def is_dicom(path: Path) -> bool:
    """Tell a DICOM file by its content: the magic word, or a first element that can only be DICOM's.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:4] in _STARTS


def read_header(path: Path) -> Frame:
    """Return what holds for the whole file, as if it had one frame.

    Raises:
        ScanError: It is not a DICOM file, is damaged, or is deflated as a whole.
        MissingExtraError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("reading DICOM", "io") from error
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # what matters is raised here
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    with open_regular(path, ScanError) as file, parsing(path, ScanError):
        if not is_dicom(path):
            raise ScanError(f"{path}: has no DICOM content; it is damaged or of another format")
        # Of a map no more is read than there is, whatever length a damaged element promises.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(_DEFLATED, 0, 2048) >= 0:  # pydicom would inflate it, to whatever size
                raise ScanError(f"{path}: is deflated as a whole; expected another transfer syntax, export it again")
            header = pydicom.dcmread(data, force=True, stop_before_pixels=True)
            implicit, little = header.original_encoding
            start, (head, order) = data.tell(), ((8, "<") if implicit else (12, "<" if little else ">"))
            stored = (0, 0)
            if len(data) >= start + head and struct.unpack_from(order + "HH", data, start) == (0x7FE0, 0x0010):
                (length,) = struct.unpack_from(order + "I", data, start + head - 4)
                stored = start + head, min(length, len(data) - start - head)
        return Frame(path, 0, header, stored, (header, header.file_meta))


def frames_of(header: Frame) -> list[Frame]:
    """Return the frames of a file that holds pixels.

    Raises:
        ScanError: The number of frames is impossible, or not that of the groups or pixels.
    """
    path, count, dataset = header.path, header.whole("NumberOfFrames", 1), header.header
    if not 1 <= count <= _FRAMES:
        raise ScanError(f"{path}: NumberOfFrames {header.text('NumberOfFrames')}; expected 1 to {_FRAMES:,}")
    with parsing(path, ScanError):
        shared, own = ([_flat(item) for item in dataset.get(name) or ()] for name in (SHARED, PER_FRAME))
    if len(own) not in (0, count) or (PER_FRAME in dataset and not own) or (SHARED in dataset and not shared):
        raise ScanError(f"{path}: expected functional groups for each of {count} frames, export it again")
    common = [*(shared[0] if shared else ()), dataset]
    # Rows, columns and frames may promise more than there is.
    stored = header.stored[1]
    possible = stored
    if header.syntax not in _NATIVE:  # each frame is an item with a head of 8 bytes
        possible = max(_RATIO * stored, min(_EMPTY_RATIO * stored, _EMPTY)) if 8 * count < stored else 0
    sides, (bits, used, high, _) = [header.whole(name) for name in ("Rows", "Columns")], header.bits
    if min(sides) < 1 or not 1 <= used <= high + 1 <= bits <= 64 or not 0 < header.size * count <= possible:
        shown = f"{'×'.join(map(str, (*sides, count)))} pixels of {bits} bits in {stored:,} bytes"
        raise ScanError(f"{path}: {shown}; it is truncated or damaged, copy it again")
    return [
        Frame(path, number, dataset, header.stored, (*(own[number] if own else ()), *common)) for number in range(count)
    ]


def _flat(groups: Any) -> list[Any]:
    """Return the first item of each functional group; no two hold the same."""
    return [group.value[0] for group in groups if group.VR == "SQ" and group.value and not group.tag.is_private]


def values_of(frame: Frame, *, picture: bool = False) -> tuple[np.ndarray, float | None]:
    """Return a frame's values after its own rescale, [rows, columns], and that of pixels outside the field of view.

    Args:
        frame: One of `frames_of`.
        picture: Whether MONOCHROME1 inverts the values. It says how they are shown: in a radiograph white is to be
            high, while Hounsfield units stay what they are.

    Raises:
        ScanError: The pixels are damaged, or slope or intercept cannot be.
    """
    bits, used, high, signed = frame.bits
    stored, padding = _stored(frame), []
    slope, intercept = _factor(frame, "RescaleSlope", 1.0), _factor(frame, "RescaleIntercept", 0.0)
    if told := frame.numbers("PixelPaddingValue"):
        padding = [told[0] - 2**bits if signed and told[0] >= 2 ** (bits - 1) else told[0]]  # many write it unsigned
    least, most = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else (0, 2**used - 1)
    if picture and frame.text("PhotometricInterpretation") == "MONOCHROME1":
        slope, intercept = -slope, intercept + slope * (least + most)
    # The smallest integer type that holds whatever the bits could, so that all slices of a series have the same.
    ends = np.array([least, most, stored.min(), stored.max(), *padding], float) * slope + intercept
    low, high, kind = ends.min(), ends.max(), np.dtype(np.float32)
    if slope.is_integer() and intercept.is_integer() and max(-low, high) < 2**31:
        kind = np.min_scalar_type(int(high) if low >= 0 else int(min(low, -high - 1)))
    return (stored * slope + intercept).astype(kind), float(ends.astype(kind)[-1]) if padding else None


def _factor(frame: Frame, name: str, default: float) -> float:
    found = frame.numbers(name) if frame.text(name) else [default]
    if len(found) != 1 or found[0] == 0 != default:
        raise ScanError(f"{frame.path}: {name} is {frame.text(name)!r}; expected a number, export it again")
    return found[0]


def _stored(frame: Frame) -> np.ndarray:
    """Return the stored values of a frame, [rows, columns], colours made grey.

    Raises:
        ScanError: They are damaged.
    """
    rows, columns, (bits, used, high, signed) = frame.whole("Rows"), frame.whole("Columns"), frame.bits
    with parsing(frame.path, ScanError):
        plain = frame.text("PhotometricInterpretation").startswith("MONOCHROME") and bits in (16, 32)
        if plain and frame.syntax in _NATIVE:
            kind = f"{'>' if frame.syntax == _NATIVE[2] else '<'}{'i' if signed else 'u'}{bits // 8}"
            array = np.frombuffer(frame.pixels(), kind).reshape(rows, columns)
            return array << bits - 1 - high >> bits - used  # overlays were kept in the bits besides
        array = _decode(frame).reshape(rows, columns, -1)
    return grey(array) if array.shape[2] > 1 else array[..., 0]


def _decode(frame: Frame) -> np.ndarray:
    """Return the stored values of compressed or coloured pixels.

    Of the whole file GDCM would take the first frame's rescale for all and invert MONOCHROME1.
    """
    import pydicom

    sitk = simpleitk("reading DICOM")
    bare = frame.header.group_dataset(0x0028)  # what describes pixels
    for name in _RESCALE:
        if name in bare:
            del bare[name]
    if frame.text("PhotometricInterpretation") == "MONOCHROME1":
        bare.PhotometricInterpretation = "MONOCHROME2"
    pixels, native = frame.pixels(), frame.syntax in _NATIVE
    bare.add_new("PixelData", "OB" if frame.bits[0] <= 8 or not native else "OW", pixels)
    if not native:
        bare.PixelData = pydicom.encaps.encapsulate([pixels])
        bare["PixelData"].is_undefined_length = True
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = pydicom.uid.UID(frame.syntax)
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        pydicom.dcmwrite(file, bare)
        file.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(file.name)
        return sitk.GetArrayFromImage(reader.Execute())
