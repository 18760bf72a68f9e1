"""NIfTI (one file or a pair), Analyze and MGH through nibabel, compressed or not, whatever the name says."""

import gzip
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.volumeutils import array_from_file

from modelsgenesis.data.volume import COLOUR, Geometry, Volume, VoxelLayout, grey
from modelsgenesis.errors import DataError, ScanError, ShapeError, require
from modelsgenesis.files import open_regular, replacing

if TYPE_CHECKING:
    from modelsgenesis.data.preparation import PreparedVolume

_GEOMETRY_FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
_GEOMETRY_FIELDS += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")
_UNITS = {1: 1000.0, 3: 0.001}  # metres and microns in mm; ITK takes whatever else for mm as well
_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540  # of NIfTI-2, the longest
_MGH_VERSION, _MGH_BYTES = b"\0\0\0\1", 284
_PIECE, _TAIL = 2**20, 2**24  # what follows the voxels is read to reach the checksum, in pieces, up to a limit


def read_header(path: Path) -> VoxelLayout:
    """Read the header.

    Raises:
        ScanError: It is damaged, promises more than the file holds, or its geometry cannot be right.
    """
    header, packed = _header(path)
    nifti, mgh = isinstance(header, nib.Nifti1Header), isinstance(header, MGHHeader)
    shape = tuple(int(side) for side in header.get_data_shape())
    count = math.prod(side or 1 for side in shape[3:])  # axes that a writer left at 0, as ITK reads them
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    if (dtype[0] if dtype.names else dtype).kind not in "iuf":
        raise ScanError(f"{path}: voxels are {dtype}; expected real numbers, store the magnitude")
    if offset < (header.single_vox_offset if nifti and header.is_single else 0):
        raise ScanError(f"{path}: its voxels start at byte {offset}, within its header; it is damaged")
    data, promised = path, math.prod(shape[:3]) * count * dtype.itemsize
    if path.suffix.lower() == ".hdr":
        beside = [path.with_suffix(suffix) for suffix in (".img", ".img.gz", ".IMG")]
        data = next(filter(Path.is_file, beside), None)
        if data is None:
            raise ScanError(f"{path}: its voxels are missing; expected {beside[0].name} beside it")
        with open_regular(data, ScanError) as file:  # voxels that are not compressed may begin as if they were
            packed = file.read(2) == _GZIP and (data.suffix == ".gz" or data.stat().st_size != offset + promised)
    return VoxelLayout(
        files=(path,) if data == path else (path, data),
        format="MGH" if mgh else "NIfTI" if nifti else "Analyze",
        shape=shape[:3],
        voxel_bytes=dtype.itemsize,
        stored=data.stat().st_size - (0 if packed else offset),
        compressed=packed,
        load=partial(_load, data, packed, header, promised),
        count=count,
        affine=affine_in_mm(header) if nifti else header.get_best_affine(),
        open_ended=mgh,  # a footer of any length follows its voxels
        header=header if nifti else None,
        notes=(COLOUR,) if dtype.names else (),
    )


def affine_in_mm(header: Any) -> np.ndarray:
    """Return the affine (4, 4) of a NIfTI header, from voxel indices to mm in RAS+, whatever its unit."""
    affine = header.get_best_affine()
    affine[:3] *= _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _header(path: Path) -> tuple[Any, bool]:
    """Return the header and whether the file is compressed, which its first bytes say and names do not always.

    Nibabel's repairs, of which one would make 1 mm of a voxel size of 0, are left out, but for qfac.
    """
    suffix = path.suffix.lower()
    with open_regular(path, ScanError) as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        block = (gzip.GzipFile(fileobj=file) if packed else file).read(_HEADER_BYTES)
    if suffix in (".mgh", ".mgz"):
        expected = "starts with no MGH header; it is damaged or of another format"
        require(block.startswith(_MGH_VERSION), ScanError, f"{path}: {expected}")
        return MGHHeader(block[:_MGH_BYTES], check=False), packed
    pair = (nib.Nifti2Pair, nib.Nifti1Pair, nib.Spm99AnalyzeImage)
    kinds = [image.header_class for image in (pair if suffix == ".hdr" else (nib.Nifti2Image, nib.Nifti1Image))]
    kind = next((kind for kind in kinds if kind.may_contain_header(block)), None)
    header: Any = kind and kind(block[: kind.sizeof_hdr], check=False)
    rank = int(header["dim"][0]) if kind else 0
    if not 1 <= rank <= 7:
        raise ScanError(f"{path}: starts with no NIfTI header of 1 to 7 axes; it is damaged or of another format")
    sizes, analyze = header["pixdim"], not isinstance(header, nib.Nifti1Header)
    if rank == 2 and sizes[3] == 0:
        sizes[3] = 1  # a plane has no third size; the affine needs one
    if not analyze and abs(sizes[0]) != 1:
        sizes[0] = 1  # qfac, of which the standard says that 0 means 1
    used = sizes[1 : 1 + min(rank, 3)]
    if (analyze or int(header["sform_code"]) <= 0) and min(used) < 0:  # the affine would mirror the scan
        raise ScanError(f"{path}: voxel sizes {used.tolist()} mm; expected above 0, repair the header")
    return header, packed


def _load(path: Path, packed: bool, header: Any, promised: int, index: int) -> np.ndarray:
    """Return a volume, [*spatial], after slope and intercept.

    A compressed file is read to its end, where its checksum is compared: nibabel stops at the last voxel, and
    returns noise for a damaged one.
    """
    shape = tuple(int(side) for side in header.get_data_shape()[:3])  # MGH's are int32, whose products overflow
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    size = math.prod(shape) * dtype.itemsize
    with open_regular(path, ScanError) as stored:
        file: Any = gzip.GzipFile(fileobj=stored) if packed else stored
        array = array_from_file(shape, dtype, file, offset + index * size, mmap=False)
        left = promised - (index + 1) * size + _TAIL
        while packed and (piece := file.read(_PIECE)):
            left -= len(piece)
            require(left >= 0, ScanError, f"{path}: goes on after its voxels; its header is damaged, copy it again")
    if dtype.names:
        return grey(np.stack([array[name] for name in dtype.names], -1))
    slope, intercept = header.get_slope_inter()  # a slope of 0, NaN or infinity means none, as the standard says
    if slope is None or (slope, intercept or 0) == (1, 0):
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # voxels that become infinite are refused when they are used
        return array.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0)


def nifti_image(array: np.ndarray, like: "PreparedVolume | Volume | Geometry | np.ndarray") -> nib.Nifti1Image:
    """Return a label map or probabilities as an image in a scan's own frame.

    Args:
        array: [*spatial] of the scan's shape, or [*spatial, channels].
        like: The scan, or its prepared volume; where it came from NIfTI its geometry fields are copied bit
            for bit, and nothing else of its header. Or an affine (4, 4).

    Raises:
        ShapeError: The array has another shape than the scan.
    """
    if isinstance(like, np.ndarray):
        like = Geometry(shape=array.shape, affine=like)
    elif not isinstance(like, Geometry):
        like = like.geometry
    if array.shape[: len(like.shape)] != like.shape:
        raise ShapeError(f"an array of {array.shape}; expected the scan's {like.shape}, see to_native")
    stored = like.shape if like.header is None else like.header.get_data_shape()
    if len(stored) > array.ndim and math.prod(stored) == array.size:
        array = array.reshape(stored)  # with the trailing axes of length 1 that the scan's file has
    if array.dtype == bool or array.dtype.itemsize == 8 or array.dtype == np.float16:
        # Few readers take the wide types, and NIfTI has neither bool nor float16.
        array = array.astype({"b": np.uint8, "f": np.float32}.get(array.dtype.kind, np.int32))
    kind = nib.Nifti2Image if isinstance(like.header, nib.Nifti2Header) else nib.Nifti1Image
    if like.header is None:
        return kind(array, like.affine)
    header = kind(array, None, dtype=array.dtype).header  # with the shape, which sets voxel sizes
    for field in _GEOMETRY_FIELDS:
        header[field] = like.header[field]
    header["pixdim"][:4] = like.header["pixdim"][:4]
    return kind(array, header.get_best_affine(), header)  # the affine that is there: no field is computed anew


def write_nifti(path: str | Path, array: np.ndarray, like: "PreparedVolume | Volume | Geometry | np.ndarray") -> Path:
    """Write a label map or probabilities in a scan's own frame, atomically; see `nifti_image`.

    Args:
        path: A file ending in `.nii` or `.nii.gz`; its folder is made if it is not there.
        array: [*spatial] of the scan's shape, or [*spatial, channels].
        like: The scan, its prepared volume, or an affine (4, 4).

    Returns:
        The path.

    Raises:
        ShapeError: The array has another shape than the scan.
        DataError: The file cannot be written.

    Example:
        write_nifti("labels.nii.gz", to_native(labels, prepared), scan)
    """
    path, image = Path(path), nifti_image(array, like)
    with replacing(path, DataError, suffix=".nii.gz" if path.name.lower().endswith(".gz") else ".nii") as temporary:
        nib.save(image, temporary)
    return path
