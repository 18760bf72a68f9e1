"""PNG, JPEG and TIFF through Pillow: planes without a geometry, photographs or label maps."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from modelsgenesis.data.volume import COLOUR, Volume, VoxelLayout
from modelsgenesis.errors import ScanError
from modelsgenesis.files import open_regular, parsing

_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_EXACT = ("PNG", "TIFF", "BMP")  # JPEG and WebP write other numbers than they were given


def read_header(path: Path) -> VoxelLayout:
    """Read the header; a page of a TIFF is an image, and colour will be made grey.

    Raises:
        ScanError: The file is not an image, or promises more pixels than it can hold.
    """
    with _opened(path) as image:
        return _layout(path, image)


def _layout(path: Path, image: Image.Image) -> VoxelLayout:
    def load(page: int) -> np.ndarray:
        with _opened(path) as image:
            image.seek(page)
            _layout(path, image)  # checks the size of this page
            return _numbers(image if image.mode in _GREY_MODES else image.convert("RGB").convert("L"))

    return VoxelLayout(
        files=(path,),
        format=image.format or "image",
        shape=(image.height, image.width),
        voxel_bytes=1,
        stored=8 * path.stat().st_size,  # eight pixels in a byte, and those compressed
        compressed=True,
        load=load,
        count=getattr(image, "n_frames", 1),
        notes=() if image.mode in _GREY_MODES else (COLOUR,),
    )


def read_labels(path: Path) -> Volume:
    """Read an image as a label map: its values, or the indices of its palette, are the labels.

    Raises:
        ScanError: It is not an image, is in colour, has an alpha channel or several pages, or its format does not keep
            numbers.
    """
    with _opened(path) as image:
        _layout(path, image)
        kind = "JPEG" if "jpeg" in str(image.info.get("compression")) else image.format
        if kind not in _EXACT or image.mode not in (*_GREY_MODES, "P") or getattr(image, "n_frames", 1) > 1:
            raise ScanError(
                f"{path}: {kind} of mode {image.mode} is a picture, not a label map; expected numbers of structures: "
                "save them as a grey or palette PNG"
            )
        return Volume(array=_numbers(image), affine=np.eye(4), source=str(path), has_spacing=False)


def _numbers(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array.astype(np.uint8) if array.dtype == bool else array


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image on a map of its file: a read beyond its end, as damage asks for, costs nothing."""
    with (
        parsing(path, ScanError),
        open_regular(path, ScanError) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        Image.open(content) as image,  # pyright: ignore[reportArgumentType] - it reads, seeks and tells
    ):
        if image.format == "PNG":
            Image.open(content).verify()  # pyright: ignore[reportArgumentType] - Pillow skips a pixel's checksum if not told
        yield image
