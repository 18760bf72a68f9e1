"""DICOM as hospitals export it: series by content, in any order and folder; each defect by its name."""

import io
import re
import struct
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dicom_files as dcm
from dicom_files import enhanced, write_dicom, write_series
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import dicom_file, find_scans, prepare, read_volume, scan_sources
from modelsgenesis.errors import ScanError

JPEG, DEFLATED, DIRECTORY = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.3.10"
SCREEN = "1.2.840.10008.5.1.4.1.1.7"
FLAT, UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
STORED = np.random.default_rng(0).integers(0, 2500, (6, 8, 10)).astype(np.uint16)  # a small CT, [slices, rows, columns]


def jpeg(pixels: np.ndarray) -> bytes:
    """Return pixels as a JPEG, which compressed DICOM holds."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100)
    return file.getvalue()


def turned(angle: float) -> tuple[float, ...]:
    """Return directions of a slice that is turned round the first axis."""
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


@pytest.mark.parametrize("syntax", [dcm.EXPLICIT, dcm.IMPLICIT, dcm.BIG])
def test_a_series_is_one_volume_in_its_own_geometry(tmp_path: Path, syntax: str) -> None:
    write_series(tmp_path, STORED, syntax=syntax)
    (scan,), _ = find_scans(tmp_path)
    volume = read_volume(tmp_path)
    assert (scan.shape, scan.spacing, volume.modality, scan.group) == ((10, 8, 6), (0.75, 0.5, 2.0), "ct", "P1")
    np.testing.assert_array_equal(volume.array, STORED.T.astype(int) - 1024)
    expected = [[-0.75, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected)


@pytest.mark.shared
def test_a_compressed_series_lies_on_its_label(shared_data: Path) -> None:
    volume = read_volume(shared_data / "dicom" / "ct_abdomen")
    label = read_volume(shared_data / "dicom" / "ct_abdomen_label.nii.gz")
    image, mask = prepare(volume, CONTRACTS["ct"]), prepare(label, CONTRACTS["ct"].override(window=(0, 1)))
    assert (volume.array.shape, volume.array.dtype) == ((512, 512, 20), np.int16)
    np.testing.assert_allclose(image.affine, mask.affine, atol=1e-4)
    assert abs(float(np.median(image.array[mask.array > 0])) - 0.53) < 0.03  # soft tissue, about 60 HU


@pytest.mark.shared
def test_radiograph_and_ultrasound(shared_data: Path) -> None:
    scans = {scan.modality: scan for scan in find_scans(shared_data / "dicom")[0]}
    radiograph, ultrasound = read_volume(scans["xray"]), read_volume(scans["ultrasound"])
    assert (radiograph.array.shape, ultrasound.array.shape) == ((1955, 1841), (480, 640))
    assert "MONOCHROME1 inverted" in radiograph.notes
    assert radiograph.array[900:1000, 900:1000].mean() > radiograph.array[900:1000, 350:450].mean()  # spine, lung
    assert ultrasound.notes == ("colour made grey",)


def test_series_are_told_apart_and_put_together_across_folders(tmp_path: Path) -> None:
    write_series(tmp_path / "a", STORED[::2], step=4.0)
    write_series(tmp_path / "b", STORED[1::2], step=4.0, start=2.0)
    write_series(tmp_path / "b", STORED, series="9.9", prefix="other")
    write_series(tmp_path / "c", STORED, patient="P2")
    scans, skipped = find_scans(tmp_path)
    assert skipped == []
    assert [(scan.shape, scan.group) for scan in scans] == [((10, 8, 6), group) for group in ("P1", "P1", "P2")]
    np.testing.assert_array_equal(read_volume(scans[0]).array, read_volume(scans[1]).array)
    with pytest.raises(ScanError, match=r"b: holds 2 series of 1 patients"):
        read_volume(tmp_path / "b")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"position": lambda n: (0.0, 0.0, 2.0 * n + 2 * (n > 2))}, "a gap of 4 mm at 4 mm, .* 2 mm apart;"),
        ({"position": lambda n: (0.0, 0.0, 2.0 * (n or 1))}, "1 of 6 slices lie where another does"),
        ({"position": lambda n: (9.0 * (n == 1), 0.0, 2.0 * n)}, "beside a straight line"),
        ({"orientation": lambda n: turned(9e-4 * n)}, "turn from one to the next"),
    ],
)
def test_series_that_are_no_volume(tmp_path: Path, tags: dict, words: str) -> None:
    write_series(tmp_path, np.tile(STORED, (5 if "orientation" in tags else 1, 1, 1)), **tags)
    scans, (skipped,) = scan_sources(tmp_path)
    assert (scans, skipped.bad, "slices from IM0000" in skipped.source) == ([], True, True)
    assert re.search(words, skipped.reason)


def test_rounded_directions_and_spacings_part_no_slices(tmp_path: Path) -> None:
    """A border of bins at 0.005 once parted slices whose directions differ by 1e-6."""
    sine = [0.005 + 1e-6 * (-1) ** n for n in range(6)]
    tags = {"orientation": lambda n: (1.0, sine[n], 0.0, -sine[n], 1.0, 0.0), "spacing": lambda n: (sine[n], 1.0)}
    write_series(tmp_path, STORED, **tags)
    assert read_volume(tmp_path).array.shape == (10, 8, 6)


def test_copies_are_left_out(tmp_path: Path) -> None:
    for prefix in ("IM", "copy"):
        write_series(tmp_path, STORED, prefix=prefix)
    volume = read_volume(tmp_path)
    assert (volume.notes, volume.array.shape) == (("6 copies of slices left out",), (10, 8, 6))
    write_series(tmp_path, STORED, prefix="steeper", extra=((dcm.SLOPE, "DS", 2.0),))
    assert "12 of 18 slices" in scan_sources(tmp_path)[1][0].reason


def test_phases_of_one_series_are_volumes(tmp_path: Path) -> None:
    for tag in ((0x00200100, "IS"), (0x00189087, "FD"), (0x00080008, "CS")):
        for phase in range(3):
            write_series(tmp_path, STORED + phase, prefix=f"phase{phase}", extra=(*dcm.HOUNSFIELD, (*tag, phase)))
        scans, _ = find_scans(tmp_path)
        np.testing.assert_allclose(np.diff(sorted(read_volume(scan).array.mean() for scan in scans)), [1, 1])


def test_gantry_tilt_stays_in_the_affine(tmp_path: Path) -> None:
    write_series(tmp_path, STORED, orientation=lambda number: turned(np.radians(-15)))
    np.testing.assert_allclose(read_volume(tmp_path).affine[:3, 2], [0, 0, 2], atol=1e-9)


def test_a_single_slice_has_its_thickness(tmp_path: Path) -> None:
    for tags, thickness in (((dcm.THICKNESS, 5.0),), 5), (((dcm.THICKNESS, ""), (0x00180088, 4.0)), 4), ((), 1):
        extra = tuple((tag, "DS", value) for tag, value in tags)
        volume = read_volume(write_dicom(tmp_path / "one.dcm", STORED[0], extra=extra))
        assert (volume.array.shape, volume.spacing) == ((10, 8, 1), (0.75, 0.5, thickness))
        assert ("without a thickness" in "".join(volume.notes)) == (thickness == 1)


def test_padding_is_rescaled_as_the_voxels_are(tmp_path: Path) -> None:
    for padding in (("SS", -2000), ("US", 63536)):  # many write it without its sign
        write_series(tmp_path, STORED.astype("i2"), extra=(*dcm.HOUNSFIELD, (dcm.PADDING, *padding)))
        assert read_volume(tmp_path).padding == -3024


@pytest.mark.parametrize("syntax", [dcm.EXPLICIT, dcm.IMPLICIT, dcm.BIG])
def test_frames_have_numbers_of_their_own(tmp_path: Path, syntax: str) -> None:
    """PS3.3 C.7.6.16.2: a frame's own group goes before the shared one, that before the file's elements."""
    slopes, intercepts = np.array([0.5, 1.5, 2.25, 0.125, 3.75, 1.0]), np.arange(-1024.0, -1018)
    frames = [
        [(dcm.POSITION, "DS", (0.0, 0.0, 7.5 - 1.5 * n)), (dcm.INTERCEPT, "DS", own), (dcm.SLOPE, "DS", slopes[n])]
        for n, own in enumerate(intercepts.tolist())
    ]
    extra = (*enhanced(*frames), (dcm.SPACING, "DS", (9.0, 9.0)), *dcm.HOUNSFIELD)
    write_dicom(tmp_path / "x", STORED, modality="MR", position=None, syntax=syntax, extra=extra)
    volume, expected = read_volume(tmp_path), STORED * slopes[:, None, None] + intercepts[:, None, None]
    assert volume.spacing == (0.75, 0.5, 1.5)
    np.testing.assert_allclose(volume.array, expected[::-1].T, rtol=1e-6)


def test_enhanced_files_of_one_frame_are_slices_of_a_series(tmp_path: Path) -> None:
    frames = [enhanced([(dcm.POSITION, "DS", (0.0, 0.0, 2.5 * n)), (dcm.THICKNESS, "DS", 2.5)]) for n in range(6)]
    write_series(tmp_path, STORED, position=lambda _: None, extra=lambda n: frames[n])
    assert (read_volume(tmp_path).spacing, read_volume(tmp_path / "IM0757").spacing) == ((0.75, 0.5, 2.5),) * 2


def test_stacks_of_one_file_are_volumes(tmp_path: Path) -> None:
    shared, own = [(dcm.SPACING, "DS", (0.5, 0.75))], [(dcm.ORIENTATION, "DS", one) for one in (FLAT, UPRIGHT)]
    frames = [[(dcm.POSITION, "DS", (0.0, 2.0 * (n % 3), 2.0 * (n % 3))), own[n // 3]] for n in range(6)]
    path = write_dicom(tmp_path / "two", STORED, modality="MR", position=None, extra=enhanced(*frames, shared=shared))
    scans, _ = find_scans(tmp_path)
    assert [(scan.index, scan.shape) for scan in scans] == [(0, (10, 8, 3)), (1, (10, 8, 3))]
    for scan, part in zip(scans, (STORED[:3], STORED[3:]), strict=True):
        np.testing.assert_array_equal(read_volume(scan).array, part.T)
    with pytest.raises(ScanError, match=r"two: holds 2 .*index"):
        read_volume(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_of_ultrasound_are_images(tmp_path: Path, compressed: bool) -> None:
    frames = np.full((5, 16, 8, 3), (110, 90, 90), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None] * 30
    tags = {"pieces": [jpeg(frame) for frame in frames], "syntax": JPEG} if compressed else {}
    extra = (dcm.FRAMES, "IS", 5), (dcm.PHOTOMETRIC, "CS", "YBR_FULL_422" if compressed else "RGB")
    write_dicom(tmp_path / "clip", frames, modality="US", position=None, extra=extra, **tags)
    scans, _ = find_scans(tmp_path)
    for number, (frame, scan) in enumerate(zip(frames, scans, strict=True)):
        assert (scan.index, scan.shape, scan.notes) == (number, (16, 8), ("colour made grey",))
        assert np.abs(read_volume(scan).array - frame @ np.array([0.299, 0.587, 0.114])).max() <= 2


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("modality", "inverted"), [("DX", True), ("CT", False), ("PT", False)])
def test_monochrome1_inverts_pictures_alone(tmp_path: Path, modality: str, inverted: bool, compressed: bool) -> None:
    pixels = np.repeat(np.arange(0, 256, 32, dtype=np.uint8), 16).reshape(8, 16)
    extra = ((dcm.PHOTOMETRIC, "CS", "MONOCHROME1"), (dcm.PADDING, "US", 32), (dcm.INTERCEPT, "DS", 5.0))
    tags = {"pieces": [jpeg(pixels)], "syntax": JPEG} if compressed else {}
    volume = read_volume(write_dicom(tmp_path / "x", pixels, modality=modality, extra=extra, **tags))
    array = volume.array if inverted else volume.array[..., 0].T
    assert np.abs(array.astype(int) - (255 - pixels.astype(int) if inverted else pixels) - 5).max() <= 2 * compressed
    assert volume.padding == (255 - 32 if inverted else 32) + 5
    assert (volume.spacing or ())[:2] == ((0.5, 0.75) if inverted else (0.75, 0.5))
    assert ("MONOCHROME1 inverted" in volume.notes) == inverted


def test_bits_above_those_in_use_are_no_part_of_a_value(tmp_path: Path) -> None:
    pixels = np.array([[0x1123, 0xF005], [0x8FFF, 0x2007]], np.uint16)  # overlays were kept there
    path = write_dicom(tmp_path / "x", pixels, extra=((0x00280101, "US", 12), (0x00280102, "US", 11)))
    np.testing.assert_array_equal(read_volume(path).array[..., 0].T, pixels & 0xFFF)


def test_what_hospitals_send_along_is_left_aside(tmp_path: Path) -> None:
    aside = {
        "SR": {"pixels": None, "modality": "SR"},
        "a segmentation": {"modality": "SEG"},
        "PDF": {"pixels": None, "modality": "OT", "kind": "1.2.840.10008.5.1.4.1.1.104.1"},
        "raw data": {"pixels": None, "modality": "MR", "kind": "1.3.12.2.1107.5.9.1"},
        "localizer": {"extra": ((0x00080008, "CS", ("ORIGINAL", "PRIMARY", "LOCALIZER")),)},
        "index": {"pixels": None, "modality": "", "kind": DIRECTORY},
        "colour map": {"pixels": np.ones((8, 10, 3), np.uint8)},
        "dose report": {"position": None, "kind": SCREEN},
    }
    write_series(tmp_path, STORED)
    for name, tags in aside.items():
        write_dicom(tmp_path / name, **{"pixels": STORED[0], "series": "1.9", **tags})
    (scan,), skipped = find_scans(tmp_path)
    assert scan.shape == read_volume(tmp_path).array.shape == (10, 8, 6)
    assert {Path(one.source).name: one.bad for one in skipped} == dict.fromkeys(aside, False)
    (tmp_path / "IM0000").write_bytes((tmp_path / "IM0000").read_bytes()[:-40])  # its first slice
    with pytest.raises(ScanError, match=r"IM0000: .* truncated"):
        read_volume(tmp_path)


NESTED = reduce(lambda inside, _: dcm.sequence(dcm.SHARED, [inside]), range(40), (0x00081150, "UI", "1.2"))
LARGE = tuple((side, "US", 60000) for side in (0x00280010, 0x00280011))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"pixels": None}, "holds no pixels"),
        *(({"position": (0.0, 0.0, float(value))}, "no position") for value in ("nan", "inf", "1e300")),
        ({"extra": ((dcm.ORIENTATION, "DS", ""),)}, "no position"),
        *(({"spacing": (value, 1.0)}, "pixel spacing") for value in (0.0, -1.0, 1e-320)),
        *(({"orientation": one}, "perpendicular") for one in ((1.0, 0.0, 0.0, 1.0, 0.0, 0.0), (0.0,) * 6)),
        *(({"extra": ((dcm.FRAMES, "IS", one),)}, "NumberOfFrames") for one in ("inf", "nan", "1e400", 0, 1.5, 2e7)),
        ({"extra": enhanced([], [])[1:]}, "functional groups"),
        *(({"extra": ((dcm.SLOPE, "DS", value),)}, "expected a number") for value in (0.0, "x", "1\\2")),
        ({"extra": (dcm.sequence(0x00283000, [(0x00283002, "US", 1)]),)}, "Modality LUT"),
        ({"extra": (NESTED,)}, "nest over"),
        ({"extra": ((0x00091001, "??", b"ab"),)}, "no known type"),
        ({"extra": ((dcm.SHARED, "UN", [b""]),)}, ""),
        ({"syntax": DEFLATED}, ""),
        ({"syntax": JPEG, "pieces": [b"x" * 2000], "extra": ((dcm.FRAMES, "IS", 60000),)}, "pieces"),
        ({"syntax": JPEG, "pieces": [b"x" * 2000], "extra": LARGE}, "×60000"),
        ({"syntax": JPEG, "pieces": [b"no picture"]}, "cannot be read"),
    ],
)
def test_what_no_value_can_be_had_of_is_refused(tmp_path: Path, tags: dict, words: str) -> None:
    path = write_dicom(tmp_path / "x.dcm", **{"pixels": np.ones((4, 4), np.uint16), **tags})
    with pytest.raises(ScanError, match=rf"x\.dcm: .*{words}"):
        read_volume(path)


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "x.dcm", STORED[0], extra=enhanced([(dcm.SLOPE, "DS", 2.0)]))
    whole = path.read_bytes()
    for kept in (0, 131, 134, 300, 500, len(whole) - 160 - 12, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ScanError, match=r"x\.dcm: .*(truncated|DICOM content)"):
            read_volume(path)
    longer = struct.pack("<HHI", 0xFFFE, 0xE000, 16)
    assert whole.count(longer) == 1  # the item of the slope, which must not reach into its neighbours
    path.write_bytes(whole.replace(longer, longer[:4] + b"\x80\0\0\0"))
    with pytest.raises(ScanError, match=r"128 bytes"):
        read_volume(path)
    monkeypatch.setattr(dicom_file, "_ELEMENTS", 1000)  # two million empty items would take objects gigabytes
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1100
    path = write_dicom(path, np.ones((4, 4), np.uint16), extra=((dcm.PER_FRAME, "SQ", items),))
    with pytest.raises(ScanError, match=r"its header has more than 1,000"):
        read_volume(path)
