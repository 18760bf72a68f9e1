"""MetaImage and NRRD, against SimpleITK's writers and readers; and the damage that those pass over."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own customary name

from modelsgenesis.data import find_scans, read_volume
from modelsgenesis.errors import ScanError
from scan_damage import damaged_copies

COMPRESSED = pytest.mark.parametrize("compress", [False, True])
NAMES = ("x.mha", "x.mhd", "x.nrrd", "x.nhdr")
DIRECTION = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, -1]])
ARRAY = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
VALUES = np.arange(24, dtype="<i2")
PACKED = zlib.compress(VALUES.tobytes())


def write(path: Path, array: np.ndarray = ARRAY, *, compress: bool = False, vector: bool = False) -> Path:
    """Write [z, y, x] with an oblique geometry."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-10, 20, 30))
        image.SetDirection(DIRECTION.ravel())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@COMPRESSED
@pytest.mark.parametrize("name", NAMES)
def test_reads_what_simpleitk_wrote(tmp_path: Path, name: str, compress: bool) -> None:
    path = write(tmp_path / name, compress=compress)
    (scan,), skipped = find_scans(tmp_path)
    assert (skipped, scan.shape, scan.format) == ([], (6, 5, 4), "NRRD" if "r" in name else "MetaImage")
    np.testing.assert_allclose(scan.spacing, (0.7, 0.8, 2.5))
    assert len(scan.files) == 1 + name.endswith(("hd", "hdr"))
    affine, image = read_volume(scan).affine, sitk.ReadImage(str(path))
    for index in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (3, 2, 3)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-9)
    for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"):
        volume = read_volume(write(path, ARRAY.astype(dtype), compress=compress))
        np.testing.assert_array_equal(volume.array, ARRAY.astype(dtype).T, strict=True)


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd"])
def test_planes_time_points_and_colours(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_volume(write(tmp_path / name, ARRAY[0])).array, ARRAY[0].T)
    write(tmp_path / name, np.stack([ARRAY, ARRAY + 1]))
    scans, _ = find_scans(tmp_path)
    assert [(scan.index, scan.shape) for scan in scans] == [(0, (6, 5, 4)), (1, (6, 5, 4))]
    np.testing.assert_array_equal(read_volume(scans[1]).array, (ARRAY + 1).T)
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    grey = read_volume(write(tmp_path / name, colours, vector=True))
    assert grey.notes == ("colour made grey",)
    assert np.abs(grey.array - (colours @ np.array([0.299, 0.587, 0.114])).T).max() <= 1
    vectors = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    write(tmp_path / name, vectors, vector=True)
    np.testing.assert_array_equal(read_volume(tmp_path / name, 1).array, vectors[..., 1].T)


@COMPRESSED
@pytest.mark.parametrize("name", NAMES)
def test_damaged_voxels_are_told(tmp_path: Path, name: str, compress: bool) -> None:
    path = write(tmp_path / name, np.arange(6000, dtype=np.int16).reshape(20, 15, 20) % 1000, compress=compress)
    (data,) = {*tmp_path.iterdir()} - {path} or {path}
    content = data.read_bytes()
    start = 0 if data != path else content.index(b"\n\n") + 2 if "nrrd" in name else content.index(b"LOCAL") + 6
    # Raw voxels have no checksum; the header of gzip says little.
    damaged = damaged_copies(content, start + 10 * (name[2] == "n")) if compress else [content + bytes(5000)]
    if b"CompressedDataSize" in content:  # for any other than the right one SimpleITK would return other memory
        damaged += [re.sub(rb"CompressedDataSize = \d+", size, content) for size in (b"", b"CompressedDataSize = 9")]
    for one in (*damaged, content[:-1], content[:start]):
        data.write_bytes(one)
        with pytest.raises(ScanError, match=r"/x\."):
            read_volume(path)


META_HEADERS = [
    ("DimSize = 6 5 4", "DimSize = 6000 5000 4000", "promises 240,000,000,000 bytes"),
    ("DimSize = 6 5 4", "DimSize = 6 5 -4", "3 axes with sizes 6 5 -4"),
    ("NDims = 3", "NDims = 3\nA word", "damaged: 'A word'"),
    ("NDims = 3", "NDims = 10000", "10000 axes"),  # end the process in SimpleITK
    ("ElementSpacing = 0.6", "ElementSpacing = -0.6", "voxel sizes .-0.7, 0.8, 2.5. mm"),
    ("MET_SHORT", "MET_STRING", "voxels of an unknown type"),
    ("BinaryData = True", "BinaryData = False", "voxels are text"),
    ("ElementDataFile = LOCAL", "ElementDataFile = x%d.raw 1 4 1", "several files"),
    ("ElementDataFile = LOCAL", "ElementDataFile: /etc/hostname", "missing.* /etc/hostname"),
    ("NDims = 3", f"NDims = 3\nComment = {'x' * 600}", "too long.*'Comment = x"),
    *(("NDims = 3", f"NDims = 3\nHeaderSize = {size}", f"behind .*{size}.* bytes") for size in (-2, 6)),
    ("NDims = 3", "NDims = 3\nElementNumberOfChannels = 20000", "20,000 volumes"),
]
NRRD_HEADERS = [
    ("sizes: 6 5 4", "sizes: 6 5", "cannot be read: .*dimension is 3"),
    ("encoding: raw", "encoding: bzip2", "voxels are bzip2"),
    ("space: left-posterior-superior", "space: scanner-xyz", "space 'scanner-xyz'"),
    ("kinds: domain", "line skip: 3\nkinds: domain", "behind .*3"),
    ("kinds: domain", "data file: ../x.raw\nkinds: domain", "missing.* ../x.raw"),
    ("encoding: raw", "encoding: raw\nENCODING: gzip", "doubled.*'ENCODING: gzip'"),
]


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [*(("x.mha", *change) for change in META_HEADERS), *(("x.nrrd", *change) for change in NRRD_HEADERS)],
)
def test_headers_that_cannot_be_right(tmp_path: Path, name: str, old: str, new: str, reason: str) -> None:
    path = write(tmp_path / name)
    before, old_field, after = path.read_bytes().partition(old.encode())
    assert old_field
    path.write_bytes(before + new.encode() + after)
    with pytest.raises(ScanError, match=rf"{name}: .*{reason}"):
        read_volume(path)


META = "NDims = 3\nDimSize = 2 3 4\nElementSize = 1 2 3\n{}ElementDataFile = x.bin\n"
NRRD = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\n{}\n"
SHORT = "ElementType = MET_SHORT\n"
BESIDE = NRRD.replace("{}", "{}data file: x.bin\n")


@pytest.mark.parametrize(
    ("header", "fields", "content"),
    [
        (META, f"HeaderSize = -1\n{SHORT}", bytes(9999) + VALUES.tobytes()),
        (META, f"ElementByteOrderMSB = T\n{SHORT}", VALUES.astype(">i2").tobytes()),
        (META, f"CompressedData = T\nCompressedDataSize = {len(PACKED)}\n{SHORT}", PACKED),
        (META, "BinaryData = T\nElementType = MET_LONG\n", VALUES.astype("<i4").tobytes()),
        (NRRD, "encoding: gzip\nendian: little\n", gzip.compress(VALUES.tobytes(), mtime=0)),
        (BESIDE, "encoding: raw\nendian: big\n", VALUES.astype(">i2").tobytes()),
        (BESIDE, f"encoding: raw\nendian: little\n# a comment\nkey:={'x' * 9999}\n", VALUES.tobytes()),
    ],
)
def test_headers_written_by_others(tmp_path: Path, header: str, fields: str, content: bytes) -> None:
    path = tmp_path / ("x.mhd" if header == META else "x.nrrd")
    (tmp_path / "x.bin").write_bytes(content)
    path.write_bytes(header.format(fields).encode() + (content if header == NRRD else b""))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES.reshape(4, 3, 2).T)
    assert volume.spacing == (1, 2, 3)


@pytest.mark.parametrize("first", [True, False])
def test_nrrd_in_another_space_with_channels_first_or_last(tmp_path: Path, first: bool) -> None:
    sizes, kinds = ("2 2 3 2", "list domain domain domain") if first else ("2 3 2 2", "domain domain domain list")
    vectors = "none (2,0,0) (0,3,0) (0,0,4)" if first else "(2,0,0) (0,3,0) (0,0,4) none"
    header = f"NRRD0004\ntype: int16\ndimension: 4\nsizes: {sizes}\nendian: little\nencoding: raw\nspace: RAS\n"
    header += f"kinds: {kinds}\nspace origin: (1,2,3)\nspace directions: {vectors}\n\n"
    (tmp_path / "x.nrrd").write_bytes(header.encode() + VALUES.tobytes())
    volume = read_volume(tmp_path / "x.nrrd", 1)
    expected = VALUES.reshape(2, 3, 2, 2)[..., 1].T if first else VALUES.reshape(2, 2, 3, 2)[1].T
    np.testing.assert_array_equal(volume.array, expected)
    np.testing.assert_allclose(volume.affine, [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]])


def test_voxels_are_not_taken_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner" / "x.mhd")
    (tmp_path / "inner" / "x.raw").rename(tmp_path / "y.raw")
    for _ in range(2):
        with pytest.raises(ScanError, match=r"x\.mhd: its voxels are missing.* x.raw"):
            read_volume(path)
        path.with_suffix(".raw").unlink(missing_ok=True)
        path.with_suffix(".raw").symlink_to(tmp_path / "y.raw")
