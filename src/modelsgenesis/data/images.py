"""PNG, JPEG and TIFF through Pillow: planes without a geometry, photographs or label maps."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from modelsgenesis.data.raster import COLOUR
from modelsgenesis.data.volume import ScanReference, Volume, check_shape, check_size
from modelsgenesis.errors import ScanError, UnreadableScanError
from modelsgenesis.files import open_regular, parsing

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_EXACT = ("PNG", "TIFF", "BMP")  # JPEG and WebP write other numbers than they were given
_MOST_PAGES = 10_000  # a PNG of 100 bytes can claim billions of frames


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per page.

    Raises:
        UnreadableScanError: The file is not an image.
    """
    with _opened(path) as image:
        pages = getattr(image, "n_frames", 1)
        if pages > _MOST_PAGES:
            raise UnreadableScanError(f"{path}: claims {pages:,} images; expected at most {_MOST_PAGES:,} in a file")
        return [
            ScanReference(
                path=path,
                format=image.format or "image",
                shape=(image.height, image.width),
                spacing=None,
                index=index,
                notes=() if image.mode in _GREY_MODES else (COLOUR,),
            )
            for index in (range(pages) if pages > 1 else [None])
        ]


def read(path: Path, index: int | None) -> Volume:
    """Read a page as a photograph, colour made grey; see `modelsgenesis.data.read_volume`."""
    with _opened(path) as image:
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and index is None:
            raise ScanError(f"{path}: holds {pages} images; choose one by its index")
        if index is not None and not 0 <= index < pages:
            raise ScanError(f"{path}: image {index} was asked for, it holds {pages}")
        image.seek(index or 0)
        _check_size(image, path)
        colour = image.mode not in _GREY_MODES
        array = np.asarray(image.convert("RGB").convert("L") if colour else image)
    return _plane(array, str(path) if index is None else f"{path} [{index}]", (COLOUR,) if colour else ())


def read_labels(path: Path) -> Volume:
    """Read an image as a label map: its values, or the indices of its palette, are the labels.

    Raises:
        ScanError: It is in colour, has an alpha channel or several pages, or its format does not keep numbers.
        UnreadableScanError: The file is not an image.
    """
    with _opened(path) as image:
        kind = "JPEG" if "jpeg" in str(image.info.get("compression")) else image.format
        if kind not in _EXACT or image.mode not in (*_GREY_MODES, "P") or getattr(image, "n_frames", 1) > 1:
            raise ScanError(
                f"{path}: {kind} of mode {image.mode} is a picture, not a label map; expected numbers of structures: "
                "save them as a grey or palette PNG"
            )
        return _plane(np.asarray(image), str(path))


def _plane(array: np.ndarray, source: str, notes: tuple[str, ...] = ()) -> Volume:
    numbers = array.astype(np.uint8) if array.dtype == bool else array
    return Volume(array=numbers, affine=np.eye(4), source=source, has_spacing=False, notes=notes)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image on a map of its file: a read beyond its end, as damage asks for, costs nothing."""
    with (
        parsing(path, UnreadableScanError),
        open_regular(path, UnreadableScanError) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        Image.open(content) as image,  # pyright: ignore[reportArgumentType] - it reads, seeks and tells
    ):
        _check_size(image, path)
        if image.format == "PNG":
            Image.open(content).verify()  # pyright: ignore[reportArgumentType] - Pillow skips a pixel's checksum if not told
        yield image


def _check_size(image: Image.Image, path: Path) -> None:
    """Refuse lines, and more pixels than the file can hold: eight in a byte, and those compressed."""
    check_shape((image.height, image.width), str(path))
    check_size(image.height * image.width // 8, path.stat().st_size, str(path), compressed=True)
