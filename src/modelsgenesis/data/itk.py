"""NRRD and MetaImage through SimpleITK, with their voxels in one file (`.nrrd`, `.mha`) or beside it (`.nhdr`, `.mhd`).

SimpleITK trusts its files: it returns noise or uninitialised memory for a damaged compressed stream, asks for the
memory that a header promises, reads whatever file that names, and long lines or many axes crash the process. So the
header is looked through first: for where the voxels lie and how they are compressed, not for what they mean.
"""

import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.volume import COLOUR, VoxelLayout, check_spacing, grey
from modelsgenesis.errors import MissingExtraError, ScanError
from modelsgenesis.files import open_regular

_LPS = "left-posterior-superior"  # what ITK brings RAS and LAS to
_NEEDED = {True: ("dimension", "sizes", "type", "encoding"), False: ("NDims", "DimSize", "ElementDataFile")}
_HEADER_BYTES = 2**20
_LINE = 500  # bytes; teem and MetaIO copy a longer line into fixed buffers when they complain about it
_EXTRA = 4096  # bytes that may follow the voxels in a compressed stream


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


def read_header(path: Path) -> VoxelLayout:
    """Read the header.

    Raises:
        ScanError: It is damaged, its voxels are missing or encoded in a way that is not supported, or its geometry
            cannot be right.
        MissingExtraError: SimpleITK is not installed.
    """
    sitk = simpleitk("reading NRRD and MetaImage")
    nrrd, fields, end = _read_fields(path)
    name, packed, skip, length = _locate_nrrd(path, fields) if nrrd else _locate_metaimage(path, fields)
    data = _data_path(path, name)
    start = 0 if name else end
    if not packed and skip > 0:
        start = skip + (start if nrrd else 0)  # MetaIO counts from the start of the file, its header included
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if ("vector" in sitk.GetPixelIDValueAsString(reader.GetPixelID())) != (channels > 1):  # as for MET_STRING
        raise ScanError(f"{path}: voxels of an unknown type; expected integers or floating point")
    dtype = sitk.GetArrayViewFromImage(sitk.Image((1, 1), reader.GetPixelID(), min(channels, 2))).dtype
    if dtype.kind not in "iuf":
        raise ScanError(f"{path}: voxels are {dtype}; expected real numbers, store the magnitude")
    colour = channels in (3, 4) and dtype == np.uint8

    def load(index: int) -> np.ndarray:
        if packed:
            _check_stream(data, start, math.prod(layout.shape) * layout.count * layout.voxel_bytes + skip, length)
        image = reader.Execute()  # kept here, as its view ends with it
        stored = sitk.GetArrayViewFromImage(image).reshape(-1, *size[:3][::-1], channels)  # [time, z, y, x, channel]
        time, channel = divmod(index, 1 if colour else channels)
        return (grey(stored[time]) if colour else stored[time, ..., channel]).T.copy(order="F")

    layout = VoxelLayout(
        files=(path, data) if name else (path,),
        format="NRRD" if nrrd else "MetaImage",
        shape=size[:3],
        voxel_bytes=dtype.itemsize * (channels if colour else 1),
        stored=data.stat().st_size - start,
        compressed=packed,
        load=load,
        count=math.prod(size[3:]) * (1 if colour else channels),
        affine=_affine(reader, path),
        open_ended=skip < 0,  # its voxels are the end of the file, after a header of any length
        notes=(COLOUR,) if colour else (),
    )
    return layout


def _affine(reader: Any, path: Path) -> np.ndarray:
    """Return the affine in RAS+ of the geometry, which ITK states towards left, posterior, superior."""
    space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else _LPS
    if space != _LPS:
        raise ScanError(f"{path}: space {space!r}; expected one of left, right, anterior, posterior, superior")
    axes, affine = reader.GetDimension(), np.eye(4)
    spatial, spacing = min(axes, 3), np.array(reader.GetSpacing()[:3])
    check_spacing(spacing, str(path))
    affine[:spatial, :spatial] = np.reshape(reader.GetDirection(), (axes, axes))[:spatial, :spatial] * spacing
    affine[:spatial, 3] = reader.GetOrigin()[:spatial]
    affine[:2] *= -1
    return affine


def _read_fields(path: Path) -> tuple[bool, dict[str, str], int]:
    """Return whether it is NRRD, the fields of the header, and its length.

    It ends with an empty line, or with the name of the data file.

    Raises:
        ScanError: ITK could take a line in another way, or not survive it.
    """
    fields: dict[str, str] = {}
    with open_regular(path, ScanError) as file:
        nrrd = file.read(7) == b"NRRD000"
        file.seek(0)
        while file.tell() <= _HEADER_BYTES and (line := file.readline(_HEADER_BYTES)):
            text = line.decode("latin-1").strip()
            if nrrd and not text:
                break
            key, *value = (part.strip() for part in re.split(":" if nrrd else "[=:]", text, maxsplit=1))
            if nrrd and value and value[0].startswith("="):
                continue  # a note of whoever wrote it, of any length
            key = key.lower().replace(" ", "") if nrrd else key
            if len(line) > _LINE or "\0" in text or key in fields or not (nrrd or value or not text):
                raise ScanError(f"{path}: a line of its header is doubled, too long or damaged: {text[:40]!r}")
            if value and not key.startswith("#"):
                fields[key] = value[0]
            if key == "ElementDataFile":
                break
        if missing := [key for key in _NEEDED[nrrd] if not fields.get(key)]:
            raise ScanError(f"{path}: no {missing[0]} in its header; it is damaged or of another format")
        return nrrd, fields, file.tell()


# Where the voxels lie: the name of their file, if it is another; whether they are compressed; bytes before them, of
# which -1 means that they are the end of the file; and the length of the compressed stream, None where it is not said.
_Place = tuple[str | None, bool, int, int | None]


def _locate_nrrd(path: Path, fields: dict[str, str]) -> _Place:
    encoding, skip = fields["encoding"].lower(), int(fields.get("byteskip", 0))
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(f"{path}: its voxels are encoded as {encoding}; expected raw or gzip, convert it")
    if int(fields.get("lineskip", 0)) != 0 or skip < (-1 if encoding == "raw" else 0):
        raise ScanError(f"{path}: its header skips lines, or bytes from the end; expected bytes from the start")
    return fields.get("datafile"), encoding != "raw", skip, None


def _locate_metaimage(path: Path, fields: dict[str, str]) -> _Place:
    name, skip = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
    packed = _true(fields.get("CompressedData", "F"))
    sizes = [int(size) for size in fields["DimSize"].split()]
    if not 2 <= int(fields["NDims"]) == len(sizes) <= 4 or min(sizes) < 1:
        raise ScanError(f"{path}: {fields['NDims']} axes with sizes {fields['DimSize']}; repair its header")
    if not _true(fields.get("BinaryData", "T")):
        raise ScanError(f"{path}: its voxels are written as text; expected binary, convert it")
    if skip < (0 if packed else -1):
        raise ScanError(f"{path}: a HeaderSize of {skip}; expected 0 or more, repair its header")
    length = int(fields.get("CompressedDataSize", 0))  # for any other ITK returns memory that nothing was read into
    return None if name.lower() == "local" else name, packed, skip, length


def _true(value: str) -> bool:
    """Read a flag as MetaIO does, by its first letter."""
    return value[:1] in ("T", "t", "1")


def _data_path(path: Path, name: str | None) -> Path:
    """Return the file of the voxels, which must lie in the header's folder or below if it is another.

    Raises:
        ScanError: The header names a list of files, or a file that is not there.
    """
    if name is None:
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(f"{path}: its voxels are spread over a list of files; expected one, convert it")
    data = path.parent / name
    if not data.resolve().is_relative_to(path.parent.resolve()) or not data.is_file():
        raise ScanError(f"{path}: its voxels are missing; expected {name} beside it")
    return data


def _check_stream(data: Path, start: int, size: int, length: int | None) -> None:
    """Decompress the voxels for the checksum at their end, never more than the header says.

    Raises:
        ScanError: They are damaged, fewer or more than the header says.
    """
    with open_regular(data, ScanError) as file:
        file.seek(start)
        content = file.read()
    stream = zlib.decompressobj(47)  # zlib or gzip, whichever it is
    found = len(stream.decompress(content, size + _EXTRA + 1))
    taken = len(content) - len(stream.unused_data)
    if not stream.eof or found < size or length not in (None, taken):
        raise ScanError(
            f"{data}: {taken:,} compressed bytes hold {found:,} of voxels, its header says {size:,}"
            f"{'' if length is None else f' in {length:,}'}; it is truncated or damaged, copy it again"
        )
