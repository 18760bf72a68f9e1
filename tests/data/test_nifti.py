"""NIfTI, Analyze and MGH: every storage type, damage told, and predictions in the scan's own frame bit for bit."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import find_scans, nifti, prepare, read_volume, to_native, write_nifti
from modelsgenesis.errors import ScanError, ShapeError
from scan_damage import damaged_copies

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.7, 0.1, 20], [0, -0.1, 2.5, -30], [0, 0, 0, 1.0]])
ARRAY = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)


def saved(path: Path, array: np.ndarray = ARRAY, kind: type = nib.Nifti1Image, **fields) -> Path:
    """Write a file, with fields in its header that nibabel would not write."""
    nib.save(kind(array, np.diag([-1, 1, 1, 1]) if kind is nib.AnalyzeImage else AFFINE), path)
    if fields:
        content = path.read_bytes()
        header = kind.header_class(content[: kind.header_class.sizeof_hdr])
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + content[len(header.binaryblock) :])
    return path


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        *((name, nib.Nifti1Image, "NIfTI") for name in ("x.nii", "x.nii.gz", "x.NII.GZ")),
        ("x.nii", nib.Nifti2Image, "NIfTI"),
        ("x.hdr", nib.Nifti1Pair, "NIfTI"),
        ("x.hdr", nib.AnalyzeImage, "Analyze"),
        ("x.mgz", nib.MGHImage, "MGH"),
    ],
)
def test_reads_what_nibabel_wrote(tmp_path: Path, name: str, kind: type, told: str) -> None:
    path = saved(tmp_path / name.lower(), kind=kind)
    affine = nib.load(path).affine
    path.rename(tmp_path / name)
    (scan,), _ = find_scans(tmp_path)
    volume = read_volume(scan)
    assert (scan.format, volume.array.dtype) == (told, np.int16)
    np.testing.assert_array_equal(volume.array, ARRAY)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


@pytest.mark.parametrize("order", "<>")
def test_types_and_byte_orders(tmp_path: Path, order: str) -> None:
    for dtype in ("u1", "i1", "u2", "i4", "f4", "f8", "u4", "i8"):
        array, header = ARRAY.astype(dtype), nib.Nifti1Header(endianness=order)
        header.set_data_dtype(dtype)
        nib.save(nib.Nifti1Image(array, AFFINE, header), tmp_path / "x.nii")
        np.testing.assert_array_equal(read_volume(tmp_path / "x.nii").array, array, strict=True)


def test_slope_and_intercept(tmp_path: Path) -> None:
    for slope in (2, 1, 0, np.nan, np.inf):  # the last three mean none, as the standard says
        volume = read_volume(saved(tmp_path / "x.nii", scl_slope=slope, scl_inter=-7))
        expected = (ARRAY * float(slope) - 7).astype(np.float32) if slope in (1, 2) else ARRAY
        np.testing.assert_array_equal(volume.array, expected, strict=True)


def test_volumes_of_a_4d_file(tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(4, 3, 2, 5)
    for name in ("x.nii", "x.nii.gz"):
        scans, _ = find_scans(saved(tmp_path / name, array))
        assert [(scan.index, scan.shape) for scan in scans] == [(index, (4, 3, 2)) for index in range(5)]
        np.testing.assert_array_equal(read_volume(scans[3]).array, array[..., 3])
        with pytest.raises(ScanError, match=r"holds 5 .*index"):
            read_volume(tmp_path / name)


def test_colour_planes_and_axes_that_a_writer_left_at_zero(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 100
    volume = read_volume(saved(tmp_path / "x.nii", colours))
    assert (volume.notes, set(volume.array.ravel())) == (("colour made grey",), {59})
    plane = read_volume(saved(tmp_path / "x.nii", ARRAY[..., 0]))
    assert (plane.array.shape, len(plane.spacing or ())) == ((6, 5), 2)
    np.testing.assert_array_equal(read_volume(saved(tmp_path / "x.nii", dim=[4, 6, 5, 4, 0, 0, 0, 0])).array, ARRAY)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.mgz", "x.mgh", "x.img"])
def test_names_that_lie_about_compression(tmp_path: Path, name: str) -> None:
    array = ARRAY.copy()
    array[0, 0, 0] = int.from_bytes(b"\x1f\x8b", "little", signed=True)  # as gzip begins
    kind = {"mgz": nib.MGHImage, "mgh": nib.MGHImage, "img": nib.Nifti1Pair}.get(name[2:], nib.Nifti1Image)
    content = saved(tmp_path / name, array, kind).read_bytes()
    for other in (gzip.decompress(content) if name.endswith("z") else gzip.compress(content), content):
        (tmp_path / name).write_bytes(other)
        np.testing.assert_array_equal(read_volume(find_scans(tmp_path)[0][0]).array, array)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1), (11, 0.001), (7, 1)])
def test_units_are_brought_to_mm_and_kept_in_predictions(tmp_path: Path, code: int, factor: float) -> None:
    path = saved(tmp_path / "x.nii", xyzt_units=code)  # 8 and above: seconds beside them
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine[:3], AFFINE[:3] * factor, rtol=1e-6)
    written = write_nifti(tmp_path / "labels.nii", ARRAY, volume)
    assert nib.load(written).header["xyzt_units"] == code
    assert nib.load(written).affine.tobytes() == nib.load(path).affine.tobytes()


@pytest.mark.parametrize("qfac", [0, np.nan, 3, 1, -1])
def test_qfac_is_one_unless_it_is_minus_one(tmp_path: Path, qfac: float) -> None:
    sizes = [qfac, 0.7, 0.8, 2.5, 0, 0, 0, 0]
    path = saved(tmp_path / "x.nii", sform_code=0, qform_code=1, pixdim=sizes, quatern_b=0, quatern_c=0, quatern_d=0)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine.diagonal(), [0.7, 0.8, -2.5 if qfac == -1 else 2.5, 1], rtol=1e-6)
    written = read_volume(write_nifti(tmp_path / "labels.nii", ARRAY, volume))
    np.testing.assert_array_equal(written.affine, volume.affine)


@pytest.mark.parametrize("trailing", [(), (1,), (1, 1)])
def test_a_prediction_has_the_scans_geometry_bit_for_bit(tmp_path: Path, trailing: tuple) -> None:
    image = nib.Nifti1Image(ARRAY.reshape(ARRAY.shape + trailing), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.header["qoffset_x"] = np.float32(10.000001)  # qform and sform disagree, as scanners write them
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, tmp_path / "scan.nii.gz")
    volume, source = read_volume(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "scan.nii.gz")
    prepared = prepare(volume, CONTRACTS["ct"])
    labels = to_native((prepared.array > 0.5).astype(np.uint8), prepared)
    for like in (volume, prepared, prepared.geometry):
        written = nib.load(write_nifti(tmp_path / "out" / "labels.nii.gz", labels, like))
        assert written.shape == source.shape
        for field in ("qform_code", "sform_code", "qoffset_x", "quatern_b", "srow_y", "pixdim", "xyzt_units"):
            assert written.header[field].tobytes() == source.header[field].tobytes()
        assert written.header["descrip"] == b""
        np.testing.assert_array_equal(np.asanyarray(written.dataobj).reshape(ARRAY.shape), ARRAY > 0)


def test_types_of_a_prediction(tmp_path: Path) -> None:
    scan = read_volume(saved(tmp_path / "scan.nii"))
    for array, dtype, like in ((np.zeros((6, 5, 4, 3)), "f4", scan), (ARRAY > 0, "u1", AFFINE), (ARRAY, "i2", scan)):
        written = nib.load(write_nifti(tmp_path / "x.nii", array, like))
        assert (written.shape, written.get_data_dtype()) == (array.shape, np.dtype(dtype))
    with pytest.raises(ShapeError, match=r"expected the scan's \(6, 5, 4\)"):
        write_nifti(tmp_path / "x.nii", ARRAY[1:], scan)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sform_code": 0, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "voxel sizes 0×1×1 mm"),
        ({"sform_code": -1, "pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, "voxel sizes .1.0, -2.0, 1.0. mm"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "its affine is"),
        ({"dim": [5, 6, 5, 4, 200, 200, 1, 1]}, "40,000 volumes by its header"),
        ({"dim": [3, 120, 1, 1, 1, 1, 1, 1]}, "120×1×1 voxels are empty or lie on one line"),
        ({"datatype": 32, "dim": [3, 3, 5, 2, 1, 1, 1, 1]}, "voxels are complex64"),
        ({"vox_offset": 351}, "start at byte 351"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "cannot be read: "),
        ({"array": np.zeros((64, 64, 9), "i2"), "dim": [3, 64, 64, 8, 1, 1, 1, 1]}, "promises 65,536 bytes"),  # one bit
        ({"array": np.zeros((64, 64, 9), "i2"), "datatype": 2, "bitpix": 8}, "promises 36,864 bytes"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, fields: dict, reason: str) -> None:
    with pytest.raises(ScanError, match=rf"x\.nii: .*({reason})"):
        read_volume(saved(tmp_path / "x.nii", **fields))


@pytest.mark.parametrize(("name", "kind"), [("x.nii.gz", nib.Nifti1Image), ("x.mgz", nib.MGHImage)])
def test_every_damaged_byte_of_a_compressed_file_is_told(tmp_path: Path, name: str, kind: type) -> None:
    path = saved(tmp_path / name, kind=kind)
    for one in damaged_copies(path.read_bytes(), 10):  # what comes before says little
        path.write_bytes(one)
        with pytest.raises(ScanError, match=r"/x\."):
            read_volume(path)


def test_what_follows_the_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = nib.Nifti1Image(ARRAY, AFFINE).to_bytes() + bytes(500)
    path = tmp_path / "x.nii"
    for padded in (content, gzip.compress(content)):
        path.write_bytes(padded)
        np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    monkeypatch.setattr(nifti, "_TAIL", 50)  # there is no end to a bomb
    with pytest.raises(ScanError, match=r"goes on after its voxels"):
        read_volume(path)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.hdr", "x.mgh"])
def test_files_of_no_header(tmp_path: Path, name: str) -> None:
    for content in (b"", b"no gzip", gzip.compress(b"no header"), gzip.compress(bytes(400))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScanError, match=r"/x\..*: starts with no (NIfTI|MGH) header"):
            read_volume(tmp_path / name)
