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

from modelsgenesis.data.volume import COLOUR, VoxelLayout, grey
from modelsgenesis.errors import ScanError, require
from modelsgenesis.files import open_regular

_LPS = "left-posterior-superior"  # what ITK brings RAS and LAS to
_NEEDED = {True: ("dimension", "sizes", "type", "encoding"), False: ("NDims", "DimSize", "ElementDataFile")}
_HEADER_BYTES = 2**20
_LINE = 500  # bytes; teem and MetaIO copy a longer line into fixed buffers when they complain about it
_EXTRA = 4096  # bytes that may follow the voxels in a compressed stream


def simpleitk() -> Any:
    """Return SimpleITK, told to keep its warnings to itself: what matters is raised."""
    import SimpleITK as sitk  # noqa: N813 - its own customary name

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def read_header(path: Path) -> VoxelLayout:
    """Read the header.

    Raises:
        ScanError: It is damaged, its voxels are missing or encoded in a way that is not supported, or its geometry
            cannot be right.
    """
    sitk = simpleitk()
    nrrd, fields, end = _read_fields(path)
    data, packed, open_ended, length = _locate(path, nrrd, fields)
    start = end if data == path else 0
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    shape, times, channels = reader.GetSize()[:3], math.prod(reader.GetSize()[3:]), reader.GetNumberOfComponents()
    if ("vector" in sitk.GetPixelIDValueAsString(reader.GetPixelID())) != (channels > 1):  # as for MET_STRING
        raise ScanError(f"{path}: voxels of an unknown type; expected integers or floating point")
    dtype = sitk.GetArrayViewFromImage(sitk.Image((1, 1), reader.GetPixelID(), min(channels, 2))).dtype
    require(dtype.kind in "iuf", ScanError, f"{path}: voxels are {dtype}; expected real numbers, store the magnitude")
    colour = channels in (3, 4) and dtype == np.uint8

    def load(index: int) -> np.ndarray:
        if packed:
            _check_stream(data, start, math.prod(shape) * times * channels * dtype.itemsize, length)
        image = reader.Execute()  # kept here, as its view ends with it
        stored = sitk.GetArrayViewFromImage(image).reshape(times, *shape[::-1], channels)  # [time, z, y, x, channel]
        time, channel = divmod(index, 1 if colour else channels)
        return (grey(stored[time]) if colour else stored[time, ..., channel]).T.copy(order="F")

    return VoxelLayout(
        files=(path,) if data == path else (path, data),
        format="NRRD" if nrrd else "MetaImage",
        shape=shape,
        voxel_bytes=dtype.itemsize * (channels if colour else 1),
        stored=data.stat().st_size - start,
        compressed=packed,
        load=load,
        count=times * (1 if colour else channels),
        affine=_affine(reader, path),
        open_ended=open_ended,
        notes=(COLOUR,) if colour else (),
    )


def _affine(reader: Any, path: Path) -> np.ndarray:
    """Return the affine in RAS+ of the geometry, which ITK states towards left, posterior, superior."""
    space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else _LPS
    expected = "expected one of left, right, anterior, posterior, superior"
    require(space == _LPS, ScanError, f"{path}: space {space!r}; {expected}")
    axes, affine = reader.GetDimension(), np.eye(4)
    spatial, spacing = min(axes, 3), reader.GetSpacing()[:3]
    # Else the affine would mirror the scan.
    require(min(spacing) >= 0, ScanError, f"{path}: voxel sizes {spacing} mm; expected above 0, repair the header")
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


def _locate(path: Path, nrrd: bool, fields: dict[str, str]) -> tuple[Path, bool, bool, int | None]:
    """Return where the voxels lie.

    Returns:
        Their file, whether they are compressed, whether they are the end of the file after a header of any length, and
        the length of the compressed stream, None where it is not said.

    Raises:
        ScanError: They are encoded or placed in a way that is not supported, or in a file that is not there.
    """
    if nrrd:
        name, encoding = fields.get("datafile", ""), fields["encoding"].lower().replace("gzip", "gz")
        skip, length = {fields.get(key, "0") for key in ("byteskip", "lineskip")}, None
    else:
        name = "" if fields["ElementDataFile"].lower() == "local" else fields["ElementDataFile"]
        # MetaIO reads a flag by its first letter.
        binary, packed = (fields.get(key, "F")[:1] in ("T", "t", "1") for key in ("BinaryData", "CompressedData"))
        encoding = "text" if "BinaryData" in fields and not binary else "gz" if packed else "raw"
        skip, length = {fields.get("HeaderSize", "0")}, int(fields.get("CompressedDataSize", 0))
        sizes = [int(size) for size in fields["DimSize"].split()]
        if not 2 <= int(fields["NDims"]) == len(sizes) <= 4 or min(sizes) < 1:
            raise ScanError(f"{path}: {fields['NDims']} axes with sizes {fields['DimSize']}; repair its header")
    several = name.upper().startswith("LIST") or "%" in name
    if encoding not in ("raw", "gz") or not skip <= {"0", "-1" if encoding == "raw" else "0"} or several:
        found = "spread over several files" if several else f"{encoding}, behind {sorted(skip)} bytes or lines"
        raise ScanError(f"{path}: its voxels are {found}; expected raw or gzip in one file, behind none: convert it")
    data = path.parent / name if name else path
    if not data.resolve().is_relative_to(path.parent.resolve()) or not data.is_file():
        raise ScanError(f"{path}: its voxels are missing; expected {name} in its folder")
    return data, encoding == "gz", "-1" in skip, length


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
