"""Scans that are in memory already, nibabel images, arrays and tensors, as the same references that files have."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from modelsgenesis.data.nifti import affine_in_mm
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import COLOUR, ScanReference, Volume, grey
from modelsgenesis.errors import ScanError, require
from modelsgenesis.files import parsing

Scan = str | Path | FileBasedImage | np.ndarray | Tensor
"""A scan on disk or in memory; for type checkers `nibabel.load` returns a `FileBasedImage`."""


def loaded_scans(scan: Any, *, channels: int, dims: int, affine: Any = None) -> tuple[ScanReference, ...]:
    """Return the channels of a scan that is in memory.

    Args:
        scan: A nibabel image, whose fourth axis are its channels; an array or a tensor, [*spatial] or
            [channels, *spatial]; or several of these and of files, one for each channel.
        channels: Of the model.
        dims: Of the model; one of two dimensions takes volumes as well, slice by slice.
        affine: Of arrays, (4, 4), from voxel indices to mm in RAS+. A volume needs one.

    Raises:
        ScanError: It is something else, has other axes, or lacks an affine.

    Example:
        loaded_scans(nib.load("scan.nii.gz"), channels=1, dims=3)[0].read().array.shape  # (512, 512, 133)
    """
    given = list(scan) if isinstance(scan, (list, tuple)) else [scan]
    found: list[tuple[Path | None, Volume]] = []
    for number, one in enumerate(given):
        suffix = f" {number + 1}" if len(given) > 1 else ""
        if isinstance(one, (str, Path)):
            found.append((Path(one), read_volume(one)))
        elif isinstance(one, SpatialImage):
            require(affine is None, ScanError, "affine: a nibabel image has its own; expected none beside it")
            name = one.get_filename()
            path = Path(name) if name else None
            found += [(path, volume) for volume in _of_image(one, str(path or f"image{suffix}"))]
        else:
            each = channels if len(given) == 1 else 1
            found += [(None, volume) for volume in _of_array(one, each, dims, affine, f"array{suffix}")]
    count, what = len(found), f"{found[0][1].source}: holds {len(found)} volumes" if found else "received no scan"
    takes = f"{channels} channels" if channels > 1 else "one volume"
    require(count == channels, ScanError, f"{what}; the model takes {takes}")
    return tuple(
        ScanReference(
            path=path or Path("scan"),
            files=(path,) if path else (),
            format="memory",
            shape=volume.array.shape,
            spacing=volume.spacing,
            volume=volume,
        )
        for path, volume in found
    )


def _of_image(image: SpatialImage, source: str) -> list[Volume]:
    """Return the volumes of a nibabel image in the order of its file."""
    header, affine = None, image.affine
    if isinstance(image, nib.Nifti1Pair):
        header = type(image)(image.dataobj, affine, image.header).header  # follows an affine that was changed
        affine = affine_in_mm(header)
    require(affine is not None, ScanError, f"{source}: has no affine; expected one, from voxel indices to mm")
    kind: Any = image.get_data_dtype()
    require(kind.names or kind.kind in "biuf", ScanError, f"{source}: voxels are {kind}; expected real numbers")
    with parsing(source, ScanError):  # the file is read only now
        if kind.names:
            stored = np.asanyarray(image.dataobj)
            array = grey(np.stack([stored[name] for name in kind.names], -1))
        else:
            array = np.asanyarray(image.dataobj, dtype=np.float32)  # not float64, which nibabel scales to
    options = {"header": header, "notes": (COLOUR,) if kind.names else ()}
    volumes = np.moveaxis(array.reshape((*array.shape[:3], -1), order="F"), -1, 0) if array.ndim > 3 else [array]
    return [Volume(array=volume, affine=np.asarray(affine), source=source, **options) for volume in volumes]


def _of_array(given: Any, channels: int, dims: int, affine: Any, source: str) -> list[Volume]:
    """Return the channels of an array or tensor; MONAI's tensors carry an affine."""
    affine = getattr(given, "affine", None) if affine is None else affine
    if hasattr(given, "detach"):  # a tensor
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScanError(f"{source}: cannot be read as an array: {error}") from error
    received = f"a {type(given).__name__}" if array.dtype.kind not in "biuf" else ""
    require(not received, ScanError, f"received {received}; expected a path, a nibabel image or an array of numbers")
    notes, allowed = (), (3,) if dims == 3 else (2, 3)
    if dims == 2 and channels == 1 and array.ndim == 3 and array.shape[-1] in (3, 4) and array.dtype == np.uint8:
        array, notes = grey(array), (COLOUR,)
    elif array.ndim - 1 in allowed and len(array) == channels:
        return [one for part in array for one in _of_array(part, 0, dims, affine, source)]
    shown, axes = "×".join(map(str, array.shape)), "three axes" if dims == 3 else "height and width"
    expected = f"{channels} channels, then {axes}" if channels > 1 else axes
    require(channels < 2 and array.ndim in allowed, ScanError, f"{source}: its shape is {shown}; expected {expected}")
    has_affine = affine is not None
    remedy = "pass affine=, (4, 4), from voxel indices to mm to the right, front and top"
    require(has_affine or array.ndim == 2, ScanError, f"{source}: a volume of {shown} needs its geometry: {remedy}")
    with parsing("affine", ScanError, what="as numbers", remedy="expected (4, 4)"):
        matrix = np.asarray(affine if has_affine else np.eye(4), np.float64)
    require(matrix.shape == (4, 4), ScanError, f"affine: its shape is {matrix.shape}; expected (4, 4)")
    array = array.astype(np.uint8) if array.dtype == bool else array
    return [Volume(array=array, affine=matrix, source=source, has_spacing=has_affine, notes=notes)]
