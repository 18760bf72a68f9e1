"""DICOM as hospitals export it: series by content, in any order and folder; each defect by its name."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_files import BIG, EXPLICIT, HOUNSFIELD, IMPLICIT, sequence, write_dicom, write_series
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import find_scans, prepare, read_volume, survey
from modelsgenesis.errors import MissingExtraError, ScanError, UnreadableScanError

pytest.importorskip("SimpleITK")


@pytest.fixture
def stored() -> np.ndarray:
    """Stored values of a small CT, uint16 [slices, rows, columns]."""
    return np.random.default_rng(0).integers(0, 2500, (6, 8, 10)).astype(np.uint16)


def test_a_series_is_one_volume_in_its_own_geometry(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored)
    (scan,), refused = find_scans(tmp_path)
    assert refused == []
    assert (scan.format, scan.shape, scan.spacing) == ("DICOM", (10, 8, 6), (0.75, 0.5, 2.0))
    assert (scan.modality, scan.group) == ("ct", "P1")
    volume = scan.read()
    np.testing.assert_array_equal(volume.array, stored.transpose(2, 1, 0).astype(int) - 1024)
    expected = [[-0.75, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected)
    np.testing.assert_array_equal(read_volume(tmp_path).array, volume.array)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_transfer_syntaxes_without_compression(tmp_path: Path, stored: np.ndarray, syntax: str) -> None:
    write_series(tmp_path, stored, syntax=syntax)
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored.transpose(2, 1, 0).astype(int) - 1024)


@pytest.mark.shared
def test_a_compressed_series_lies_on_its_label(shared_data: Path) -> None:
    volume = read_volume(shared_data / "dicom" / "ct_abdomen")
    label = read_volume(shared_data / "dicom" / "ct_abdomen_label.nii.gz")
    image, mask = prepare(volume, CONTRACTS["ct"]), prepare(label, CONTRACTS["ct"].override(window=(0, 1)))
    assert volume.array.shape == (512, 512, 20)
    np.testing.assert_allclose(image.affine, mask.affine, atol=1e-4)
    organs = image.array[mask.array > 0]
    assert abs(float(np.median(organs)) - 0.53) < 0.03  # soft tissue, about 60 HU


@pytest.mark.shared
def test_radiograph_and_ultrasound(shared_data: Path) -> None:
    scans = {scan.modality: scan for scan in find_scans(shared_data / "dicom")[0]}
    radiograph, ultrasound = scans["xray"].read(), scans["ultrasound"].read()
    assert radiograph.array.shape == (1955, 1841)
    assert "MONOCHROME1 inverted" in radiograph.notes
    assert radiograph.array[900:1000, 900:1000].mean() > radiograph.array[900:1000, 350:450].mean()  # spine, lung
    assert ultrasound.array.shape == (480, 640)
    assert scans["ultrasound"].notes == ("colour made grey",)


def test_series_are_told_apart_and_put_together_across_folders(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path / "a", stored[::2], step=4.0)
    write_series(tmp_path / "b", stored[1::2], step=4.0, start=2.0)
    write_series(tmp_path / "b", stored, series="9.9", prefix="other")
    scans, refused = find_scans(tmp_path)
    assert refused == []
    assert [scan.shape for scan in scans] == [(10, 8, 6), (10, 8, 6)]
    np.testing.assert_array_equal(scans[0].read().array, scans[1].read().array)
    with pytest.raises(ScanError, match=r"b: holds 2 series of 1 patients; expected one scan, name its file"):
        read_volume(tmp_path / "b")


def test_two_patients_in_a_folder_are_two_groups(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, patient="P1")
    write_series(tmp_path, stored, patient="P2", prefix="second")
    scans, _ = find_scans(tmp_path)
    assert [scan.group for scan in scans] == ["P1", "P2"]


def test_a_missing_slice_is_named(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, skip=(3,))
    scans, refused = survey(tmp_path)
    assert scans == []
    reason = "a gap of 4 mm at 4 mm, the slices are 2 mm apart: 1 missing; expected an even distance"
    assert refused[0].reason == f"{reason}, complete the series"
    assert "5 slices from IM0000" in refused[0].source


def test_uneven_slices_are_named(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored)
    write_dicom(tmp_path / "last", stored[0], position=(-10.0, -20.0, 13.1), extra=HOUNSFIELD)
    _, refused = survey(tmp_path)
    assert "a gap of 3.1 mm at 10 mm, the slices are 2 mm apart; expected" in refused[0].reason


def test_copies_are_left_out_and_different_slices_in_one_place_refused(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path / "one", stored)
    write_series(tmp_path / "one", stored, prefix="copy")
    (scan,), _ = find_scans(tmp_path / "one")
    assert scan.notes == ("6 copies of slices left out",)
    assert scan.read().array.shape == (10, 8, 6)
    write_series(tmp_path / "two", stored)
    write_series(tmp_path / "two", stored + 1, prefix="other")
    _, refused = survey(tmp_path / "two")
    assert refused[0].reason == "6 of 12 slices lie where another does, and differ from it"


def test_phases_of_one_series_are_volumes(tmp_path: Path, stored: np.ndarray) -> None:
    for phase in range(3):
        extra = (*HOUNSFIELD, (0x00200100, "IS", phase))
        write_series(tmp_path, stored + phase, prefix=f"phase{phase}", extra=extra)
    scans, refused = find_scans(tmp_path)
    assert refused == []
    assert len(scans) == 3
    means = sorted(scan.read().array.mean() for scan in scans)
    np.testing.assert_allclose(np.diff(means), 1)


def test_mixed_orientations_become_volumes(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored)
    for number in range(4):
        position = (0.0, 3.0 * number, 0.0)
        turned = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
        write_dicom(tmp_path / f"c{number}", stored[number], position=position, orientation=turned, extra=HOUNSFIELD)
    scans, refused = find_scans(tmp_path)
    assert refused == []
    assert sorted(scan.shape for scan in scans) == [(10, 8, 4), (10, 8, 6)]


def test_gantry_tilt_stays_in_the_affine(tmp_path: Path, stored: np.ndarray) -> None:
    angle = np.radians(15)
    down = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    for number, pixels in enumerate(stored):
        position = (0.0, 0.0, 2.0 * number)
        write_dicom(tmp_path / f"{number}", pixels, position=position, orientation=down, extra=HOUNSFIELD)
    (scan,), _ = find_scans(tmp_path)
    assert scan.notes == ("gantry tilt of 15.0°, kept in the affine",)
    np.testing.assert_allclose(scan.read().affine[:3, 2], [0, 0, 2], atol=1e-9)


def test_rescale_of_each_slice(tmp_path: Path) -> None:
    """PET scales every slice by itself."""
    pixels = np.full((4, 4), 100, np.uint16)
    for number in range(3):
        extra = ((0x00281052, "DS", 0.0), (0x00281053, "DS", 0.5 + number))
        write_dicom(tmp_path / f"{number}", pixels, modality="PT", position=(0.0, 0.0, 3.0 * number), extra=extra)
    np.testing.assert_allclose(read_volume(tmp_path).array[0, 0], [50, 150, 250])


def test_padding_is_rescaled_as_the_voxels_are(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, extra=(*HOUNSFIELD, (0x00280120, "US", 0)))
    assert read_volume(tmp_path).padding == -1024


def test_frames_of_ultrasound_are_images(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 6, 8, 3)).astype(np.uint8)
    path = write_dicom(tmp_path / "clip", frames, modality="US", position=None, extra=((0x00280008, "IS", 5),))
    scans, _ = find_scans(tmp_path)
    assert [scan.index for scan in scans] == [0, 1, 2, 3, 4]
    assert scans[0].shape == (6, 8)
    expected = np.rint(frames[3] @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(scans[3].read().array - expected).max() <= 1
    with pytest.raises(ScanError, match=r"clip: holds 5 images; choose one by its index"):
        read_volume(path)
    with pytest.raises(ScanError, match=r"clip: image 5 was asked for, it holds 5"):
        read_volume(path, 5)


def test_frames_of_an_enhanced_ct_are_a_volume(tmp_path: Path, stored: np.ndarray) -> None:
    places = [[sequence(0x00209113, [(0x00200032, "DS", (0.0, 0.0, 1.5 * height))])] for height in (5, 4, 3, 2, 1, 0)]
    shared = [
        sequence(0x00209116, [(0x00200037, "DS", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))]),
        sequence(0x00289110, [(0x00280030, "DS", (0.5, 0.5))]),
    ]
    extra = (
        (0x00280008, "IS", 6),
        sequence(0x52009229, shared),
        sequence(0x52009230, *places),
        *HOUNSFIELD,
    )
    write_dicom(tmp_path / "enhanced", stored, position=None, extra=extra)
    (scan,), _ = find_scans(tmp_path)
    assert (scan.shape, scan.spacing) == ((10, 8, 6), (0.5, 0.5, 1.5))
    np.testing.assert_array_equal(scan.read().array, stored[::-1].transpose(2, 1, 0).astype(int) - 1024)


def test_two_stacks_in_one_file_are_volumes(tmp_path: Path, stored: np.ndarray) -> None:
    flat, upright = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    frames = [
        [
            sequence(0x00209113, [(0x00200032, "DS", (0.0, 2.0 * number, 2.0 * number))]),
            sequence(0x00209116, [(0x00200037, "DS", flat if number < 3 else upright)]),
        ]
        for number in range(6)
    ]
    shared = [sequence(0x00289110, [(0x00280030, "DS", (0.5, 0.5))])]
    extra = ((0x00280008, "IS", 6), sequence(0x52009229, shared), sequence(0x52009230, *frames))
    path = write_dicom(tmp_path / "two", stored, modality="MR", position=None, extra=extra)
    scans, refused = find_scans(tmp_path)
    assert refused == []
    assert [(scan.index, scan.shape) for scan in scans] == [(0, (10, 8, 3)), (1, (10, 8, 3))]
    np.testing.assert_array_equal(scans[0].read().array, stored[:3].transpose(2, 1, 0))
    np.testing.assert_array_equal(scans[1].read().array, stored[3:].transpose(2, 1, 0))
    with pytest.raises(ScanError, match=r"two: holds 2 images; choose one by its index"):
        read_volume(path)


def test_monochrome1_is_turned(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    path = write_dicom(tmp_path / "x", pixels, modality="DX", position=None, extra=((0x00280004, "CS", "MONOCHROME1"),))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, 65535 - pixels)
    assert (volume.modality, volume.spacing) == ("xray", (0.5, 0.75))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"modality": "SEG"}, r"SEG is derived from images; expected an image"),
        ({"pixels": None, "modality": "OT"}, r"holds no pixels \(OT\); expected an image"),
        ({"extra": ((0x00080008, "CS", ("ORIGINAL", "PRIMARY", "LOCALIZER")),)}, r"is a localizer, by which"),
        ({"position": None}, r"no position, orientation or pixel spacing; expected all three in a volume"),
        ({"spacing": (0.0, 1.0)}, r"no position, orientation or pixel spacing"),
        ({"syntax": "1.2.840.10008.1.2.1.99"}, r"is deflated as a whole; expected another transfer syntax"),
    ],
)
def test_files_that_are_no_scans_are_refused(tmp_path: Path, tags: dict, reason: str) -> None:
    pixels = tags.pop("pixels", np.ones((4, 4), np.uint16))
    path = write_dicom(tmp_path / "x.dcm", pixels, **tags)
    with pytest.raises(ScanError, match=r"x\.dcm: " + reason):
        read_volume(path)


def test_damaged_files_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    path = write_dicom(tmp_path / "x.dcm", stored[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(UnreadableScanError, match=r"an element of 160 bytes, 120 are left; it is truncated"):
        read_volume(path)
    path.write_bytes(whole[:300])
    with pytest.raises(ScanError, match=r"x.dcm: "):
        read_volume(path)
    rows = bytes.fromhex("280010005553") + b"\x02\x00"
    path.write_bytes(whole.replace(rows + b"\x08\x00", rows + b"\xff\xff"))
    with pytest.raises(UnreadableScanError, match=r"65535×10×1×1 pixels in 160 bytes; it is truncated"):
        read_volume(path)
    path.write_bytes(b"")
    with pytest.raises(UnreadableScanError, match=r"has no DICOM content"):
        read_volume(path)
    path.write_bytes(bytes(128) + b"DICM" + bytes(2))
    with pytest.raises(ScanError, match=r"x.dcm: "):
        read_volume(path)
    with pytest.raises(ScanError, match=r"holds no DICOM series; expected one scan"):
        read_volume(tmp_path.parent)


def test_a_slice_that_went_missing_since_it_was_found(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored)
    (scan,), _ = find_scans(tmp_path)
    scan.files[2].unlink()
    with pytest.raises(UnreadableScanError, match=r"there is no such file"):
        scan.read()


def test_a_missing_extra_says_how_to_install_it(
    tmp_path: Path, stored: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, stored)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"reading DICOM needs .*: pip install 'modelsgenesis\[io\]'"):
        find_scans(tmp_path)
