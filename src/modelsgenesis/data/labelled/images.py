"""Where the images of a labelled case lie: a file, a row of an array, a patch of a scan; and fitting them to a size."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy

from modelsgenesis.data.preparation import interpolate
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import ScanReference, Volume
from modelsgenesis.errors import ScanError, ShapeError
from modelsgenesis.files import open_regular, parsing

Fit = Literal["auto", "resize", "crop"]

# Real images shrink to a tenth, masks to a 200th and a bomb of zeros to a 1,000th; what is small may be any of them.
_ANY_SIZE, _RATIO = 1 << 30, 50
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


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
    """The arrays of real numbers in an `.npz` file, each read once and kept while the data set is.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}

    def keys(self) -> list[str]:
        """Return the names of its arrays.

        Raises:
            ScanError: It is not an `.npz` file.
        """
        with self._opened() as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    def read(self, key: str) -> np.ndarray:
        """Return an array [n, …]; bits become numbers.

        Raises:
            ScanError: The file is damaged, lacks the array, or its header claims other values than real numbers or
                more of them than can be there.
        """
        if key not in self._arrays:
            with self._opened() as archive, parsing(f"{self.path}: {key}", ScanError):
                self._check(key, archive)
                with archive.open(f"{key}.npy") as member:
                    array = npy.read_array(member, allow_pickle=False)
            self._arrays[key] = array.view(np.uint8) if array.dtype == bool else array
        return self._arrays[key]

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with (
            parsing(self.path, ScanError),
            open_regular(self.path, ScanError) as file,
            zipfile.ZipFile(file) as archive,
        ):
            yield archive

    def _check(self, key: str, archive: zipfile.ZipFile) -> None:
        """Refuse by the header alone what would be unpickled, is not numbers, or would fill the memory."""
        stored = archive.getinfo(f"{key}.npy")
        with archive.open(stored) as member:
            shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
        if not shape or dtype.kind not in "biuf":
            raise ScanError(f"{self.path}: {key} is {dtype} {shape}; expected an array of real numbers")
        size, whole = int(np.prod(shape, dtype=object)) * dtype.itemsize, self.path.stat().st_size
        if size > min(stored.file_size, max(_ANY_SIZE, _RATIO * whole)):
            raise ScanError(
                f"{self.path}: {key} claims {size:,} bytes in a file of {whole:,}; it is damaged, or made to fill the "
                "memory"
            )


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
        """Return the image.

        Raises:
            ScanError: The array has not the axes of images.
        """
        array = self.file.read(self.key)[self.index]
        array = array if self.channel is None or not array.ndim else array[..., self.channel]
        if array.ndim not in (2, 3):
            raise ScanError(f"{self.source}: has {array.ndim} axes; expected the 2 or 3 of an image")
        return Volume(array=array, affine=np.eye(4), source=self.source, has_spacing=False)


@dataclass(frozen=True, kw_only=True)
class PatchImage:
    """A patch of a scan around a point in the world.

    Attributes:
        path: File of the scan.
        centre: Its centre, in mm in RAS.
        side: Length of its sides, in mm.
        last: The scan that was read last, shared among the patches of a data set: many of one scan follow each other.
    """

    path: Path
    centre: tuple[float, float, float]
    side: float
    last: dict[Path, Volume] = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"{self.path} at {', '.join(f'{value:.1f}' for value in self.centre)} mm"

    def read(self) -> Volume:
        """Cut the patch out; outside of the scan it has the scan's lowest value.

        Raises:
            ScanError: The scan cannot be read, or the centre is outside of it.
        """
        if self.path not in self.last:
            self.last.clear()  # one scan at a time: LUNA16 has 888 of half a gigabyte
            self.last[self.path] = read_volume(self.path)
        scan = self.last[self.path]
        if scan.array.ndim != 3 or scan.spacing is None:
            raise ScanError(f"{self.source}: the scan has no three axes in mm to find the point by")
        place = np.rint((np.linalg.inv(scan.affine) @ (*self.centre, 1.0))[:3])
        if not ((place >= 0) & (place < scan.array.shape)).all():
            raise ScanError(
                f"{self.source}: lies outside of the scan of {scan.array.shape} voxels; check the coordinates"
            )
        sides = [max(round(self.side / size), 1) for size in scan.spacing]
        shift = np.eye(4)  # from the patch's voxels to the scan's
        shift[:3, 3] = place - np.array(sides) // 2
        patch = cut_box(scan.array, shift[:3, 3].astype(int).tolist(), sides)
        return replace(scan, array=patch, affine=scan.affine @ shift, source=self.source, header=None)


ImageSource = FileImage | ArrayImage | PatchImage | ScanReference
"""One channel of one case: `source` is what messages call it, `path` its file, and `read()` gives the `Volume`."""


def resize_or_crop(image: np.ndarray, size: tuple[int, ...], fit: Fit = "auto") -> np.ndarray:
    """Bring an image to a size.

    Args:
        image: float32 [channels, *spatial].
        size: [*sides].
        fit: `"resize"` interpolates linearly and averages where it shrinks; `"crop"` cuts or pads with the lowest
            value around the centre; `"auto"` resizes planes and crops volumes, whose voxels have a size in mm.

    Returns:
        float32 [channels, *size]; the image itself where it has the size.

    Raises:
        ShapeError: The image has other axes than the size.

    Example:
        >>> resize_or_crop(np.ones((1, 256, 200), np.float32), (128, 128)).shape
        (1, 128, 128)
    """
    if image.ndim != len(size) + 1:
        raise ShapeError(f"image of shape {image.shape}: expected [channels, {len(size)} spatial axes]")
    if image.shape[1:] == size:
        return image
    if fit == "resize" or (fit == "auto" and len(size) == 2):
        steps = tuple(old / new for old, new in zip(image.shape[1:], size, strict=True))
        return interpolate(image, size, steps)
    first = [int((old - new) / 2) for old, new in zip(image.shape[1:], size, strict=True)]  # towards 0 on either side
    return cut_box(image, (0, *first), (len(image), *size))


def cut_box(array: np.ndarray, first: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """Return a copy of a box that overlaps an array, filled up with the lowest value where it reaches over the edge.

    Example:
        >>> cut_box(np.array([3, 1, 2]), [1], [4]).tolist()
        [1, 2, 1, 1]
    """
    ends = [start + side for start, side in zip(first, sides, strict=True)]
    inside = tuple(slice(max(start, 0), end) for start, end in zip(first, ends, strict=True))
    margins = [(max(-a, 0), max(b - length, 0)) for a, b, length in zip(first, ends, array.shape, strict=True)]
    return np.pad(array[inside], margins, constant_values=array.min())
