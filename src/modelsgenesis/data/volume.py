"""A scan in memory, a scan that was found, and a scan that was refused."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.errors import ScanError, UnreadableScanError
from modelsgenesis.files import parsing

_FARTHEST = 1e9  # mm
_DEFLATE_RATIO = 1032  # deflate cannot shrink data more than this


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where a scan's voxels lie, as its file says it: what an answer needs to be written in the same frame.

    Attributes:
        shape: Voxels along each axis.
        affine: (4, 4), from voxel indices to mm in RAS+.
        header: The header of a NIfTI file, whose fields can be copied bit for bit; else None.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    header: Any = None


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
        header: The header of a NIfTI file, so that an answer can carry the same geometry bit for bit.
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
        return spacing_of(self.affine, self.array.ndim) if self.has_spacing else None

    @property
    def geometry(self) -> Geometry:
        """Its frame, without its voxels."""
        return Geometry(shape=self.array.shape, affine=self.affine, header=self.header)


@dataclass(frozen=True, kw_only=True)
class ScanReference:
    """A scan that was found, known by its header alone.

    Attributes:
        path: The file, or the first file of a series.
        format: Name of the format, such as `"NIfTI"`.
        shape: Voxels along each axis of the volume, 2 or 3 numbers.
        spacing: Voxel size in mm along each axis, None where the file has none.
        modality: What the file or its data set says, None where neither does.
        group: The patient as far as it is known, else the file's stem: what a split must keep together.
        index: Which volume of a file that holds several.
        files: All files of a scan that is kept in several, in order; empty for a single file.
        notes: What reading it will do, such as colour made grey.
    """

    path: Path
    format: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    modality: str | None = None
    group: str = ""
    index: int | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What a message calls it."""
        if len(self.files) > 2:
            return f"{self.path.parent} [{len(self.files)} slices from {self.path.name}]"
        return str(self.path) if self.index is None else f"{self.path} [{self.index}]"

    @property
    def parts(self) -> tuple[Path, ...]:
        """Every file that holds a part of it."""
        return self.files or (self.path,)

    def read(self) -> Volume:
        """Read the voxels; see `read_volume`."""
        from modelsgenesis.data.reading import read_volume

        return read_volume(self)


@dataclass(frozen=True, kw_only=True)
class SkippedScan:
    """One bad scan among many.

    Attributes:
        source: The file, folder or series.
        reason: One line.
        bad: Whether it should have been a scan; False for what was left aside on purpose.
    """

    source: str
    reason: str
    bad: bool = True


def file_stem(path: Path) -> str:
    """Return a file's name without its ending, `.nii.gz` counting as one.

    Example:
        >>> file_stem(Path("scans/c02.nii.gz"))
        'c02'
    """
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def spacing_of(affine: np.ndarray, axes: int = 3) -> tuple[float, ...]:
    """Return the voxel size in mm along each axis of an affine.

    Example:
        >>> spacing_of(np.diag([0.7, 0.7, 2.5, 1.0]))
        (0.7, 0.7, 2.5)
    """
    return tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))[:axes]


def check_shape(shape: tuple[int, ...], source: str) -> None:
    """Refuse what is neither a plane nor a volume.

    Raises:
        ScanError: An axis is empty, or all voxels lie on one line.
    """
    shown = "×".join(map(str, shape))
    if not shape or min(shape) < 1:
        raise ScanError(f"{source}: {shown or 'no'} voxels, so it is empty; expected a plane or a volume")
    if sum(side > 1 for side in shape) < 2:
        raise ScanError(f"{source}: {shown} voxels lie on one line; expected a plane or a volume")


def check_spacing(spacing: np.ndarray, source: str) -> None:
    """Refuse voxel sizes of zero, below zero, or that are no numbers.

    Raises:
        ScanError: One of them is.
    """
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        shown = "×".join(f"{size:g}" for size in spacing)
        raise ScanError(f"{source}: voxel sizes {shown} mm; expected above 0, repair the header")


def check_affine(affine: np.ndarray, source: str) -> None:
    """Refuse a geometry that cannot place voxels in space.

    Raises:
        ScanError: The affine is not finite, or singular.
    """
    if not (np.abs(affine) < _FARTHEST).all():
        raise ScanError(f"{source}: its affine holds numbers that are not finite or too large; repair the header")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if min(sizes) <= 0:
        raise ScanError(f"{source}: a voxel size of {min(sizes):g} mm; expected above 0, repair the header")
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-4:
        raise ScanError(f"{source}: its affine is singular (two axes are parallel); repair the header")


def check_size(count: int, stored: int, source: str, *, compressed: bool, after: int | None = None) -> None:
    """Refuse a header that promises more than the file can hold, before memory is asked for, or much less.

    Args:
        count: Bytes of voxels by the header.
        stored: Bytes in the file.
        source: What a message calls it.
        compressed: Whether they are compressed.
        after: Bytes that may follow the voxels of a file that is not compressed; None for any number. Damage to a
            size or type in a header can show in nothing else.

    Raises:
        UnreadableScanError: The file is too short, or too long.
    """
    possible = stored * _DEFLATE_RATIO if compressed else stored
    if count > possible or (after is not None and not compressed and stored > count + after):
        raise UnreadableScanError(
            f"{source}: its header promises {count:,} bytes of voxels, the file can hold {possible:,}; it is truncated "
            "or damaged, copy it again"
        )


def reading(source: object) -> AbstractContextManager[None]:
    """Turn whatever a decoder raises on a damaged file into one error that names the file; see `files.parsing`.

    Raises:
        UnreadableScanError: The block raised anything but an error of this package.
    """
    return parsing(source, UnreadableScanError)
