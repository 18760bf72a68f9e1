"""NIfTI (one file or a pair), Analyze and MGH through nibabel, compressed or not, whatever the name says."""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm99analyze import Spm99AnalyzeHeader
from nibabel.volumeutils import array_from_file

from modelsgenesis.data.raster import VoxelLayout
from modelsgenesis.data.volume import Geometry, ScanReference, Volume, check_spacing, reading
from modelsgenesis.errors import DataError, ShapeError, UnreadableScanError
from modelsgenesis.files import open_regular, replacing

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz")

_GEOMETRY_FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
_GEOMETRY_FIELDS += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")
_UNITS = {1: 1000.0, 3: 0.001}  # metres and microns in mm; ITK takes whatever else for mm as well
_HEADER_BYTES = 540  # of NIfTI-2, the longest
_MGH_VERSION, _MGH_BYTES = b"\0\0\0\1", 284
_AFTER = 4096  # bytes of padding that may follow the voxels; those of MGH are followed by a footer of any length
_PIECE, _TAIL = 2**20, 2**24  # what follows the voxels is read to reach the checksum, in pieces, up to a limit


class Placed(Protocol):
    """Whatever knows the frame of a scan: a `Volume`, a `PreparedVolume`."""

    @property
    def geometry(self) -> Geometry:
        """The frame."""
        ...


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per volume in the file.

    Raises:
        UnreadableScanError: The header is damaged, or promises more than the file holds.
        ScanError: Its geometry cannot be right.
    """
    with reading(path):
        return _raster(path).references()


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    with reading(path):
        return _raster(path).read(index)


def _raster(path: Path) -> VoxelLayout:
    header = _header(path)
    nifti, mgh = isinstance(header, Nifti1Header), isinstance(header, MGHHeader)
    shape = tuple(int(side) for side in header.get_data_shape())
    shape = shape[:3] + tuple(side or 1 for side in shape[3:])  # axes that a writer left at 0, as ITK reads them
    stored_type, offset = header.get_data_dtype(), int(header.get_data_offset())
    colours = len(stored_type.names) if stored_type.names else 1
    if offset < (header.single_vox_offset if nifti and header.is_single else 0):
        raise UnreadableScanError(f"{path}: its voxels start at byte {offset}, within its header; it is damaged")
    affine = header.get_best_affine()
    if nifti:
        affine[:3] *= _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    data = _data_path(path)
    stored = data.stat().st_size - offset
    with open_regular(data, UnreadableScanError) as file:
        packed = file.read(2) == b"\x1f\x8b"
    if data != path and data.suffix != ".gz" and stored == math.prod(shape) * stored_type.itemsize:
        packed = False  # voxels of a pair may begin like a compressed file

    def load(index: int) -> np.ndarray:
        array = _voxels(data, packed, shape, stored_type, offset, index)
        return np.stack([array[name] for name in stored_type.names], -1) if colours > 1 else _scaled(array, header)

    return VoxelLayout(
        path=path,
        data=data,
        format="MGH" if mgh else "NIfTI" if nifti else "Analyze",
        shape=shape[:3],
        count=math.prod(shape[3:]),
        dtype=stored_type[0] if colours > 1 else stored_type,
        affine=affine,
        stored=stored + offset if packed else stored,
        compressed=packed,
        after=None if mgh else _AFTER,
        load=load,
        colours=colours,
        header=header if nifti else None,
    )


@contextmanager
def _opened(path: Path, packed: bool | None = None) -> Iterator[Any]:
    """Open a file, decompressing what is compressed: its first bytes say it, names do not always."""
    with open_regular(path, UnreadableScanError) as file:
        if packed is None:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
        yield gzip.GzipFile(fileobj=file) if packed else file


def _header(path: Path) -> Any:
    """Return the header without nibabel's repairs, of which one would make 1 mm of a voxel size of 0, but for qfac."""
    with _opened(path) as file:
        block = file.read(_HEADER_BYTES)
    if path.suffix.lower() in (".mgh", ".mgz") and block.startswith(_MGH_VERSION):
        return MGHHeader(block[:_MGH_BYTES], check=False)
    kinds = (Nifti2Header, Nifti1Header) if path.suffix.lower() in (".nii", ".gz") else ()
    if path.suffix.lower() == ".hdr":
        kinds = (Nifti2PairHeader, Nifti1PairHeader, Spm99AnalyzeHeader)
    for kind in kinds:
        if kind.may_contain_header(block):
            return _checked(kind(block[: kind.sizeof_hdr], check=False), path)
    name = "MGH" if path.suffix.lower().startswith(".mg") else "NIfTI"
    raise UnreadableScanError(f"{path}: starts with no {name} header; it is damaged or of another format")


def _checked(header: Any, path: Path) -> Any:
    rank, sizes = int(header["dim"][0]), header["pixdim"]
    if not 1 <= rank <= 7:
        raise UnreadableScanError(f"{path}: its header says {rank} axes; expected 1 to 7, it is damaged")
    if rank == 2 and sizes[3] == 0:
        sizes[3] = 1  # a plane has no third size; the affine needs one
    analyze = isinstance(header, Spm99AnalyzeHeader)
    if not analyze and abs(sizes[0]) != 1:
        sizes[0] = 1  # qfac, of which the standard says that 0 means 1
    if analyze or int(header["sform_code"]) <= 0:
        check_spacing(np.asarray(sizes[1 : 1 + min(rank, 3)], np.float64), str(path))
    return header


def _data_path(path: Path) -> Path:
    """Return the file of the voxels, which a pair keeps apart."""
    if path.suffix.lower() != ".hdr":
        return path
    for suffix in (".img", ".img.gz", ".IMG"):
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise UnreadableScanError(f"{path}: its voxels are missing; expected {path.with_suffix('.img').name} beside it")


def _voxels(path: Path, packed: bool, shape: tuple[int, ...], dtype: np.dtype, offset: int, index: int) -> np.ndarray:
    """Return the stored numbers of a volume, [*spatial].

    A compressed file is read to its end, where its checksum is compared: nibabel stops at the last voxel, and
    returns noise for a damaged one.
    """
    volume = math.prod(shape[:3]) * dtype.itemsize
    with _opened(path, packed) as file:
        array = array_from_file(shape[:3], dtype, file, offset + index * volume, mmap=False)
        rest = volume * (math.prod(shape[3:]) - 1 - index) + _TAIL
        while packed and (piece := file.read(_PIECE)):
            rest -= len(piece)
            if rest < 0:
                raise UnreadableScanError(f"{path}: goes on after its voxels; its header is damaged, copy it again")
    return array


def _scaled(array: np.ndarray, header: Any) -> np.ndarray:
    """Apply slope and intercept; nibabel ignores a slope of 0, NaN or infinity, as the standard says."""
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept or 0) == (1, 0):
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # voxels that become infinite are refused when they are used
        return array.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0)


def write_nifti(path: str | Path, array: np.ndarray, like: Placed | Geometry | np.ndarray) -> Path:
    """Write a label map or probabilities in a scan's own frame, atomically.

    Args:
        path: A file ending in `.nii` or `.nii.gz`; its folder is made if it is not there.
        array: [*spatial] of the scan's shape, or [*spatial, channels].
        like: The scan, or its prepared volume; where it came from NIfTI its geometry fields are copied bit
            for bit, and nothing else of its header. Or an affine (4, 4).

    Returns:
        The path.

    Raises:
        ShapeError: The array has another shape than the scan.
        DataError: The file cannot be written.

    Example:
        write_nifti("answer.nii.gz", to_native(labels, prepared), scan)
    """
    path = Path(path)
    if isinstance(like, np.ndarray):
        like = Geometry(shape=array.shape, affine=like)
    elif not isinstance(like, Geometry):
        like = like.geometry
    if array.shape[: len(like.shape)] != like.shape:
        raise ShapeError(f"{path}: an array of {array.shape}; expected the scan's {like.shape}, see to_native")
    array = _native_shape(array, like.header)
    if array.dtype == bool or array.dtype.itemsize == 8 or array.dtype == np.float16:
        narrow = {"b": np.uint8, "f": np.float32}.get(array.dtype.kind, np.int32)
        array = array.astype(narrow)
    kind = nib.Nifti2Image if isinstance(like.header, Nifti2Header) else nib.Nifti1Image
    if like.header is None:
        image = kind(array, like.affine)
    else:  # without an affine, from which nibabel would compute the fields anew
        image = kind(array, None, dtype=array.dtype)
        for field in _GEOMETRY_FIELDS:
            image.header[field] = like.header[field]
        image.header["pixdim"][:4] = like.header["pixdim"][:4]
    with replacing(path, DataError, suffix=".nii.gz" if path.name.lower().endswith(".gz") else ".nii") as temporary:
        nib.save(image, temporary)
    return path


def _native_shape(array: np.ndarray, header: Any) -> np.ndarray:
    """Give back the trailing axes of length 1 that the scan's file has."""
    shape = () if header is None else tuple(int(side) for side in header.get_data_shape())
    return array.reshape(shape) if len(shape) > array.ndim and np.prod(shape) == array.size else array
