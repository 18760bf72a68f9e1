"""MetaImage and NRRD, against SimpleITK's writers and readers; and the damage that those pass over."""

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from modelsgenesis.data import find_scans, read_volume
from modelsgenesis.errors import ScanError, UnreadableScanError

sitk = pytest.importorskip("SimpleITK")

NAMES = ("x.mha", "x.mhd", "x.nrrd", "x.nhdr")
ANGLE = 0.3
DIRECTION = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, -1]])


def write(path: Path, array: np.ndarray, *, compress: bool, vector: bool = False) -> Path:
    """Write [z, y, x] with an oblique geometry."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-10, 20, 30))
        image.SetDirection(DIRECTION.ravel())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_reads_what_simpleitk_wrote(tmp_path: Path, array: np.ndarray, name: str, compress: bool) -> None:
    path = write(tmp_path / name, array, compress=compress)
    (scan,), refused = find_scans(tmp_path)
    assert refused == []
    assert scan.shape == (6, 5, 4)
    np.testing.assert_allclose(scan.spacing, (0.7, 0.8, 2.5))
    assert len(scan.parts) == 1 + name.endswith("hd" if name == "x.mhd" else "hdr")
    volume = scan.read()
    np.testing.assert_array_equal(volume.array, array.T)
    image = sitk.ReadImage(str(path))
    for index in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (3, 2, 3)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_types(tmp_path: Path, name: str, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.testing.assert_array_equal(read_volume(write(tmp_path / name, array, compress=True)).array, array.T)


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd"])
def test_planes_time_points_and_colours(tmp_path: Path, name: str, array: np.ndarray) -> None:
    plane = read_volume(write(tmp_path / name, array[0], compress=False))
    np.testing.assert_array_equal(plane.array, array[0].T)
    many = np.stack([array, array + 1])
    sitk.WriteImage(sitk.GetImageFromArray(many, isVector=False), str(tmp_path / name))
    scans, _ = find_scans(tmp_path)
    assert [(scan.index, scan.shape) for scan in scans] == [(0, (6, 5, 4)), (1, (6, 5, 4))]
    np.testing.assert_array_equal(scans[1].read().array, (array + 1).T)
    with pytest.raises(ScanError, match=r"holds 2 volumes of 6×5×4; choose one by its index"):
        read_volume(tmp_path / name)
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    grey = read_volume(write(tmp_path / name, colours, compress=False, vector=True))
    expected = np.rint(colours @ np.array([0.299, 0.587, 0.114])).T
    assert grey.notes == ("colour made grey",)
    assert np.abs(grey.array - expected).max() <= 1
    vectors = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    write(tmp_path / name, vectors, compress=False, vector=True)
    np.testing.assert_array_equal(read_volume(tmp_path / name, 1).array, vectors[..., 1].T)


def _replace(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def test_a_damaged_zraw_is_told_where_simpleitk_returns_noise(tmp_path: Path) -> None:
    array = np.arange(6000, dtype=np.int16).reshape(20, 15, 20) % 1000
    path = write(tmp_path / "x.mhd", array, compress=True)
    content = bytearray((tmp_path / "x.zraw").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "x.zraw").write_bytes(content)
    with pytest.raises(UnreadableScanError, match=r"x\.zraw: its compressed voxels are damaged: .*copy it again"):
        read_volume(path)
    (tmp_path / "x.zraw").write_bytes(content[:100])
    with pytest.raises(UnreadableScanError, match=r"x\.mhd: its header promises|x\.zraw: .*truncated"):
        read_volume(path)
    (tmp_path / "x.zraw").unlink()
    with pytest.raises(UnreadableScanError, match=r"x\.mhd: its voxels are missing; expected x.zraw beside it"):
        read_volume(path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            b"DimSize = 6 5 4",
            b"DimSize = 6000 5000 4000",
            "promises 240000000000 bytes of voxels, the file can",
        ),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 -4", "6×5×-4 voxels, so it is empty"),
        (b"DimSize = 6 5 4", b"DimSize = 120 1 1", "120×1×1 voxels lie on one line"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5", "its header gives 3 axes and numbers for others"),
        (b"DimSize = 6 5 4", b"DimSize = six 5 4", "cannot be read: invalid literal"),
        (b"ElementSpacing = 0.69", b"ElementSpacing = 0 #", "cannot be read: could not convert"),
        (b"ElementSpacing = 0.6", b"ElementSpacing = -0.6", "voxel sizes -0.7×0.8×2.5 mm; expected above 0"),
        (b"MET_SHORT", b"MET_STRING", "voxels of MET_STRING; expected integers or floating point"),
        (b"BinaryData = True", b"BinaryData = False", "its voxels are written as text"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "spread over a list of files"),
        (
            b"ElementDataFile = LOCAL",
            b"ElementDataFile = ../../x",
            "its voxels are missing; expected ../../x",
        ),
        (b"NDims = 3", b"Axes = 3", "no NDims in its header"),
    ],
)
def test_metaimage_headers_that_cannot_be_right(
    tmp_path: Path, array: np.ndarray, old: bytes, new: bytes, reason: str
) -> None:
    path = _replace(write(tmp_path / "x.mha", array, compress=False), old, new)
    with pytest.raises(ScanError, match=r"x\.mha: .*" + reason):
        read_volume(path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"sizes: 6 5 4", b"sizes: 6000 5000 4000", "promises 240000000000 bytes of voxels"),
        (b"sizes: 6 5 4", b"sizes: 6 5", "2 sizes for 3 axes; repair its header"),
        (b"type: short", b"type: block", "voxels of type 'block'; expected integers or floating point"),
        (b"encoding: raw", b"encoding: hex", "encoded as hex; expected raw, gzip or bzip2"),
        (b"space: left-posterior-superior", b"space: scanner-xyz", "space 'scanner-xyz'; expected one of"),
        (b"kinds: domain", b"line skip: 3\nkinds: domain", "its header skips lines"),
        (b"NRRD000", b"NNRD000", "starts with no NRRD header"),
        (b"encoding", b"incoding", "no 'encoding' in its header"),
    ],
)
def test_nrrd_headers_that_cannot_be_right(
    tmp_path: Path, array: np.ndarray, old: bytes, new: bytes, reason: str
) -> None:
    path = _replace(write(tmp_path / "x.nrrd", array, compress=False), old, new)
    with pytest.raises(ScanError, match=r"x\.nrrd: .*" + reason):
        read_volume(path)


def _nrrd(path: Path, header: str, data: bytes) -> Path:
    path.write_bytes(b"NRRD0004\n" + header.encode() + b"\n\n" + data)
    return path


def test_nrrd_written_by_others(tmp_path: Path) -> None:
    values = np.arange(24, dtype=">i2")
    plain = "type: int16\ndimension: 3\nsizes: 2 3 4\nendian: big\nspacings: 1 2 3"
    volume = read_volume(_nrrd(tmp_path / "a.nrrd", plain + "\nencoding: raw", values.tobytes()))
    np.testing.assert_array_equal(volume.array, values.reshape(4, 3, 2).T)
    assert volume.spacing == (1, 2, 3)
    packed = _nrrd(tmp_path / "b.nrrd", plain + "\nencoding: bzip2", bz2.compress(values.tobytes()))
    np.testing.assert_array_equal(read_volume(packed).array, volume.array)
    skipped = plain + "\nencoding: gzip\nbyte skip: 6"
    path = _nrrd(tmp_path / "c.nrrd", skipped, gzip.compress(b"header" + values.tobytes()))
    np.testing.assert_array_equal(read_volume(path).array, volume.array)
    ras = "type: int16\ndimension: 4\nsizes: 2 2 3 2\nendian: big\nencoding: raw\nspace: RAS\n"
    ras += "space directions: none (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)"
    path = _nrrd(tmp_path / "d.nrrd", ras, values.tobytes())
    second = read_volume(path, 1)
    np.testing.assert_array_equal(second.array, values.reshape(2, 3, 2, 2).T[1])
    np.testing.assert_allclose(second.affine, [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]])


def test_metaimage_in_big_endian_with_a_list_of_channels(tmp_path: Path) -> None:
    values = np.arange(48, dtype=">i2")
    header = (
        "NDims = 3\nDimSize = 2 3 4\nElementNumberOfChannels = 2\nElementType = MET_SHORT_ARRAY\n"
        "ElementByteOrderMSB = True\nElementSize = 1 2 3\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "x.mha").write_bytes(header.encode() + values.tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "x.mha", 1).array, values[1::2].reshape(4, 3, 2).T)
