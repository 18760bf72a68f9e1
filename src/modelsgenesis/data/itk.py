"""NRRD and MetaImage through SimpleITK, with their voxels in one file (`.nrrd`, `.mha`) or beside it (`.nhdr`, `.mhd`).

SimpleITK trusts its files: it returns noise or uninitialised memory for a damaged compressed stream, asks for the
memory that a header promises, reads whatever file that names, and long lines or many axes crash the process. So the
header is looked through first: for where the voxels lie and how they are compressed, not for what they mean.
"""

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modelsgenesis.data.raster import VoxelLayout
from modelsgenesis.data.volume import ScanReference, Volume, check_spacing, reading
from modelsgenesis.errors import MissingExtraError, ScanError, UnreadableScanError
from modelsgenesis.files import open_regular

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

_LPS = "left-posterior-superior"  # what ITK brings RAS and LAS to
_NRRD_FIELDS = ("dimension", "sizes", "type", "encoding")
_META_FIELDS = ("NDims", "DimSize", "ElementType", "ElementDataFile")
_NUMBERS = {"sizes", "spacings", "spacedirections", "spaceorigin", "DimSize", "ElementSpacing", "ElementSize", "Offset"}
_NUMBERS |= {"Position", "Origin", "TransformMatrix", "Rotation", "Orientation", "CenterOfRotation"}
_HEADER_BYTES = 2**20
_LINE = 500  # bytes; teem and MetaIO copy a longer line into fixed buffers when they complain about it
_AFTER = 4096  # bytes of padding that may follow the voxels


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the voxels lie.

    Attributes:
        data: The file.
        start: Where they, or their compressed stream, start in it; None for the very end of the file.
        compressed: Whether by zlib or gzip.
        skip: Bytes before them in the stream, once decompressed.
        length: Bytes of the stream by the header.
    """

    data: Path
    start: int | None
    compressed: bool
    skip: int = 0
    length: int | None = None


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per volume in the file.

    Raises:
        UnreadableScanError: The header is damaged, or its voxels are missing.
        ScanError: Its geometry cannot be right, or its encoding is not supported.
        MissingExtraError: SimpleITK is not installed.
    """
    with reading(path):
        return _raster(path).references()


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    with reading(path):
        return _raster(path).read(index)


def simpleitk(purpose: str) -> Any:
    """Return SimpleITK, told to keep its warnings to itself: what matters is raised.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import SimpleITK as sitk  # noqa: N813 - its own customary name
    except ImportError as error:
        raise MissingExtraError(purpose, "io") from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _raster(path: Path) -> VoxelLayout:
    sitk = simpleitk("reading NRRD and MetaImage")
    with open_regular(path, UnreadableScanError) as file:
        nrrd = file.read(7) == b"NRRD000"
        file.seek(0)
        fields, end = _fields(path, file, nrrd)
    place = (_place_nrrd if nrrd else _place_metaimage)(path, fields, end)
    reader = _reader(sitk, path, nrrd)
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    dtype = sitk.GetArrayViewFromImage(sitk.Image((1, 1), reader.GetPixelID(), min(channels, 2))).dtype
    colour = channels in (3, 4) and dtype == np.uint8

    def load(index: int) -> np.ndarray:
        if place.compressed:
            _check_stream(place, raster.size)
        return _voxels(sitk, reader, channels, colour, index)

    raster = VoxelLayout(
        path=path,
        data=place.data,
        format="NRRD" if nrrd else "MetaImage",
        shape=size[:3],
        count=math.prod(size[3:]) * (1 if colour else channels),
        dtype=dtype,
        affine=_affine(reader, path),
        stored=place.data.stat().st_size - (place.start or 0),
        compressed=place.compressed,
        after=None if place.start is None else _AFTER,
        load=load,
        colours=channels if colour else 1,
    )
    return raster


def _reader(sitk: Any, path: Path, nrrd: bool) -> Any:
    """Return a reader that knows the header."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    vector = "vector" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if vector != (reader.GetNumberOfComponents() > 1):  # as for MET_STRING
        raise ScanError(f"{path}: voxels of an unknown type; expected integers or floating point")
    check_spacing(np.array(reader.GetSpacing()[:3]), str(path))
    return reader


def _voxels(sitk: Any, reader: Any, channels: int, colour: bool, index: int) -> np.ndarray:
    """Return a volume by its index, [*spatial], or [*spatial, channels] in colour."""
    image = reader.Execute()  # kept here, as its view ends with it
    stored = sitk.GetArrayViewFromImage(image).reshape(-1, *image.GetSize()[:3][::-1], channels)  # times first
    time, channel = divmod(index, 1 if colour else channels)
    return np.moveaxis(stored[time], -1, 0).T.copy() if colour else stored[time, ..., channel].T.copy(order="F")


def _affine(reader: Any, path: Path) -> np.ndarray:
    """Return the affine in RAS+ of the geometry, which ITK states towards left, posterior, superior."""
    space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else _LPS
    if space != _LPS:
        raise ScanError(f"{path}: space {space!r}; expected one of left, right, anterior, posterior, superior")
    axes = reader.GetDimension()
    spatial = min(axes, 3)
    affine = np.eye(4)
    directions = np.reshape(reader.GetDirection(), (axes, axes))[:spatial, :spatial]
    affine[:spatial, :spatial] = directions * reader.GetSpacing()[:spatial]
    affine[:spatial, 3] = reader.GetOrigin()[:spatial]
    affine[:2] *= -1
    return affine


def _fields(path: Path, file: BinaryIO, nrrd: bool) -> tuple[dict[str, str], int]:
    """Return the fields of a header, and its length: it ends with an empty line, or with the name of the data file.

    Raises:
        UnreadableScanError: ITK could take a line in another way, or not survive it.
    """
    fields: dict[str, str] = {}
    while file.tell() <= _HEADER_BYTES and (line := file.readline(_HEADER_BYTES)):
        text = line.decode("latin-1").strip()
        if nrrd and not text:
            break
        key, *value = (part.strip() for part in re.split(":" if nrrd else "[=:]", text, maxsplit=1))
        if nrrd and value and value[0].startswith("="):
            continue  # a note of whoever wrote it, of any length
        key = key.lower().replace(" ", "") if nrrd else key
        if len(line) > _LINE or "\0" in text or key in fields or not (nrrd or value or not text):
            raise UnreadableScanError(f"{path}: a line of its header is doubled, too long or damaged: {text[:40]!r}")
        if value and not key.startswith("#"):
            fields[key] = value[0]
        if key == "ElementDataFile":
            break
    _check_fields(path, fields, _NRRD_FIELDS if nrrd else _META_FIELDS)
    return fields, file.tell()


def _check_fields(path: Path, fields: dict[str, str], needed: tuple[str, ...]) -> None:
    for key in needed:
        if not fields.get(key):
            raise UnreadableScanError(f"{path}: no {key} in its header; it is damaged or of another format")
    for key in fields.keys() & _NUMBERS:
        for number in re.findall(r"[^\s,()]+", fields[key]):
            if number != "none":
                float(number)  # of a damaged number ITK would take the beginning


def _place_nrrd(path: Path, fields: dict[str, str], end: int) -> _Place:
    encoding, skip = fields["encoding"].lower(), int(fields.get("byteskip", 0))
    compressed, name = encoding != "raw", fields.get("datafile")
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(f"{path}: its voxels are encoded as {encoding}; expected raw or gzip, convert it")
    if int(fields.get("lineskip", 0)) != 0 or skip < -int(not compressed):
        raise ScanError(f"{path}: its header skips lines, or bytes from the end; expected bytes from the start")
    start = 0 if name else end
    if compressed:
        return _Place(data=_beside(path, name), start=start, compressed=True, skip=skip)
    return _Place(data=_beside(path, name), start=None if skip < 0 else start + skip, compressed=False)


def _place_metaimage(path: Path, fields: dict[str, str], end: int) -> _Place:
    name, skip = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
    local, compressed = name in ("LOCAL", "Local", "local"), _true(fields.get("CompressedData", "F"))
    sizes = [int(size) for size in fields["DimSize"].split()]
    if not 2 <= int(fields["NDims"]) == len(sizes) <= 4 or min(sizes) < 1:
        raise UnreadableScanError(f"{path}: {fields['NDims']} axes with sizes {fields['DimSize']}; repair its header")
    if not _true(fields.get("BinaryData", "T")):
        raise ScanError(f"{path}: its voxels are written as text; expected binary, convert it")
    if skip < -int(not compressed):
        raise ScanError(f"{path}: a HeaderSize of {skip}; expected 0 or more, repair its header")
    return _Place(
        data=_beside(path, None if local else name),
        start=None if skip < 0 else skip or (end if local else 0),  # from the start of the file, LOCAL or not
        compressed=compressed,
        length=int(fields.get("CompressedDataSize", 0)),  # for any other ITK returns memory that nothing was read into
    )


def _true(value: str) -> bool:
    """Read a flag as MetaIO does, by its first letter."""
    return value[:1] in ("T", "t", "1")


def _beside(path: Path, name: str | None) -> Path:
    """Return the file of the voxels, which must lie in the header's folder or below if it is another.

    Raises:
        ScanError: The header names a list of files.
        UnreadableScanError: The file is not there.
    """
    if name is None:
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(f"{path}: its voxels are spread over a list of files; expected one, convert it")
    data = path.parent / name
    if not data.resolve().is_relative_to(path.parent.resolve()) or not data.is_file():
        raise UnreadableScanError(f"{path}: its voxels are missing; expected {name} beside it")
    return data


def _check_stream(place: _Place, size: int) -> None:
    """Decompress the voxels for the checksum at their end, never more than the header says.

    Raises:
        UnreadableScanError: They are damaged, fewer or more than the header says.
    """
    with open_regular(place.data, UnreadableScanError) as file:
        file.seek(place.start or 0)
        content = file.read()
    stream, size = zlib.decompressobj(47), size + place.skip  # 47: zlib or gzip, whichever it is
    found = len(stream.decompress(content, size + _AFTER + 1))
    length = len(content) - len(stream.unused_data)
    if not stream.eof or found < size or place.length not in (None, length):
        raise UnreadableScanError(
            f"{place.data}: {length:,} compressed bytes hold {found:,} of voxels, its header says {size:,}"
            f"{'' if place.length is None else f' in {place.length:,}'}; it is truncated or damaged, copy it again"
        )
