"""NIfTI, Analyze and MGH: every storage type, and answers in the scan's own frame bit for bit."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import find_scans, prepare, read_volume, to_native, write_nifti
from modelsgenesis.errors import DataError, ScanError, ShapeError, UnreadableScanError

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.7, 0.1, 20], [0, -0.1, 2.5, -30], [0, 0, 0, 1.0]])


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.hdr", "x.NII.GZ"])
def test_reads_what_nibabel_wrote(tmp_path: Path, array: np.ndarray, name: str) -> None:
    path = tmp_path / name
    kind = nib.Nifti1Pair if name.endswith("hdr") else nib.Nifti1Image
    target = path if name.islower() else tmp_path / name.lower()
    nib.save(kind(array, AFFINE), target)
    target.rename(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.spacing, nib.affines.voxel_sizes(AFFINE), atol=1e-6)


@pytest.mark.shared
def test_real_scans_are_read_as_nibabel_reads_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "ct" / "images").iterdir()):
        volume, image = read_volume(path), nib.load(path)
        np.testing.assert_array_equal(volume.array, np.asanyarray(image.dataobj))
        np.testing.assert_array_equal(volume.affine, image.affine)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "f4", "f8", "u4", "i8"])
def test_types_and_byte_orders(tmp_path: Path, dtype: str) -> None:
    array = np.arange(60).astype(dtype).reshape(3, 4, 5)
    for order in "<>":
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(dtype)
        nib.save(nib.Nifti1Image(array, AFFINE, header), tmp_path / "x.nii")
        volume = read_volume(tmp_path / "x.nii")
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.dtype == np.dtype(dtype)


def test_slope_and_intercept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), AFFINE)
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "x.nii.gz")
    volume = read_volume(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(volume.array, nib.load(tmp_path / "x.nii.gz").get_fdata())
    assert volume.array.dtype == np.float32


def test_other_kinds_of_file(tmp_path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti2Image(array, AFFINE), tmp_path / "two.nii")
    nib.save(nib.MGHImage(array.astype(np.float32), AFFINE), tmp_path / "three.mgz")
    nib.save(nib.AnalyzeImage(array, np.diag([-1, 1, 1, 1])), tmp_path / "four.hdr")
    scans, refused = find_scans(tmp_path)
    assert refused == []
    assert {scan.path.name: scan.format for scan in scans} == {
        "two.nii": "NIfTI",
        "three.mgz": "MGH",
        "four.hdr": "Analyze",
    }
    for scan in scans:
        np.testing.assert_array_equal(scan.read().array, array)
    mgh = read_volume(tmp_path / "three.mgz")
    np.testing.assert_allclose(mgh.affine, nib.load(tmp_path / "three.mgz").affine, atol=1e-5)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_volumes_of_a_4d_file(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(0, 99, (4, 3, 2, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / name)
    scans, _ = find_scans(tmp_path)
    assert [scan.index for scan in scans] == [0, 1, 2, 3, 4]
    assert scans[0].shape == (4, 3, 2)
    np.testing.assert_array_equal(scans[3].read().array, array[..., 3])
    with pytest.raises(ScanError, match=r"holds 5 volumes of 4×3×2; choose one by its index"):
        read_volume(tmp_path / name)
    with pytest.raises(ScanError, match=r"volume 5 was asked for, it holds 5"):
        read_volume(tmp_path / name, 5)


def test_colour_becomes_grey_and_says_so(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 100
    nib.save(nib.Nifti1Image(colours, AFFINE), tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    assert volume.notes == ("colour made grey",)
    assert volume.array.shape == (3, 4, 2)
    assert (volume.array == 59).all()


def test_planes_keep_their_two_axes(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Image(np.arange(12, dtype=np.int16).reshape(3, 4), np.diag([2, 3, 1, 1])),
        tmp_path / "x.nii",
    )
    volume = read_volume(tmp_path / "x.nii")
    assert volume.array.shape == (3, 4)
    assert volume.spacing == (2, 3)


@pytest.mark.parametrize("trailing", [(), (1,), (1, 1)])
def test_an_answer_has_the_scans_geometry_bit_for_bit(tmp_path: Path, array: np.ndarray, trailing: tuple) -> None:
    image = nib.Nifti1Image(array.reshape(array.shape + trailing), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.header["qoffset_x"] = np.float32(10.000001)  # qform and sform disagree, as scanners write them
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    prepared = prepare(volume, CONTRACTS["ct"])
    labels = to_native((prepared.array > 0.5).astype(np.uint8), prepared)
    for like in (volume, prepared, prepared.geometry):
        answer = nib.load(write_nifti(tmp_path / "out" / "answer.nii.gz", labels, like))
        source = nib.load(tmp_path / "scan.nii.gz")
        assert answer.shape == source.shape
        assert answer.affine.tobytes() == source.affine.tobytes()
        for field in ("qform_code", "sform_code", "qoffset_x", "quatern_b", "srow_y", "pixdim", "xyzt_units"):
            assert answer.header[field].tobytes() == source.header[field].tobytes()
        assert answer.header["descrip"] == b""
        np.testing.assert_array_equal(np.asanyarray(answer.dataobj).reshape(array.shape), array > 0)


def test_channels_and_types_of_an_answer(tmp_path: Path, array: np.ndarray) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((6, 5, 4, 3)), AFFINE)
    assert nib.load(path).shape == (6, 5, 4, 3)
    assert nib.load(path).get_data_dtype() == np.float32
    assert nib.load(write_nifti(tmp_path / "b.nii", array > 0, AFFINE)).get_data_dtype() == np.uint8
    wide = array.astype(np.int64)
    assert nib.load(write_nifti(tmp_path / "c.nii", wide, AFFINE)).get_data_dtype() == np.int32


def test_answers_that_cannot_be_written(tmp_path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    with pytest.raises(ShapeError, match=r"expected the scan's \(6, 5, 4\), see to_native"):
        write_nifti(tmp_path / "x.nii", array[1:], volume)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*; choose another folder"):
        write_nifti(tmp_path / "file" / "x.nii", array, volume)


def _edited(path: Path, array: np.ndarray, **fields) -> Path:
    """Write a file whose header nibabel would not write."""
    image = nib.Nifti1Image(array, AFFINE)
    nib.save(image, path)
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    content = path.read_bytes()
    path.write_bytes(header.binaryblock + content[348:])
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sform_code": 0, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "voxel sizes 0×1×1 mm; expected above 0"),
        ({"sform_code": 0, "pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, "voxel sizes 1×-2×1 mm; expected above 0"),
        ({"sform_code": 0, "pixdim": [1, 1, np.nan, 1, 1, 1, 1, 1]}, "voxel sizes 1×nan×1 mm"),
        ({"srow_z": [0, 0.7, 0.1, 0]}, "its affine is singular"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "numbers that are not finite"),
        ({"dim": [3, 600, 500, 400, 1, 1, 1, 1]}, "promises 240000000 bytes of voxels, the file can hold"),
        ({"dim": [3, 6, 0, 4, 1, 1, 1, 1]}, "6×0×4 voxels, so it is empty"),
        ({"dim": [3, 120, 1, 1, 1, 1, 1, 1]}, "120×1×1 voxels lie on one line"),
        ({"datatype": 32, "dim": [3, 3, 5, 2, 1, 1, 1, 1]}, "voxels are complex64; expected real numbers"),
        ({"datatype": 999}, "cannot be read: "),
        ({"vox_offset": -80}, "its voxels start at byte -80"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, array: np.ndarray, fields: dict, reason: str) -> None:
    path = _edited(tmp_path / "x.nii", array, **fields)
    with pytest.raises(ScanError, match=r"x\.nii: .*" + reason):
        read_volume(path)


def test_a_line_of_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(np.zeros((70_000, 1, 1), np.int8), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(ScanError, match=r"70000×1×1 voxels lie on one line; expected a plane or a volume"):
        read_volume(tmp_path / "x.nii")


def test_files_that_cannot_be_read(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "x.nii.gz"
    for content, reason in [
        (b"", "starts with no NIfTI header"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"no header"), "starts with no NIfTI header"),
        (gzip.compress(bytes(400)), "starts with no NIfTI header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UnreadableScanError, match=r"x\.nii\.gz: .*" + reason):
            read_volume(path)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableScanError, match=r"end before .* bytes; it is truncated"):
        read_volume(path)
    with pytest.raises(UnreadableScanError, match=r"nothing.nii: there is no such file"):
        read_volume(tmp_path / "nothing.nii")
    nib.save(nib.Nifti1Pair(array, AFFINE), tmp_path / "pair.hdr")
    (tmp_path / "pair.img").unlink()
    with pytest.raises(UnreadableScanError, match=r"its voxels are missing; expected pair.img beside it"):
        read_volume(tmp_path / "pair.hdr")
