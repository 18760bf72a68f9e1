"""Scans in memory, in files and skipped; the layout of the voxels in a file, checked before memory is asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from modelsgenesis.errors import ScanError, printable

COLOUR = "colour made grey"  # the note of a volume whose colours were weighted into one number

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it
_FARTHEST = 1e9  # mm
_FLAT = 1e-4  # of a cube whose axes are parallel but for rounding
_DEFLATE_RATIO = 1032  # deflate cannot shrink data more than this, so a small file cannot ask for all memory
_MOST_VOLUMES = 10_000  # a long fMRI run has 5,000; each costs a reference, and a header of 1 kB can claim millions
_PADDING = 4096  # bytes that writers leave behind the voxels


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where a scan's voxels lie, as its file says it: what a prediction needs to be written in the same frame.

    Attributes:
        shape: Voxels along each axis.
        affine: (4, 4), from voxel indices to mm in RAS+.
        header: The header of a NIfTI file, whose fields can be copied bit for bit; else None.
        has_spacing: Whether the affine is in mm; False for images that carry no geometry.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    header: Any = None
    has_spacing: bool = True

    @property
    def unit(self) -> tuple[str, float]:
        """In what sizes of structures are told, mL or mm², and that of a voxel; without a spacing voxels or pixels."""
        is_volume = len(self.shape) == 3
        if not self.has_spacing:
            return ("voxels" if is_volume else "pixels"), 1.0
        edges = self.affine[:3, : len(self.shape)]  # [3, axes]; Gram's determinant is the square of what they span
        size = math.sqrt(np.linalg.det(edges.T @ edges))  # mm³ or mm²
        return ("mL", size / 1000) if is_volume else ("mm²", size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """An image of two or three axes with its geometry.

    Attributes:
        array: [*spatial], 2 or 3 axes, the file's own dtype after its rescale (HU for CT). Images and single
            frames are [height, width]; everything else has the axes of its affine.
        affine: (4, 4), from voxel indices to mm in RAS+.
        source: What a message calls it.
        modality: What the file says of itself: `"ct"`, `"mri"`, `"xray"`, `"ultrasound"` or None.
        has_spacing: Whether the affine is in mm; False for images that carry no geometry.
        padding: The value of voxels outside the field of view, where the file names one.
        header: The header of a NIfTI file, so that a prediction can carry the same geometry bit for bit.
        notes: What was done to the values on reading, such as colour made grey.
    """

    array: np.ndarray
    affine: np.ndarray
    source: str
    modality: str | None = None
    has_spacing: bool = True
    padding: float | None = None
    header: Any = None
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size in mm along each axis of the array; None for an image without a geometry."""
        return tuple(voxel_sizes(self.affine)[: self.array.ndim].tolist()) if self.has_spacing else None

    @property
    def geometry(self) -> Geometry:
        """Where its voxels lie."""
        own = {"affine": self.affine, "header": self.header, "has_spacing": self.has_spacing}
        return Geometry(shape=self.array.shape, **own)


@dataclass(frozen=True, kw_only=True)
class ScanReference:
    """A scan that was found, known by its header alone.

    Attributes:
        path: The file, or the first file of a series.
        files: Every file that holds a part of it, in order.
        format: Name of the format, such as `"NIfTI"`.
        shape: Voxels along each axis of the volume, 2 or 3 numbers.
        spacing: Voxel size in mm along each axis, None where the file has none.
        modality: What the file or its data set says, None where neither does.
        group: The patient as far as it is known, else the file's stem: what a split must keep together.
        index: Which volume of a file that holds several.
        notes: What reading it will do, such as colour made grey.
        volume: The scan itself, where it is in memory already.
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    modality: str | None = None
    group: str = ""
    index: int | None = None
    notes: tuple[str, ...] = ()
    volume: Volume | None = None

    @property
    def source(self) -> str:
        """What a message calls it."""
        if self.volume is not None:
            return self.volume.source
        if len(self.files) > 2:
            return f"{self.path.parent} [{len(self.files)} slices from {self.path.name}]"
        return str(self.path) if self.index is None else f"{self.path} [{self.index}]"

    def read(self) -> Volume:
        """Read the voxels; see `read_volume`."""
        from modelsgenesis.data.reading import read_volume  # whose readers import this module

        return self.volume or read_volume(self)


@dataclass(frozen=True, kw_only=True)
class SkippedScan:
    """A scan among many that is not used.

    Attributes:
        source: The file, folder or series.
        reason: One line.
        bad: Whether it should have been a scan; False for what was left aside on purpose.
    """

    source: str
    reason: str
    bad: bool = True

    @classmethod
    def because(cls, source: object, problem: object, *, bad: bool = True) -> "SkippedScan":
        """Return what is skipped for an error or a reason, without naming the source twice."""
        shown = printable(str(source))
        return cls(source=shown, reason=str(problem).removeprefix(f"{shown}: "), bad=bad)


@dataclass(kw_only=True, eq=False)
class VoxelLayout:
    """What the header of a file says of its voxels, checked against what the file can hold.

    Attributes:
        files: The file that was named, and the one that holds the voxels where that is another.
        format: Name of the format, such as `"NIfTI"`.
        shape: Voxels along each spatial axis, 2 or 3 numbers.
        voxel_bytes: Bytes that a voxel takes before compression.
        stored: Bytes of the file from where the voxels start.
        compressed: Whether these are compressed.
        load: Reads a volume by its index, [*spatial].
        count: Volumes in the file: its time points, channels or pages.
        affine: (4, 4), from indices of the spatial axes to mm in RAS+; None where there is no geometry.
        open_ended: Whether any number of bytes may follow the voxels.
        header: The header of a NIfTI file.
        notes: What reading does to the values.
        spacing: Voxel size in mm along each spatial axis; None where there is no geometry.
    """

    files: tuple[Path, ...]
    format: str
    shape: tuple[int, ...]
    voxel_bytes: int
    stored: int
    compressed: bool
    load: Callable[[int], np.ndarray]
    count: int = 1
    affine: np.ndarray | None = None
    open_ended: bool = False
    header: Any = None
    notes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        source = str(self.files[0])
        self.spacing = check_geometry(self.shape, self.affine, source)
        if not 1 <= self.count <= _MOST_VOLUMES:
            raise ScanError(f"{source}: {self.count:,} volumes by its header; expected at most {_MOST_VOLUMES:,}")
        size = math.prod(self.shape) * self.count * self.voxel_bytes
        possible = self.stored * (_DEFLATE_RATIO if self.compressed else 1)
        # Damage to a size or a type in a header that is not compressed can show in nothing but bytes left over.
        left_over = not (self.compressed or self.open_ended) and self.stored > size + _PADDING
        if size > possible or left_over:
            raise ScanError(
                f"{source}: its header promises {size:,} bytes of voxels, the file can hold {possible:,}; "
                "it is truncated or damaged, copy it again"
            )


def grey(colours: np.ndarray) -> np.ndarray:
    """Weight [..., red, green, blue] into one number, of the same type.

    Example:
        >>> grey(np.array([[255, 255, 255], [255, 0, 0]], np.uint8)).tolist()
        [255, 76]
    """
    return np.rint(colours[..., :3].astype(np.float32) @ _GREY).astype(colours.dtype)


def check_geometry(shape: tuple[int, ...], affine: np.ndarray | None, source: str) -> tuple[float, ...] | None:
    """Refuse what is neither a plane nor a volume, and an affine that cannot place its voxels; return their sizes.

    Raises:
        ScanError: An axis is empty, all voxels lie on one line, or the affine is not finite or singular.
    """
    if not shape or min(shape) < 1 or sum(side > 1 for side in shape) < 2:
        shown = "×".join(map(str, shape)) or "no"
        raise ScanError(f"{source}: {shown} voxels are empty or lie on one line; expected a plane or a volume")
    if affine is None:
        return None
    with np.errstate(all="ignore"):  # of what is not finite
        sizes = voxel_sizes(affine)
        volume = abs(np.linalg.det(affine[:3, :3] / sizes))  # that unit axes span
    if not ((np.abs(affine) < _FARTHEST).all() and sizes.min() > 0 and volume > _FLAT):
        shown = "×".join(f"{size:g}" for size in sizes)
        raise ScanError(
            f"{source}: its affine is not finite, too large or singular, with voxel sizes {shown} mm; repair the header"
        )
    return tuple(sizes[: len(shape)].tolist())
