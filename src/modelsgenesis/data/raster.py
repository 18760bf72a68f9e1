"""A header that was understood, of whatever format, and the volumes that it describes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsgenesis.data.payload import Compression, read_voxels
from modelsgenesis.data.volume import (
    ScanReference,
    Volume,
    check_affine,
    check_shape,
    check_size,
    spacing_of,
)
from modelsgenesis.errors import ScanError, UnreadableScanError

COLOUR = "colour made grey"
"""The note of a volume whose colours were weighted into one number."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """Where the voxels of a file lie and what they mean.

    Attributes:
        path: The file that was named.
        data: The file that holds the voxels.
        shape: Lengths of all axes, the fastest first.
        spatial: Which of them are space, 2 or 3; the others are channels or time.
        colour: Whether the one axis that is not space is red, green, blue.
        dtype: Of a voxel, byte order included.
        affine: (4, 4), from indices of the spatial axes to mm in RAS+.
        start: Where the voxels, or their compressed stream, start in the file.
        skip: Bytes of the decompressed stream before the voxels.
        compression: Of the voxels.
        slope: Stored values times this,
        intercept: plus this, are the values.
    """

    path: Path
    data: Path
    shape: tuple[int, ...]
    spatial: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    colour: bool = False
    start: int = 0
    skip: int = 0
    compression: Compression = None
    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        source = str(self.path)
        check_shape(tuple(self.shape[axis] for axis in self.spatial), source)
        check_shape((*self.shape, 2, 2), source)  # no axis of channels may be empty
        check_affine(self.affine, source)
        if self.dtype.kind not in "iuf":
            raise ScanError(f"{source}: voxels are {self.dtype}; expected real numbers, store the magnitude")
        if self.compression != "bzip2":
            stored = self.data.stat().st_size - self.start
            size = self.skip + self.voxels * self.dtype.itemsize
            check_size(size, stored, source, compressed=self.compression is not None)

    @property
    def space(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(self.shape[axis] for axis in self.spatial)

    @property
    def voxels(self) -> int:
        """Numbers in the file."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def count(self) -> int:
        """Volumes in the file; colours are one."""
        return 1 if self.colour else self.voxels // int(np.prod(self.space, dtype=object))


def describe_raster(raster: Raster, name: str) -> list[ScanReference]:
    """Return a reference per volume."""
    return [
        ScanReference(
            path=raster.path,
            format=name,
            shape=raster.space,
            spacing=spacing_of(raster.affine, len(raster.space)),
            index=index,
            files=() if raster.data == raster.path else (raster.path, raster.data),
            notes=(COLOUR,) if raster.colour else (),
        )
        for index in (range(raster.count) if raster.count > 1 else [None])
    ]


def read_raster(raster: Raster, index: int | None) -> Volume:
    """Read a volume.

    Raises:
        ScanError: The file holds several volumes and none was chosen, or not the one that was.
        UnreadableScanError: The voxels are damaged or not all there.
    """
    shown = "×".join(map(str, raster.space))
    if raster.count > 1 and index is None:
        raise ScanError(f"{raster.path}: holds {raster.count} volumes of {shown}; choose one by its index")
    if index is not None and not 0 <= index < raster.count:
        raise ScanError(f"{raster.path}: volume {index} was asked for, it holds {raster.count}")
    array = _voxels(raster, index or 0)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if (raster.slope, raster.intercept) != (1.0, 0.0):
        array = array.astype(np.float32) * np.float32(raster.slope) + np.float32(raster.intercept)
    return Volume(
        array=array,
        affine=raster.affine,
        source=str(raster.path) if index is None else f"{raster.path} [{index}]",
        notes=(COLOUR,) if raster.colour else (),
    )


def _voxels(raster: Raster, index: int) -> np.ndarray:
    """Return the stored values of a volume, [*spatial]."""
    place = {"start": raster.start, "compression": raster.compression}
    if raster.spatial == tuple(range(len(raster.spatial))) and not raster.colour:  # volume after volume
        voxels = int(np.prod(raster.space))
        skip = raster.skip + index * voxels * raster.dtype.itemsize
        flat = read_voxels(raster.data, raster.dtype, voxels, skip=skip, **place)
        return flat.reshape(raster.space, order="F")
    flat = read_voxels(raster.data, raster.dtype, raster.voxels, skip=raster.skip, **place)
    others = [axis for axis in range(len(raster.shape)) if axis not in raster.spatial]
    array = flat.reshape(raster.shape, order="F").transpose(*raster.spatial, *others)
    array = array.reshape(*raster.space, -1, order="F")
    if raster.colour:
        return grey(array)
    return array[..., index].copy(order="F")


def grey(colours: np.ndarray) -> np.ndarray:
    """Weight [..., red, green, blue] into one number, of the same type.

    Example:
        >>> grey(np.array([[255, 255, 255], [255, 0, 0]], np.uint8)).tolist()
        [255, 76]
    """
    return np.rint(colours[..., :3].astype(np.float32) @ _GREY).astype(colours.dtype)


def lps_affine(directions: np.ndarray, spacing: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return the affine in RAS+ of a geometry that formats state towards left, posterior, superior.

    Args:
        directions: (axes, 2 or 3), the direction of each axis.
        spacing: (axes,) mm.
        origin: (2 or 3,) mm, the centre of the first voxel.

    Example:
        >>> lps_affine(np.eye(3), np.array([0.7, 0.7, 2.5]), np.zeros(3)).diagonal().tolist()
        [-0.7, -0.7, 2.5, 1.0]
    """
    affine = np.eye(4)
    axes, dims = directions.shape
    axes, dims = min(axes, 3), min(dims, 3)
    affine[:dims, :axes] = (directions[:axes, :dims] * spacing[:axes, None]).T
    affine[:dims, 3] = origin[:dims]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def voxels_beside(path: Path, name: str) -> Path:
    """Return the file of the voxels that a header names; it must lie in the header's folder or below.

    Raises:
        ScanError: The header names a list of files.
        UnreadableScanError: The file is not there.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(f"{path}: its voxels are spread over a list of files; expected one, convert it")
    data = path.parent / name
    if not data.resolve().is_relative_to(path.parent.resolve()) or not data.is_file():
        raise UnreadableScanError(f"{path}: its voxels are missing; expected {name} beside it")
    return data
