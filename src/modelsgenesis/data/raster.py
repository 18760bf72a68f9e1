"""A header that was understood, of whatever format, and the volumes that it describes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.volume import ScanReference, Volume, check_affine, check_shape, check_size, spacing_of
from modelsgenesis.errors import ScanError

COLOUR = "colour made grey"
"""The note of a volume whose colours were weighted into one number."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it
_MOST_VOLUMES = 10_000  # a long fMRI run has 5,000; each costs a reference, and a header of 1 kB can claim millions


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelLayout:
    """A file whose header was read, checked against what the file can hold.

    Attributes:
        path: The file that was named.
        data: The file that holds the voxels.
        format: Its name, such as `"NIfTI"`.
        shape: Voxels along each spatial axis, 2 or 3 numbers.
        count: Volumes in the file: its points of time, its channels.
        dtype: Of a number in the file.
        affine: (4, 4), from indices of the spatial axes to mm in RAS+.
        stored: Bytes of the file from where the voxels start.
        compressed: Whether these are compressed.
        after: Bytes that may follow the voxels of a file that is not compressed; None where any number may.
        load: Reads a volume by its index: [*spatial], or [*spatial, colours].
        colours: Numbers of a voxel that are red, green, blue and perhaps alpha; else 1.
        header: The header of a NIfTI file.
    """

    path: Path
    data: Path
    format: str
    shape: tuple[int, ...]
    count: int
    dtype: np.dtype
    affine: np.ndarray
    stored: int
    compressed: bool
    after: int | None
    load: Callable[[int], np.ndarray]
    colours: int = 1
    header: Any = None

    def __post_init__(self) -> None:
        source = str(self.path)
        check_shape(self.shape, source)
        if not 1 <= self.count <= _MOST_VOLUMES:
            raise ScanError(
                f"{source}: {self.count:,} volumes by its header; expected 1 to {_MOST_VOLUMES:,}, split it"
            )
        check_affine(self.affine, source)
        if self.dtype.kind not in "iuf":
            raise ScanError(f"{source}: voxels are {self.dtype}; expected real numbers, store the magnitude")
        check_size(self.size, self.stored, source, compressed=self.compressed, after=self.after)

    @property
    def size(self) -> int:
        """Bytes of voxels by the header."""
        return math.prod(self.shape) * self.count * self.colours * self.dtype.itemsize

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading does to the values."""
        return (COLOUR,) if self.colours > 1 else ()

    def references(self) -> list[ScanReference]:
        """Return a reference per volume."""
        return [
            ScanReference(
                path=self.path,
                format=self.format,
                shape=self.shape,
                spacing=spacing_of(self.affine, len(self.shape)),
                index=index,
                files=() if self.data == self.path else (self.path, self.data),
                notes=self.notes,
            )
            for index in (range(self.count) if self.count > 1 else [None])
        ]

    def read(self, index: int | None) -> Volume:
        """Read a volume.

        Raises:
            ScanError: The file holds several volumes and none was chosen, or not the one that was.
            UnreadableScanError: The voxels are damaged or not all there.
        """
        if self.count > 1 and index is None:
            shown = "×".join(map(str, self.shape))
            raise ScanError(f"{self.path}: holds {self.count} volumes of {shown}; choose one by its index")
        if index is not None and not 0 <= index < self.count:
            raise ScanError(f"{self.path}: volume {index} was asked for, it holds {self.count}")
        array = self.load(index or 0)
        return Volume(
            array=grey(array) if self.colours > 1 else array.astype(array.dtype.newbyteorder("="), copy=False),
            affine=self.affine,
            source=str(self.path) if index is None else f"{self.path} [{index}]",
            header=self.header,
            notes=self.notes,
        )


def grey(colours: np.ndarray) -> np.ndarray:
    """Weight [..., red, green, blue] into one number, of the same type.

    Example:
        >>> grey(np.array([[255, 255, 255], [255, 0, 0]], np.uint8)).tolist()
        [255, 76]
    """
    return np.rint(colours[..., :3].astype(np.float32) @ _GREY).astype(colours.dtype)
