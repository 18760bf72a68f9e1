"""PNG, JPEG and TIFF through Pillow: planes without a geometry."""

from pathlib import Path

import numpy as np
from PIL import Image

from modelsgenesis.data.raster import COLOUR
from modelsgenesis.data.volume import ScanReference, Volume, check_shape, reading
from modelsgenesis.errors import ScanError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def describe(path: Path) -> list[ScanReference]:
    """Read the header and return a reference per page.

    Raises:
        UnreadableScanError: The file is no image.
    """
    with reading(path), Image.open(path) as image:
        shape = (image.height, image.width)
        check_shape(shape, str(path))
        pages = getattr(image, "n_frames", 1)
        notes = () if image.mode in _GREY_MODES else (COLOUR,)
        return [
            ScanReference(
                path=path, format=image.format or "image", shape=shape, spacing=None, index=index, notes=notes
            )
            for index in (range(pages) if pages > 1 else [None])
        ]


def read(path: Path, index: int | None) -> Volume:
    """Read a page; see `modelsgenesis.data.read_volume`."""
    notes = ()
    with reading(path), Image.open(path) as image:
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and index is None:
            raise ScanError(f"{path}: holds {pages} images; choose one by its index")
        if index is not None and not 0 <= index < pages:
            raise ScanError(f"{path}: image {index} was asked for, it holds {pages}")
        image.seek(index or 0)
        if image.mode not in _GREY_MODES:
            notes = (COLOUR,)
            array = np.asarray(image.convert("RGB").convert("L"))
        else:
            array = np.asarray(image)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    check_shape(array.shape, str(path))
    return Volume(
        array=array,
        affine=np.eye(4),
        source=str(path) if index is None else f"{path} [{index}]",
        measured=False,
        notes=notes,
    )
