"""NIfTI, Analyze and MGH: every storage type, damage told, and answers in the scan's own frame bit for bit."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import find_scans, nifti, prepare, read_volume, to_native, write_nifti
from modelsgenesis.errors import DataError, ScanError, ShapeError
from scan_damage import damaged_copies

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.7, 0.1, 20], [0, -0.1, 2.5, -30], [0, 0, 0, 1.0]])
ARRAY = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)


def edited(path: Path, array: np.ndarray = ARRAY, *, kind: type = nib.Nifti1Image, **fields) -> Path:
    """Write a file whose header nibabel would not write."""
    image = kind(array, AFFINE)
    nib.save(image, path)
    content = path.read_bytes()
    header = kind.header_class(content[: kind.header_class.sizeof_hdr])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[len(header.binaryblock) :])
    return path


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.hdr", "x.NII.GZ"])
def test_reads_what_nibabel_wrote(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind = nib.Nifti1Pair if name.endswith("hdr") else nib.Nifti1Image
    nib.save(kind(ARRAY, AFFINE), path.with_name(name.lower()))
    path.with_name(name.lower()).rename(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, ARRAY)
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
@pytest.mark.parametrize("order", "<>")
def test_types_and_byte_orders(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.arange(60).astype(dtype).reshape(3, 4, 5)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(array, AFFINE, header), tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == np.dtype(dtype)


@pytest.mark.parametrize("slope", [2, 0, np.nan, np.inf, 1])
def test_slope_and_intercept(tmp_path: Path, slope: float) -> None:
    volume = read_volume(edited(tmp_path / "x.nii", scl_slope=slope, scl_inter=-7))
    used = slope in (1, 2)  # as the standard says
    np.testing.assert_array_equal(volume.array, ARRAY * float(slope) - 7 if used else ARRAY)
    assert volume.array.dtype == (np.float32 if used else np.int16)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [("x.nii", nib.Nifti2Image, "NIfTI"), ("x.mgz", nib.MGHImage, "MGH"), ("x.hdr", nib.AnalyzeImage, "Analyze")],
)
def test_other_kinds_of_file(tmp_path: Path, name: str, kind: type, told: str) -> None:
    nib.save(kind(ARRAY, np.diag([-1, 1, 1, 1]) if told == "Analyze" else AFFINE), tmp_path / name)
    (scan,), _ = find_scans(tmp_path)
    assert scan.format == told
    np.testing.assert_array_equal(read_volume(scan).array, ARRAY)
    np.testing.assert_allclose(read_volume(scan).affine, nib.load(tmp_path / name).affine, atol=1e-5)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_volumes_of_a_4d_file(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(0, 99, (4, 3, 2, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / name)
    scans, _ = find_scans(tmp_path)
    assert [(scan.index, scan.shape) for scan in scans] == [(index, (4, 3, 2)) for index in range(5)]
    np.testing.assert_array_equal(read_volume(scans[3]).array, array[..., 3])
    with pytest.raises(ScanError, match=r"holds 5 .*index"):
        read_volume(tmp_path / name)
    with pytest.raises(ScanError, match=r"volume 5 was asked for"):
        read_volume(tmp_path / name, 5)


def test_colour_becomes_grey_and_says_so(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 100
    nib.save(nib.Nifti1Image(colours, AFFINE), tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    assert volume.notes == ("colour made grey",)
    np.testing.assert_array_equal(volume.array, np.full((3, 4, 2), 59))


def test_planes_keep_their_two_axes(tmp_path: Path) -> None:
    plane = np.arange(12, dtype=np.int16).reshape(3, 4)
    nib.save(nib.Nifti1Image(plane, np.diag([2, 3, 1, 1])), tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    np.testing.assert_array_equal(volume.array, plane)
    assert volume.spacing == (2, 3)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.mgz", "x.mgh", "x.img"])
def test_names_that_lie_about_compression(tmp_path: Path, name: str) -> None:
    array = ARRAY.copy()
    array[0, 0, 0] = int.from_bytes(b"\x1f\x8b", "little", signed=True)  # as gzip begins
    kind = {"mgz": nib.MGHImage, "mgh": nib.MGHImage, "img": nib.Nifti1Pair}.get(name[2:], nib.Nifti1Image)
    nib.save(kind(array, AFFINE), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(gzip.decompress(content) if name.endswith("z") else gzip.compress(content))
    (scan,), _ = find_scans(tmp_path)
    np.testing.assert_array_equal(read_volume(scan).array, array)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_volume(scan).array, array)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1), (11, 0.001), (7, 1)])
def test_units_are_brought_to_mm_and_kept_in_answers(tmp_path: Path, code: int, factor: float) -> None:
    path = edited(tmp_path / "x.nii", xyzt_units=code)  # 8 and above: seconds beside them
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine[:3], AFFINE[:3] * factor, rtol=1e-6)
    np.testing.assert_allclose(volume.spacing, nib.affines.voxel_sizes(AFFINE) * factor, rtol=1e-6)
    answer = write_nifti(tmp_path / "answer.nii", ARRAY, volume)
    assert nib.load(answer).header["xyzt_units"] == code
    assert nib.load(answer).affine.tobytes() == nib.load(path).affine.tobytes()
    np.testing.assert_array_equal(read_volume(answer).affine, volume.affine)


@pytest.mark.parametrize("qfac", [0, np.nan, 3, 1, -1])
def test_qfac_is_one_unless_it_is_minus_one(tmp_path: Path, qfac: float) -> None:
    sizes = [qfac, 0.7, 0.8, 2.5, 0, 0, 0, 0]
    path = edited(tmp_path / "x.nii", sform_code=0, qform_code=1, pixdim=sizes, quatern_b=0, quatern_c=0, quatern_d=0)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine.diagonal(), [0.7, 0.8, -2.5 if qfac == -1 else 2.5, 1], rtol=1e-6)
    answer = read_volume(write_nifti(tmp_path / "answer.nii", ARRAY, volume))
    np.testing.assert_array_equal(answer.affine, volume.affine)


def test_axes_that_a_writer_left_at_zero(tmp_path: Path) -> None:
    volume = read_volume(edited(tmp_path / "x.nii", dim=[4, 6, 5, 4, 0, 0, 0, 0]))
    np.testing.assert_array_equal(volume.array, ARRAY)


@pytest.mark.parametrize("trailing", [(), (1,), (1, 1)])
def test_an_answer_has_the_scans_geometry_bit_for_bit(tmp_path: Path, trailing: tuple) -> None:
    image = nib.Nifti1Image(ARRAY.reshape(ARRAY.shape + trailing), AFFINE)
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
        np.testing.assert_array_equal(np.asanyarray(answer.dataobj).reshape(ARRAY.shape), ARRAY > 0)


def test_channels_and_types_of_an_answer(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((6, 5, 4, 3)), AFFINE)
    assert nib.load(path).shape == (6, 5, 4, 3)
    assert nib.load(path).get_data_dtype() == np.float32
    assert nib.load(write_nifti(tmp_path / "b.nii", ARRAY > 0, AFFINE)).get_data_dtype() == np.uint8
    scan = read_volume(write_nifti(tmp_path / "c.nii", ARRAY.astype(np.int64), AFFINE))
    assert scan.array.dtype == np.int32
    assert nib.load(write_nifti(tmp_path / "d.nii", ARRAY > 0, scan)).get_data_dtype() == np.uint8


def test_answers_that_cannot_be_written(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(ARRAY, AFFINE), tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    with pytest.raises(ShapeError, match=r"expected the scan's \(6, 5, 4\)"):
        write_nifti(tmp_path / "x.nii", ARRAY[1:], volume)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written"):
        write_nifti(tmp_path / "file" / "x.nii", ARRAY, volume)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sform_code": 0, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "voxel sizes 0×1×1 mm"),
        ({"sform_code": -1, "pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, "voxel sizes 1×-2×1 mm"),
        ({"sform_code": 0, "pixdim": [1, 1, np.nan, 1, 1, 1, 1, 1]}, "voxel sizes 1×nan×1 mm"),
        ({"srow_z": [0, 0.7, 0.1, 0]}, "singular"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "not finite"),
        ({"srow_x": [1e30, 0, 0, 0]}, "too large"),
        ({"dim": [3, 600, 500, 400, 1, 1, 1, 1]}, "promises 240,000,000 bytes"),
        ({"dim": [3, 6, 0, 4, 1, 1, 1, 1]}, "6×0×4 voxels, so it is empty"),
        ({"dim": [5, 6, 5, 4, 200, 200, 1, 1]}, "40,000 volumes by its header"),
        ({"dim": [5, 6, 5, 4, -1, 1, 1, 1]}, "-1 volumes"),
        ({"dim": [9, 6, 5, 4, 1, 1, 1, 1]}, " axes; expected 1 to 7"),
        ({"dim": [3, 120, 1, 1, 1, 1, 1, 1]}, "120×1×1 voxels lie on one line"),
        ({"datatype": 32, "dim": [3, 3, 5, 2, 1, 1, 1, 1]}, "voxels are complex64"),
        ({"datatype": 999}, "cannot be read: "),
        ({"vox_offset": -80}, "start at byte -80"),
        ({"vox_offset": 351}, "start at byte 351"),
        ({"vox_offset": np.nan}, "cannot be read"),
        ({"magic": b"n+3"}, "starts with no NIfTI"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "cannot be read: "),
        ({"kind": nib.Nifti2Image, "vox_offset": 352}, "start at byte 352"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, fields: dict, reason: str) -> None:
    path = edited(tmp_path / "x.nii", **fields)
    with pytest.raises(ScanError, match=rf"x\.nii: .*({reason})"):
        read_volume(path)


def test_a_size_or_type_that_leaves_bytes_over(tmp_path: Path) -> None:
    array = np.zeros((64, 64, 9), np.int16)
    for damage in ({"dim": [3, 64, 64, 8, 1, 1, 1, 1]}, {"datatype": 2, "bitpix": 8}):  # one bit each
        with pytest.raises(ScanError, match=r"x\.nii: .*promises (65,536|36,864) bytes"):
            read_volume(edited(tmp_path / "x.nii", array, **damage))
    padded = edited(tmp_path / "x.nii", array)
    padded.write_bytes(padded.read_bytes() + bytes(500))
    np.testing.assert_array_equal(read_volume(padded).array, array)


@pytest.mark.parametrize(("name", "kind"), [("x.nii.gz", nib.Nifti1Image), ("x.mgz", nib.MGHImage)])
def test_every_damaged_byte_of_a_compressed_file_is_told(tmp_path: Path, name: str, kind: type) -> None:
    nib.save(kind(ARRAY, AFFINE), tmp_path / name)
    for one in damaged_copies((tmp_path / name).read_bytes(), 10):  # what comes before says little
        (tmp_path / name).write_bytes(one)
        with pytest.raises(ScanError, match=r"/x\."):
            read_volume(tmp_path / name)


def test_a_stream_that_goes_on_after_its_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(ARRAY, AFFINE).to_bytes() + bytes(99)))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    monkeypatch.setattr(nifti, "_TAIL", 50)  # there is no end to a bomb
    with pytest.raises(ScanError, match=r"goes on after its voxels"):
        read_volume(path)


def test_listing_reads_the_header_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    content = gzip.compress(nib.Nifti1Image(noise, AFFINE).to_bytes())
    (tmp_path / "x.nii.gz").write_bytes(content[:20_000])
    (scan,), _ = find_scans(tmp_path)
    assert scan.shape == (40, 40, 40)
    with pytest.raises(ScanError, match=r"x\.nii\.gz: cannot be read"):
        read_volume(scan)


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"no header"), gzip.compress(bytes(400))])
@pytest.mark.parametrize("name", ["x.nii.gz", "x.hdr", "x.mgh"])
def test_files_of_no_header(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=r"/x\..*: starts with no (NIfTI|MGH) header"):
        read_volume(tmp_path / name)


def test_a_pair_without_its_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(ARRAY, AFFINE), tmp_path / "x.hdr")
    (tmp_path / "x.img").unlink()
    with pytest.raises(ScanError, match=r"its voxels are missing; expected x.img"):
        read_volume(tmp_path / "x.hdr")
