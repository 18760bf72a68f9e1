"""NIfTI (one file or a pair), Analyze and MGH through nibabel."""

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm99analyze import Spm99AnalyzeHeader

from modelsgenesis.data.volume import (
    Geometry,
    ScanReference,
    Volume,
    check_affine,
    check_shape,
    check_size,
    reading,
    spacing_of,
)
from modelsgenesis.errors import DataError, ScanError, ShapeError, UnreadableScanError

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
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it


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
    header, data_path = _header(path)
    shape, count = _spatial(header.get_data_shape())
    spacing = spacing_of(header.get_best_affine(), len(shape))
    notes = ("colour made grey",) if header.get_data_dtype().names else ()
    name = "MGH" if path.suffix in (".mgh", ".mgz") else "Analyze" if _is_analyze(header) else "NIfTI"
    files = () if data_path == path else (path, data_path)
    return [
        ScanReference(
            path=path, format=name, shape=shape, spacing=spacing, index=index, files=files, notes=notes
        )
        for index in (range(count) if count > 1 else [None])
    ]


def read(path: Path, index: int | None) -> Volume:
    """Read a volume; see `modelsgenesis.data.read_volume`."""
    header, data_path = _header(path)
    shape, count = _spatial(header.get_data_shape())
    if count > 1 and index is None:
        raise ScanError(
            f"{path}: holds {count} volumes of {'×'.join(map(str, shape))}; choose one by its index"
        )
    if index is not None and not 0 <= index < count:
        raise ScanError(f"{path}: volume {index} was asked for, it holds {count}")
    with reading(path):
        array = _voxels(ArrayProxy(str(data_path), header, mmap=False), index if count > 1 else None)
    notes = ()
    if array.dtype.names:
        array = np.stack([array[name] for name in "RGB"], axis=-1) @ _GREY
        notes = ("colour made grey",)
    if array.dtype.kind not in "iufb":
        raise ScanError(f"{path}: voxels are {array.dtype}; expected real numbers, store the magnitude")
    return Volume(
        array=array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape, order="F"),
        affine=header.get_best_affine(),
        source=str(path) if index is None else f"{path} [{index}]",
        header=None if path.suffix in (".mgh", ".mgz") or _is_analyze(header) else header,
        notes=notes,
    )


def _voxels(proxy: ArrayProxy, index: int | None) -> np.ndarray:
    """Return one volume, rescaled in single precision where the header has a slope."""
    where: Any = ...
    if index is not None:
        where = (..., *np.unravel_index(index, proxy.shape[3:], order="F"))
    if proxy.slope == 1 and proxy.inter == 0:
        return np.asanyarray(proxy.get_unscaled() if index is None else proxy[where])
    return np.asarray(proxy[where], np.float32)


def _header(path: Path) -> tuple[Any, Path]:
    """Return the checked header and the file of the voxels, which a pair keeps apart.

    The header is read without nibabel's repairs: a voxel size of 0 is refused and not replaced by 1.
    """
    with reading(path):
        if path.suffix in (".mgh", ".mgz"):
            return _mgh_header(path)
        opener = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            kind = _header_class(start, path)
            header = kind.from_fileobj(file, check=False)
        data_path = _data_path(path)
        _check(header, path, data_path)
    return header, data_path


def _header_class(start: bytes, path: Path) -> Any:
    """Choose by the first number, the size of the header, in either byte order."""
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    if 348 in sizes:
        if path.suffix != ".hdr":
            return Nifti1Header
        with path.open("rb") as file:
            magic = file.read(348)[344:347]
        return Nifti1PairHeader if magic == b"ni1" else Spm99AnalyzeHeader
    if 540 in sizes:
        return Nifti2PairHeader if path.suffix == ".hdr" else Nifti2Header
    raise UnreadableScanError(f"{path}: starts with no NIfTI header; it is damaged or of another format")


def _data_path(path: Path) -> Path:
    if path.suffix != ".hdr":
        return path
    for candidate in (path.with_suffix(".img"), path.with_suffix(".img.gz")):
        if candidate.is_file():
            return candidate
    raise UnreadableScanError(
        f"{path}: its voxels are missing; expected {path.with_suffix('.img').name} beside it"
    )


def _is_analyze(header: Any) -> bool:
    return not isinstance(header, Nifti1Header | MGHHeader)


def _mgh_header(path: Path) -> tuple[Any, Path]:
    opener = gzip.open if path.suffix == ".mgz" else open
    with opener(path, "rb") as file:
        header = MGHHeader.from_fileobj(file)
    _check_data(header, path, path)
    check_affine(header.get_best_affine(), str(path))
    return header, path


def _check(header: Any, path: Path, data_path: Path) -> None:
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise UnreadableScanError(f"{path}: its header says {rank} axes; expected 1 to 7, it is damaged")
    _check_data(header, path, data_path)
    if rank == 2 and header["pixdim"][3] == 0:
        header["pixdim"][3] = 1  # a plane has no third size; the affine needs one
    if _is_analyze(header) or not header["sform_code"]:
        sizes = np.asarray(header["pixdim"][1:4], np.float64)
        if not (np.isfinite(sizes).all() and min(sizes[: min(rank, 3)]) > 0):
            shown = "×".join(f"{size:g}" for size in sizes)
            raise ScanError(f"{path}: voxel sizes {shown} mm; expected above 0, repair the header")
    check_affine(header.get_best_affine(), str(path))


def _check_data(header: Any, path: Path, data_path: Path) -> None:
    """Refuse sizes that the file cannot hold."""
    shape = header.get_data_shape()
    check_shape(_spatial(shape)[0], str(path))
    count = int(np.prod([int(side) for side in shape], dtype=object)) * header.get_data_dtype().itemsize
    compressed = data_path.suffix.lower() in (".gz", ".mgz")
    check_size(count, data_path.stat().st_size, str(path), compressed=compressed)


def _spatial(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the shape of one volume and how many there are: axes beyond the third are channels or time."""
    shape = tuple(int(side) for side in shape)
    return shape[:3], int(np.prod(shape[3:], dtype=object)) if len(shape) > 3 else 1


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
        raise ShapeError(
            f"{path}: an array of {array.shape}; expected the scan's {like.shape}, see to_native"
        )
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
