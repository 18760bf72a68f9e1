"""NIfTI (one file or a pair), Analyze and MGH through nibabel."""

import gzip
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm99analyze import Spm99AnalyzeHeader

from modelsgenesis.data.raster import Raster, describe_raster, read_raster
from modelsgenesis.data.volume import Geometry, ScanReference, Volume, check_spacing, reading
from modelsgenesis.errors import DataError, ShapeError, UnreadableScanError

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz")
_GEOMETRY_FIELDS = (
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
)
_GEOMETRY_FIELDS += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")


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
        header = _header(path)
        name = "MGH" if isinstance(header, MGHHeader) else "NIfTI" if _is_nifti(header) else "Analyze"
        return describe_raster(_raster(header, path), name)


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    with reading(path):
        header = _header(path)
        volume = read_raster(_raster(header, path), index)
    return replace(volume, header=header) if _is_nifti(header) else volume


def _raster(header: Any, path: Path) -> Raster:
    """Return where the voxels lie; axes beyond the third are channels or time."""
    shape = tuple(int(side) for side in header.get_data_shape())
    dtype, colour = header.get_data_dtype(), False
    space = tuple(range(min(len(shape), 3)))
    if dtype.names:  # RGB: three bytes a voxel
        shape, space = (len(dtype.names), *shape), tuple(axis + 1 for axis in space)
        dtype, colour = np.dtype(np.uint8), True
    data = _data_path(path)
    packed = data.suffix.lower() in (".gz", ".mgz")
    offset = int(header.get_data_offset())
    slope, intercept = header.get_slope_inter()
    if offset < 0:
        raise UnreadableScanError(f"{path}: its voxels start at byte {offset}; the header is damaged")
    return Raster(
        path=path,
        data=data,
        shape=shape,
        spatial=space,
        colour=colour,
        dtype=dtype,
        affine=header.get_best_affine(),
        start=0 if packed else offset,
        skip=offset if packed else 0,
        compression="deflate" if packed else None,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _header(path: Path) -> Any:
    """Return the header, read without nibabel's repairs: a voxel size of 0 is not replaced by 1."""
    packed = path.suffix.lower() in (".gz", ".mgz")
    with (gzip.open if packed else open)(path, "rb") as file:
        if path.suffix.lower() in (".mgh", ".mgz"):
            return MGHHeader.from_fileobj(file)
        start = file.read(348)
        file.seek(0)
        header = _header_class(start, path).from_fileobj(file, check=False)
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise UnreadableScanError(f"{path}: its header says {rank} axes; expected 1 to 7, it is damaged")
    if rank == 2 and header["pixdim"][3] == 0:
        header["pixdim"][3] = 1  # a plane has no third size; the affine needs one
    if not _is_nifti(header) or not header["sform_code"]:
        check_spacing(np.asarray(header["pixdim"][1 : 1 + min(rank, 3)], np.float64), str(path))
    return header


def _header_class(start: bytes, path: Path) -> Any:
    """Choose by the first number, the size of the header, in either byte order, and by the magic word."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    pair = path.suffix.lower() == ".hdr"
    if 348 in sizes:
        known = start[344:347] in (b"ni1", b"n+1")
        return Spm99AnalyzeHeader if not known else Nifti1PairHeader if pair else Nifti1Header
    if 540 in sizes:
        return Nifti2PairHeader if pair else Nifti2Header
    raise UnreadableScanError(f"{path}: starts with no NIfTI header; it is damaged or of another format")


def _data_path(path: Path) -> Path:
    """Return the file of the voxels, which a pair keeps apart."""
    if path.suffix.lower() != ".hdr":
        return path
    for suffix in (".img", ".img.gz", ".IMG"):
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise UnreadableScanError(f"{path}: its voxels are missing; expected {path.with_suffix('.img').name} beside it")


def _is_nifti(header: Any) -> bool:
    return isinstance(header, Nifti1Header)


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
    header = like.header
    array = _native_shape(array, header)
    if array.dtype == bool or array.dtype.itemsize == 8 or array.dtype == np.float16:
        narrow = {"b": np.uint8, "f": np.float32}.get(array.dtype.kind, np.int32)
        array = array.astype(narrow)
    two = isinstance(header, Nifti2Header)
    image = (nib.Nifti2Image if two else nib.Nifti1Image)(array, like.affine)
    if header is not None:
        for field in _GEOMETRY_FIELDS:
            image.header[field] = header[field]
        image.header["pixdim"][:4] = header["pixdim"][:4]
    _save_atomically(image, path)
    return path


def _native_shape(array: np.ndarray, header: Any) -> np.ndarray:
    """Give back the trailing axes of length 1 that the scan's file has."""
    shape = () if header is None else tuple(int(side) for side in header.get_data_shape())
    return array.reshape(shape) if len(shape) > array.ndim and np.prod(shape) == array.size else array


def _save_atomically(image: Any, path: Path) -> None:
    suffix = ".nii.gz" if path.name.lower().endswith(".nii.gz") else ".nii"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        nib.save(image, temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
