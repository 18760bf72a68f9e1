"""Where the images of a labelled case lie: a file, a row of an array, a cube of a scan."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import Volume, reading
from modelsgenesis.errors import ScanError


class ImageSource(Protocol):
    """One channel of one case."""

    @property
    def source(self) -> str:
        """What messages call it."""
        ...

    @property
    def path(self) -> Path:
        """The file that holds it, perhaps among others."""
        ...

    def read(self) -> Volume:
        """Read the voxels.

        Raises:
            ScanError: The file cannot be read or used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FileImage:
    """A file, or one volume of a file that holds several.

    Attributes:
        path: The file, or the folder of a DICOM series.
        index: Which volume of the file; None where it holds one.

    Example:
        FileImage(path=Path("imagesTr/la_003.nii.gz")).read().array.shape  # (320, 320, 130)
    """

    path: Path
    index: int | None = None

    @property
    def source(self) -> str:
        """What messages call it."""
        return str(self.path) if self.index is None else f"{self.path} [{self.index}]"

    def read(self) -> Volume:
        """Read the voxels; see `read_volume`."""
        return read_volume(self.path, self.index)


class ArrayFile:
    """The arrays of an `.npz` file, each read once and kept while the data set is.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}

    def keys(self) -> list[str]:
        """Return the names of its arrays.

        Raises:
            UnreadableScanError: It is no `.npz` file.
        """
        with reading(self.path), np.load(self.path, allow_pickle=False) as content:
            return list(content)

    def read(self, key: str) -> np.ndarray:
        """Return an array.

        Raises:
            UnreadableScanError: The file is damaged or lacks the array.
        """
        if key not in self._arrays:
            with reading(self.path), np.load(self.path, allow_pickle=False) as content:
                self._arrays[key] = content[key]
        return self._arrays[key]


@dataclass(frozen=True, kw_only=True)
class ArrayImage:
    """An image of an array that holds many; it has no geometry.

    Attributes:
        file: The file of the array.
        key: Name of the array, [images, *spatial] or [images, *spatial, channels].
        index: Which image.
        channel: Which channel of colour; None where there is none.
    """

    file: ArrayFile
    key: str
    index: int
    channel: int | None = None

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"{self.path} {self.key}[{self.index}]"

    @property
    def path(self) -> Path:
        """The file of the array."""
        return self.file.path

    def read(self) -> Volume:
        """Return the image."""
        array = self.file.read(self.key)[self.index]
        array = array if self.channel is None else array[..., self.channel]
        return Volume(array=array, affine=np.eye(4), source=self.source, measured=False)


@dataclass
class LastScan:
    """Keeps the scan that was read last: many cubes of one scan follow each other."""

    path: Path | None = None
    volume: Volume | None = field(default=None, repr=False)

    def read(self, path: Path) -> Volume:
        """Return a scan, read anew unless it was the last.

        Raises:
            ScanError: The file cannot be read or used.
        """
        if self.volume is None or self.path != path:
            self.volume, self.path = read_volume(path), path
        return self.volume


@dataclass(frozen=True, kw_only=True)
class CubeImage:
    """A cube of a scan around a point in the world.

    Attributes:
        path: File of the scan.
        centre: Of the cube, in mm in RAS.
        side: Of the cube, in mm.
        scans: Shared among the cubes of a data set.
    """

    path: Path
    centre: tuple[float, float, float]
    side: float
    scans: LastScan = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"{self.path} at {', '.join(f'{value:.1f}' for value in self.centre)} mm"

    def read(self) -> Volume:
        """Cut the cube out; what lies outside of the scan has the scan's lowest value.

        Raises:
            ScanError: The scan cannot be read, or the centre is outside of it.
        """
        scan = self.scans.read(self.path)
        if scan.array.ndim != 3 or scan.spacing is None:
            raise ScanError(f"{self.source}: the scan has no three axes in mm to find the point by")
        centre = np.linalg.inv(scan.affine) @ (*self.centre, 1.0)
        place = np.rint(centre[:3]).astype(int)
        if (place < 0).any() or (place >= scan.array.shape).any():
            raise ScanError(
                f"{self.source}: lies outside of the scan of {scan.array.shape} voxels; check the coordinates"
            )
        sides = [max(round(self.side / size), 1) for size in scan.spacing]
        first = np.array([where - side // 2 for where, side in zip(place, sides, strict=True)])
        shift = np.eye(4)
        shift[:3, 3] = first
        return replace(
            scan, array=_cut(scan.array, first, sides), affine=scan.affine @ shift, source=self.source, header=None
        )


def _cut(array: np.ndarray, first: np.ndarray, sides: list[int]) -> np.ndarray:
    """Return a copy of a box, filled up with the lowest value where it reaches over the edge."""
    inside = tuple(
        slice(max(start, 0), min(start + side, length))
        for start, side, length in zip(first.tolist(), sides, array.shape, strict=True)
    )
    cut = array[inside]
    if cut.shape == tuple(sides):
        return cut.copy()
    box = np.full(sides, array.min(), array.dtype)
    box[
        tuple(slice(part.start - start, part.stop - start) for part, start in zip(inside, first.tolist(), strict=True))
    ] = cut
    return box
