"""PNG, JPEG and TIFF."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.data import find_scans, read_volume
from modelsgenesis.errors import DataError, ScanError


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("u1", "png"), ("?", "png"), ("u2", "png"), ("f4", "tif"), ("i4", "tiff")]
)
def test_grey_images_keep_their_values(tmp_path: Path, dtype: str, suffix: str) -> None:
    array = np.arange(20).reshape(4, 5).astype(dtype)
    Image.fromarray(array).save(tmp_path / f"x.{suffix}")
    (scan,), _ = find_scans(tmp_path)
    volume = read_volume(scan)
    assert (scan.shape, scan.spacing, volume.spacing) == ((4, 5), None, None)
    assert volume.array.dtype == ("u1" if dtype == "?" else dtype)
    np.testing.assert_array_equal(volume.array, array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "CMYK"])
def test_colour_becomes_grey_and_says_so(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (5, 4), (0, 100, 0)).convert(mode).save(tmp_path / f"x.{suffix}")
    volume = read_volume(tmp_path / f"x.{suffix}")
    assert (volume.notes, volume.array.shape) == (("colour made grey",), (4, 5))
    assert np.abs(volume.array.astype(int) - 59).max() <= 2


def test_pages_are_images_and_billions_of_them_are_refused(tmp_path: Path) -> None:
    pages = [Image.new("L", (5, 4), value) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    scans, _ = find_scans(tmp_path)
    assert [int(read_volume(scan).array.max()) for scan in scans] == [1, 2, 3]
    with pytest.raises(ScanError, match=r"3 was asked for"):
        read_volume(tmp_path / "x.tif", 3)
    pages[0].save(tmp_path / "x.png", save_all=True, append_images=pages[1:])
    start, rest = (tmp_path / "x.png").read_bytes().split(b"acTL")
    chunk = b"acTL" + (2**31 - 1).to_bytes(4, "big") + rest[4:8]
    (tmp_path / "x.png").write_bytes(start + chunk + zlib.crc32(chunk).to_bytes(4, "big") + rest[12:])
    with pytest.raises(DataError, match=r"x\.png: 2,147,483,647 volumes"):
        find_scans(tmp_path / "x.png")


@pytest.mark.parametrize("kept", [0, 4, 8, 30, 1000])
def test_damaged_images_are_refused(tmp_path: Path, kept: int) -> None:
    Image.effect_noise((50, 40), 90).save(tmp_path / "y.png")
    (tmp_path / "y.png").write_bytes((tmp_path / "y.png").read_bytes()[:kept])
    with pytest.raises(ScanError, match=r"y\.png: cannot be read: "):
        read_volume(tmp_path / "y.png")
