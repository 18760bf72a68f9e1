"""Where the images of a labelled case lie: a file, or a row of an array; and fitting them to a size."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
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
# Version 3 is for names of fields beyond Latin-1, which arrays of numbers do not have.
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


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with parsing(path, ScanError), open_regular(path, ScanError) as file, zipfile.ZipFile(file) as archive:
        yield archive


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an `.npz` file.

    Raises:
        ScanError: It is not an `.npz` file.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_array(path: Path, key: str) -> np.ndarray:
    """Return an array [n, …] of real numbers in an `.npz` file; bits become numbers.

    Raises:
        ScanError: The file is damaged, lacks the array, or its header claims other values than real numbers or more
            of them than can be there.
    """
    return _read_array(path, key, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=8)  # as each of thousands of images is read, so that an array is unpacked once
def _read_array(path: Path, key: str, _changed: int) -> np.ndarray:
    with _opened(path) as archive, parsing(f"{path}: {key}", ScanError):
        stored = archive.getinfo(f"{key}.npy")
        # By the header alone: what would be unpickled, is not numbers, or would fill the memory.
        with archive.open(stored) as member:
            shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
        if not shape or dtype.kind not in "biuf":
            raise ScanError(f"{path}: {key} is {dtype} {shape}; expected an array of real numbers")
        size, whole = int(np.prod(shape, dtype=object)) * dtype.itemsize, path.stat().st_size
        if size > min(stored.file_size, max(_ANY_SIZE, _RATIO * whole)):
            raise ScanError(
                f"{path}: {key} claims {size:,} bytes in a file of {whole:,}; it is damaged, or made to fill the memory"
            )
        with archive.open(stored) as member:
            array = npy.read_array(member, allow_pickle=False)
    # Preparation scales numbers; of bits it would compute with True and False.
    return array.view(np.uint8) if array.dtype == bool else array


@dataclass(frozen=True, kw_only=True)
class ArrayImage:
    """An image of an array that holds many; it has no geometry.

    Attributes:
        path: The `.npz` file of the array.
        key: Name of the array, [images, *spatial] or [images, *spatial, channels].
        index: Which image.
        channel: Which channel of colour; None where there is none.
    """

    path: Path
    key: str
    index: int
    channel: int | None = None

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"{self.path} {self.key}[{self.index}]"

    def read(self) -> Volume:
        """Return the image.

        Raises:
            ScanError: The array has not the axes of images.
        """
        array = read_array(self.path, self.key)[self.index]
        array = array if self.channel is None or not array.ndim else array[..., self.channel]
        if array.ndim not in (2, 3):
            raise ScanError(f"{self.source}: has {array.ndim} axes; expected the 2 or 3 of an image")
        return Volume(array=array, affine=np.eye(4), source=self.source, has_spacing=False)


ImageSource = FileImage | ArrayImage | ScanReference
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
    sides = list(zip(image.shape[1:], size, strict=True))
    if fit == "resize" or (fit == "auto" and len(size) == 2):
        return interpolate(image, size, tuple(old / new for old, new in sides))
    # What is too short is padded, what is too long is cut, as much before as behind.
    missing = [(0, 0), *((max(new - old, 0) // 2, (max(new - old, 0) + 1) // 2) for old, new in sides)]
    first = [max(old - new, 0) // 2 for old, new in sides]
    inside = tuple(slice(start, start + new) for start, (_, new) in zip(first, sides, strict=True))
    return np.pad(image[(slice(None), *inside)], missing, constant_values=image.min())
