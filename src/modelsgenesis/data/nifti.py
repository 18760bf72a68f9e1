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

from modelsgenesis.data.volume import COLOUR, Geometry, VoxelLayout, check_spacing, grey
from modelsgenesis.errors import DataError, ScanError, ShapeError
from modelsgenesis.files import open_regular, replacing

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz")

_GEOMETRY_FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
_GEOMETRY_FIELDS += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")
_UNITS = {1: 1000.0, 3: 0.001}  # metres and microns in mm; ITK takes whatever else for mm as well
_HEADER_BYTES = 540  # of NIfTI-2, the longest
_MGH_VERSION, _MGH_BYTES = b"\0\0\0\1", 284
_PIECE, _TAIL = 2**20, 2**24  # what follows the voxels is read to reach the checksum, in pieces, up to a limit


class Placed(Protocol):
    """Whatever knows the frame of a scan: a `Volume`, a `PreparedVolume`."""

    @property
    def geometry(self) -> Geometry:
        """The frame."""
        ...


def layout_of(path: Path) -> VoxelLayout:
    """Read the header.

    Raises:
        ScanError: It is damaged, promises more than the file holds, or its geometry cannot be right.
    """
    header = _header(path)
    nifti, mgh = isinstance(header, Nifti1Header), isinstance(header, MGHHeader)
    shape = tuple(int(side) for side in header.get_data_shape())
    volumes = [side or 1 for side in shape[3:]]  # axes that a writer left at 0, as ITK reads them
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    if (dtype[0] if dtype.names else dtype).kind not in "iuf":
        raise ScanError(f"{path}: voxels are {dtype}; expected real numbers, store the magnitude")
    if offset < (header.single_vox_offset if nifti and header.is_single else 0):
        raise ScanError(f"{path}: its voxels start at byte {offset}, within its header; it is damaged")
    affine = header.get_best_affine()
    if nifti:
        affine[:3] *= _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    data = _data_path(path)
    size, promised = data.stat().st_size, math.prod(shape[:3]) * math.prod(volumes) * dtype.itemsize
    with open_regular(data, ScanError) as file:
        packed = file.read(2) == b"\x1f\x8b"
    if data != path and data.suffix != ".gz" and size - offset == promised:
        packed = False  # voxels of a pair may begin like a compressed file

    def load(index: int) -> np.ndarray:
        array = _voxels(data, packed, shape[:3], dtype, offset, index, promised)
        return grey(np.stack([array[name] for name in dtype.names], -1)) if dtype.names else _scaled(array, header)

    return VoxelLayout(
        path=path,
        format="MGH" if mgh else "NIfTI" if nifti else "Analyze",
        shape=shape[:3],
        voxel_bytes=dtype.itemsize,
        stored=size if packed else size - offset,
        compressed=packed,
        load=load,
        count=math.prod(volumes),
        affine=affine,
        data=None if data == path else data,
        open_ended=mgh,  # a footer of any length follows its voxels
        header=header if nifti else None,
        notes=(COLOUR,) if dtype.names else (),
    )


@contextmanager
def _opened(path: Path, packed: bool | None = None) -> Iterator[Any]:
    """Open a file, decompressing what is compressed: its first bytes say it, names do not always."""
    with open_regular(path, ScanError) as file:
        if packed is None:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
        yield gzip.GzipFile(fileobj=file) if packed else file


def _header(path: Path) -> Any:
    """Return the header without nibabel's repairs, of which one would make 1 mm of a voxel size of 0, but for qfac."""
    suffix = path.suffix.lower()
    with _opened(path) as file:
        block = file.read(_HEADER_BYTES)
    if suffix in (".mgh", ".mgz") and block.startswith(_MGH_VERSION):
        return MGHHeader(block[:_MGH_BYTES], check=False)
    kinds = (Nifti2Header, Nifti1Header) if suffix in (".nii", ".gz") else ()
    if suffix == ".hdr":
        kinds = (Nifti2PairHeader, Nifti1PairHeader, Spm99AnalyzeHeader)
    for kind in kinds:
        if kind.may_contain_header(block):
            return _checked(kind(block[: kind.sizeof_hdr], check=False), path)
    name = "MGH" if suffix.startswith(".mg") else "NIfTI"
    raise ScanError(f"{path}: starts with no {name} header; it is damaged or of another format")


def _checked(header: Any, path: Path) -> Any:
    rank, sizes = int(header["dim"][0]), header["pixdim"]
    if not 1 <= rank <= 7:
        raise ScanError(f"{path}: its header says {rank} axes; expected 1 to 7, it is damaged")
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
    raise ScanError(f"{path}: its voxels are missing; expected {path.with_suffix('.img').name} beside it")


def _voxels(
    path: Path, packed: bool, shape: tuple[int, ...], dtype: np.dtype, offset: int, index: int, promised: int
) -> np.ndarray:
    """Return the stored numbers of a volume, [*spatial].

    A compressed file is read to its end, where its checksum is compared: nibabel stops at the last voxel, and
    returns noise for a damaged one.
    """
    size = math.prod(shape) * dtype.itemsize
    with _opened(path, packed) as file:
        array = array_from_file(shape, dtype, file, offset + index * size, mmap=False)
        left = promised - (index + 1) * size + _TAIL
        while packed and (piece := file.read(_PIECE)):
            left -= len(piece)
            if left < 0:
                raise ScanError(f"{path}: goes on after its voxels; its header is damaged, copy it again")
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
        write_nifti("labels.nii.gz", to_native(labels, prepared), scan)
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
        # Few readers take the wide types, and NIfTI has neither bool nor float16.
        array = array.astype({"b": np.uint8, "f": np.float32}.get(array.dtype.kind, np.int32))
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
