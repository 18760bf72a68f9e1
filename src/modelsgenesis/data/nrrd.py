"""NRRD: `.nrrd`, and `.nhdr` with its voxels beside it. Read here for the same reasons as MetaImage."""

import re
from pathlib import Path

import numpy as np

from modelsgenesis.data.payload import Compression
from modelsgenesis.data.raster import Raster, describe_raster, lps_affine, read_raster, voxels_beside
from modelsgenesis.data.volume import ScanReference, Volume, check_spacing, reading
from modelsgenesis.errors import ScanError, UnreadableScanError

SUFFIXES = (".nrrd", ".nhdr")

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
_ENCODINGS: dict[str, Compression] = {
    "raw": None,
    "gzip": "deflate",
    "gz": "deflate",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_IN_SPACE = ("domain", "space")
_HEADER_BYTES = 2**20


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per volume in the file.

    Raises:
        UnreadableScanError: The header is damaged, or its voxels are missing.
        ScanError: Its geometry cannot be right, or its encoding is text.
    """
    with reading(path):
        return describe_raster(_header(path), "NRRD")


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    with reading(path):
        return read_raster(_header(path), index)


def _header(path: Path) -> Raster:
    fields, length = _fields(path)
    sizes = tuple(int(side) for side in fields["sizes"].split())
    if len(sizes) != int(fields["dimension"]) or not 2 <= len(sizes) <= 5:
        raise UnreadableScanError(f"{path}: {len(sizes)} sizes for {fields['dimension']} axes; repair its header")
    kinds = fields.get("kinds", "").lower().split()
    spatial, affine = _geometry(fields, len(sizes), kinds, path)
    kind = _CODES.get(fields["type"].lower())
    if kind is None:
        raise ScanError(f"{path}: voxels of type {fields['type']!r}; expected integers or floating point")
    encoding = fields["encoding"].lower()
    if encoding not in _ENCODINGS:
        raise ScanError(f"{path}: its voxels are encoded as {encoding}; expected raw, gzip or bzip2, convert it")
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    name = fields.get("data file", fields.get("datafile"))
    skip, compression = int(fields.get("byte skip", fields.get("byteskip", 0))), _ENCODINGS[encoding]
    if skip < 0 or int(fields.get("line skip", fields.get("lineskip", 0))) != 0:
        raise ScanError(f"{path}: its header skips lines, or bytes from the end; expected bytes from the start")
    start = length if name is None else 0
    return Raster(
        path=path,
        data=path if name is None else voxels_beside(path, name),
        shape=sizes,
        spatial=spatial,
        colour=len(others) == 1 and kind == "u1" and sizes[others[0]] in (3, 4),
        dtype=np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + kind),
        affine=affine,
        start=start if compression else start + skip,
        skip=skip if compression else 0,
        compression=compression,
    )


def _geometry(fields: dict[str, str], axes: int, kinds: list[str], path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return which axes are space and the affine of these."""
    if "space directions" in fields:
        vectors = re.findall(r"none|\(([^)]*)\)", fields["space directions"].lower())
        if len(vectors) != axes:
            raise UnreadableScanError(f"{path}: {len(vectors)} space directions for {axes} axes; repair its header")
        spatial = tuple(axis for axis, vector in enumerate(vectors) if vector)[:3]  # a fourth is time
        directions = np.array([[float(part) for part in vectors[axis].split(",")[:3]] for axis in spatial])
    else:
        spatial = tuple(axis for axis in range(axes) if not kinds or kinds[axis] in _IN_SPACE)[:3]
        spacings = fields.get("spacings", " ".join(["1"] * axes)).split()
        sizes = np.array([float(spacings[axis]) for axis in spatial])
        sizes = np.where(np.isnan(sizes), 1.0, sizes)  # the format's word for "unknown"
        check_spacing(sizes, str(path))
        directions = np.diag(sizes)
    if len(spatial) not in (2, 3) or directions.ndim != 2:
        raise ScanError(f"{path}: {len(spatial)} axes lie in space; expected 2 or 3")
    space = fields.get("space", "left-posterior-superior").lower()
    if space not in _SPACES and directions.shape[1] == 3:
        raise ScanError(f"{path}: space {space!r}; expected one of left, right, anterior, posterior, superior")
    signs = np.array(_SPACES.get(space, (1, 1, 1)))[: directions.shape[1]]
    origin = np.zeros(directions.shape[1])
    if "space origin" in fields:
        origin = np.array([float(part) for part in fields["space origin"].strip("() ").split(",")[:3]])
    return spatial, lps_affine(directions * signs, np.ones(len(spatial)), origin * signs)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of the header and its length in bytes: it ends with an empty line."""
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if not start.startswith(b"NRRD000"):
        raise UnreadableScanError(f"{path}: starts with no NRRD header; it is damaged or of another format")
    fields, length = {}, 0
    for line in start.splitlines(keepends=True):
        length += len(line)
        if not line.strip():
            break
        key, colon, value = line.decode("latin-1").partition(":")
        if colon and not value.startswith("=") and not line.startswith(b"#"):
            fields[key.strip().lower()] = value.strip()
    missing = [key for key in ("dimension", "sizes", "type", "encoding") if not fields.get(key)]
    if missing:
        raise UnreadableScanError(f"{path}: no {missing[0]!r} in its header; it is damaged")
    return fields, length
