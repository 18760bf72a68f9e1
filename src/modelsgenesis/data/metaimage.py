"""MetaImage: `.mha`, and `.mhd` with its voxels beside it, raw or compressed.

Read here and not through ITK, which returns noise for a damaged compressed file and says nothing, and which
asks for whatever memory a header promises.
"""

from pathlib import Path

import numpy as np

from modelsgenesis.data.raster import Raster, describe_raster, lps_affine, read_raster, voxels_beside
from modelsgenesis.data.volume import ScanReference, Volume, check_spacing, reading
from modelsgenesis.errors import ScanError, UnreadableScanError

SUFFIXES = (".mha", ".mhd")

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i8",
    "MET_ULONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_HEADER_BYTES = 2**16


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per volume in the file.

    Raises:
        UnreadableScanError: The header is damaged, or its voxels are missing.
        ScanError: Its geometry cannot be right.
    """
    with reading(path):
        return describe_raster(_header(path), "MetaImage")


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    with reading(path):
        return read_raster(_header(path), index)


def _header(path: Path) -> Raster:
    fields, length = _fields(path)
    axes = int(fields["NDims"])
    sizes = tuple(int(side) for side in fields["DimSize"].split())
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), np.ones(axes))
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(axes).ravel())
    origin = _numbers(fields, ("Offset", "Position", "Origin"), np.zeros(axes))
    if not (2 <= axes <= 4 and len(sizes) == len(spacing) == len(origin) == axes and matrix.size == axes**2):
        raise UnreadableScanError(f"{path}: its header gives {axes} axes and numbers for others; repair it")
    check_spacing(spacing[:3], str(path))
    kind, channels = (
        fields["ElementType"].removesuffix("_ARRAY"),
        int(fields.get("ElementNumberOfChannels", 1)),
    )
    if kind not in _TYPES:
        raise ScanError(f"{path}: voxels of {kind}; expected integers or floating point")
    big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    local = fields["ElementDataFile"].upper() == "LOCAL"
    first = int(channels != 1)  # channels of a voxel lie side by side
    return Raster(
        path=path,
        data=path if local else voxels_beside(path, fields["ElementDataFile"]),
        shape=(channels, *sizes) if first else sizes,
        spatial=tuple(range(first, first + min(axes, 3))),
        colour=channels in (3, 4) and _TYPES[kind] == "u1",
        dtype=np.dtype((">" if big else "<") + _TYPES[kind]),
        affine=lps_affine(matrix.reshape(axes, axes), spacing, origin),
        start=length if local else max(0, int(fields.get("HeaderSize", 0))),
        compression="deflate" if _true(fields, "CompressedData") else None,
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of the header and its length in bytes: it ends with the line of ElementDataFile."""
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    fields, length = {}, 0
    for line in start.splitlines(keepends=True):
        length += len(line)
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    missing = [key for key in ("NDims", "DimSize", "ElementType", "ElementDataFile") if not fields.get(key)]
    if missing:
        raise UnreadableScanError(f"{path}: no {missing[0]} in its header; it is damaged or no MetaImage")
    if fields.get("BinaryData", "True").lower() not in ("true", "1"):
        raise ScanError(f"{path}: its voxels are written as text; expected binary, convert it")
    return fields, length


def _numbers(fields: dict[str, str], names: tuple[str, ...], default: np.ndarray) -> np.ndarray:
    text = next((fields[name] for name in names if name in fields), None)
    return default if text is None else np.array([float(number) for number in text.split()])


def _true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False").lower() in ("true", "1")
