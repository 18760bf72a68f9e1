"""Scans in memory, in files and skipped; the layout of the voxels in a file, checked before memory is asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.errors import ScanError

COLOUR = "colour made grey"  # the note of a volume whose colours were weighted into one number

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it
_FARTHEST = 1e9  # mm
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
        """Read the voxels, as every `ImageSource` can; see `read_volume`."""
        from modelsgenesis.data.reading import read_volume  # whose readers import this module

        return read_volume(self)


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
        return cls(source=str(source), reason=str(problem).removeprefix(f"{source}: "), bad=bad)


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelLayout:
    """What the header of a file says of its voxels, checked against what the file can hold.

    Attributes:
        path: The file that was named.
        format: Its name, such as `"NIfTI"`.
        shape: Voxels along each spatial axis, 2 or 3 numbers.
        voxel_bytes: Bytes that a voxel takes before compression.
        stored: Bytes of the file from where the voxels start.
        compressed: Whether these are compressed.
        load: Reads a volume by its index, [*spatial].
        count: Volumes in the file: its time points, channels or pages.
        affine: (4, 4), from indices of the spatial axes to mm in RAS+; None where there is no geometry.
        data: The file that holds the voxels, where that is another.
        open_ended: Whether any number of bytes may follow the voxels.
        header: The header of a NIfTI file.
        notes: What reading does to the values.
    """

    path: Path
    format: str
    shape: tuple[int, ...]
    voxel_bytes: int
    stored: int
    compressed: bool
    load: Callable[[int], np.ndarray]
    count: int = 1
    affine: np.ndarray | None = None
    data: Path | None = None
    open_ended: bool = False
    header: Any = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shape(self.shape, str(self.path))
        if not 1 <= self.count <= _MOST_VOLUMES:
            limits = f"expected 1 to {_MOST_VOLUMES:,}, split it"
            raise ScanError(f"{self.path}: {self.count:,} volumes by its header; {limits}")
        if self.affine is not None:
            check_affine(self.affine, str(self.path))
        possible = self.stored * (_DEFLATE_RATIO if self.compressed else 1)
        # Damage to a size or a type in a header that is not compressed can show in nothing but bytes left over.
        left_over = not (self.compressed or self.open_ended) and self.stored > self.size + _PADDING
        if self.size > possible or left_over:
            raise ScanError(
                f"{self.path}: its header promises {self.size:,} bytes of voxels, the file can hold {possible:,}; "
                "it is truncated or damaged, copy it again"
            )

    @property
    def size(self) -> int:
        """Bytes of voxels by the header."""
        return math.prod(self.shape) * self.count * self.voxel_bytes

    def references(self) -> list[ScanReference]:
        """Return a reference per volume."""
        return [
            ScanReference(
                path=self.path,
                format=self.format,
                shape=self.shape,
                spacing=None if self.affine is None else spacing_of(self.affine, len(self.shape)),
                index=index,
                files=(self.path, self.data) if self.data else (),
                notes=self.notes,
            )
            for index in (range(self.count) if self.count > 1 else [None])
        ]

    def read(self, index: int | None) -> Volume:
        """Read a volume.

        Raises:
            ScanError: The file holds several volumes and none was chosen, or not the one that was; or the voxels are
                damaged or not all there.
        """
        check_index(index, self.count, self.path)
        array = self.load(index or 0)
        return Volume(
            array=array.astype(array.dtype.newbyteorder("="), copy=False),
            affine=np.eye(4) if self.affine is None else self.affine,
            source=str(self.path) if index is None else f"{self.path} [{index}]",
            has_spacing=self.affine is not None,
            header=self.header,
            notes=self.notes,
        )


def check_index(index: int | None, count: int, path: Path) -> None:
    """Refuse to guess which of several volumes is meant.

    Raises:
        ScanError: None was chosen, or one that is not there.
    """
    if count > 1 and index is None:
        raise ScanError(f"{path}: holds {count} volumes or images; choose one by its index")
    if index is not None and not 0 <= index < count:
        raise ScanError(f"{path}: volume {index} was asked for, it holds {count}")


def grey(colours: np.ndarray) -> np.ndarray:
    """Weight [..., red, green, blue] into one number, of the same type.

    Example:
        >>> grey(np.array([[255, 255, 255], [255, 0, 0]], np.uint8)).tolist()
        [255, 76]
    """
    return np.rint(colours[..., :3].astype(np.float32) @ _GREY).astype(colours.dtype)


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
    """Refuse voxel sizes of zero, below zero, or that are not finite: an affine would mirror a scan or hide them.

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
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-4:  # the volume that unit axes span
        raise ScanError(f"{source}: its affine is singular (two axes are parallel); repair the header")
