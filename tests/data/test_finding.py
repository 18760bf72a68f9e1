"""What a folder, a glob, a list and a data set's description lead to, and what names tell."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from labelled_files import write_json
from modelsgenesis.data import find_scans, scan_sources, skipped_notes
from modelsgenesis.data.finding import OWN_PATIENT, find_patients, is_label_map
from modelsgenesis.errors import ConfigurationError, DataError


def scan(path: Path) -> Path:
    """Write a small scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 12, np.eye(4)), path)
    return path


def names(source) -> list[str]:
    return [found.path.name for found in find_scans(source)[0]]


def reasons(source) -> dict[str, str]:
    """Why each scan was skipped, by the last part of its name; what was left aside is marked."""
    return {Path(one.source).name: f"{'' if one.bad else 'aside: '}{one.reason}" for one in scan_sources(source)[1]}


def test_a_folder_is_searched_to_any_depth(tmp_path: Path) -> None:
    scan(tmp_path / "b" / "c" / "d" / "deep.nii.gz")
    scan(tmp_path / "a.nii")
    scan(tmp_path / ".hidden" / "x.nii")
    scan(tmp_path / ".hidden.nii")
    (tmp_path / "notes.md").write_text("no scan")
    Image.new("L", (4, 4)).save(tmp_path / "b" / "image.png")
    assert names(tmp_path) == ["a.nii", "image.png", "deep.nii.gz"]


def test_a_file_a_glob_a_list_and_several(tmp_path: Path) -> None:
    first, second = scan(tmp_path / "a" / "1.nii.gz"), scan(tmp_path / "b" / "2.nii.gz")
    (tmp_path / "scans.txt").write_text("# mine\na/1.nii.gz\n\nb\nscans.txt\n")  # the list names itself
    assert names(str(tmp_path / "**" / "*.nii.gz")) == ["1.nii.gz", "2.nii.gz"]
    assert names(tmp_path / "scans.txt") == ["1.nii.gz", "2.nii.gz"]
    assert names([second, first, second, tmp_path]) == ["2.nii.gz", "1.nii.gz"]


def test_label_maps_are_left_aside_unless_they_are_named(tmp_path: Path) -> None:
    for index in range(5):
        for kind in ("t1", "flair", "seg"):
            scan(tmp_path / f"B_{index}" / f"B_{index}_{kind}.nii.gz")
    mask = scan(tmp_path / "labels" / "1.nii.gz")
    scan(tmp_path / "nnunet" / "1.nii.gz")
    write_json(tmp_path / "nnunet" / "predict_from_raw_data_args.json", {})
    (tmp_path / "labels.txt").write_text("labels/1.nii.gz\n")
    scans, skipped = find_scans(tmp_path)
    assert (len(scans), {found.group for found in scans}) == (10, {f"B_{index}" for index in range(5)})
    assert {Path(one.source).name for one in skipped} == {"labels", "nnunet", *(f"B_{i}_seg.nii.gz" for i in range(5))}
    assert not any(one.bad for one in skipped)
    assert [note.count("_seg") for note in skipped_notes(skipped)] == [4, 0]
    assert "and 1 more: holds labels, by its name" in skipped_notes(skipped)[0]
    for source in (mask, tmp_path / "labels", tmp_path / "labels.txt", tmp_path / "nnunet"):
        assert names(source) == ["1.nii.gz"]
    assert len(names(str(tmp_path / "*" / "*.nii.gz"))) == 12
    assert len(names(str(tmp_path / "*" / "*_seg.nii.gz"))) == 5


def test_what_systems_leave_behind_is_left_aside_and_named(tmp_path: Path) -> None:
    scan(tmp_path / "a" / "1.nii")
    scan(tmp_path / "__MACOSX" / "a" / "1.nii")
    for name in ("._1.nii", ".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["1.nii"]
    found = reasons(tmp_path)
    assert found.pop("loop").startswith("aside: a link back")
    left = "aside: left by macOS or Windows, not a scan"
    assert found == dict.fromkeys(("__MACOSX", "._1.nii", ".DS_Store", "Thumbs.db"), left)


def test_a_data_set_by_its_description(tmp_path: Path) -> None:
    image, label = "./imagesTr/p_01_0000.nii.gz", "./labelsTr/p_01.nii.gz"
    for name in (image, label, "imagesTr/p_01_0001.nii.gz", "imagesTs/p_02_0000.nii.gz"):
        scan(tmp_path / "set" / name)
    listed = [{"image": image, "label": label}]
    test = ["./imagesTs/p_02_0000.nii.gz", "./imagesTs/p_03.nii.gz"]
    write_json(tmp_path / "set" / "dataset.json", {"modality": {"0": "CT"}, "training": listed, "test": test})
    for source in (tmp_path, tmp_path / "set", tmp_path / "set" / "dataset.json"):
        scans, skipped = find_scans(source)
        assert [(found.group, found.modality) for found in scans] == [("p_01", "ct"), ("p_02", "ct")]
        assert [one.reason for one in skipped] == ["named in dataset.json, but not there"]
    channels = {"channel_names": {"0": "MRI_T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 2}
    write_json(tmp_path / "set" / "dataset.json", channels)
    assert [f"{found.group} {found.modality}" for found in find_scans(tmp_path)[0]] == ["p_01 mri"] * 2 + ["p_02 mri"]


def test_bad_files_are_skipped_and_the_others_found(tmp_path: Path) -> None:
    scan(tmp_path / "good.nii.gz")
    scan(tmp_path / f"{'a' * 248}.nii.gz")  # 255 bytes, the most that a name may have
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz")).write_bytes((tmp_path / "good.nii.gz").read_bytes())
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == [f"{'a' * 248}.nii.gz", "good.nii.gz"]
    found = reasons(tmp_path)
    assert found.pop("bad.nii.gz")
    assert "no such file" in found.pop("gone.nii")
    assert "DICOM" in found.pop("empty.dcm")
    assert "not UTF-8" in found.pop(r"M\udcfcller.nii.gz")
    assert found == {}


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "*.mha"):  # a glob without a match is like an empty folder
        with pytest.raises(DataError, match=r"no usable scan; expected NIfTI, Analyze, MGH"):
            find_scans(source)
    (tmp_path / "bad.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable scan: 1 skipped, the first .*bad\.nii: "):
        find_scans(tmp_path)
    for source in ("missing", "a" * 5000, "a\0b", "~nobody-of-this-name/x"):
        with pytest.raises(DataError, match=r"no such file|cannot be read"):
            find_scans(tmp_path / source if source[0] != "~" else source)


def test_descriptions_and_lists_that_cannot_be_used(tmp_path: Path) -> None:
    scan(tmp_path / "1.nii")
    for content in ("{", "[" * 100_000, '{"training": [[1, 2]]}', '{"training": [], "modality": 1e400}', '{"a": 1}'):
        (tmp_path / "dataset.json").write_text(content)
        assert names(tmp_path) == ["1.nii"]
        assert ("dataset.json" in reasons(tmp_path)) == (content != '{"a": 1}')
        with pytest.raises(DataError, match=r"dataset\.json: "):
            find_scans(tmp_path / "dataset.json")
    for content in (b"\xff\xfe\x00", b"a\0b.nii\n", b"a" * 5000):
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"no such file|cannot be read"):
            find_scans(tmp_path / "list.txt")


LABELS = """
    BraTS_000_seg.nii.gz BraTS-GLI-00000-000-seg.nii.gz segmentation-12.nii labels-0.nii.gz label0001.nii.gz
    x_mask_2.png patient-label.nrrd scan.seg.nrrd Segmentation-label.nrrd leftMask.png ISIC_0001_Segmentation.png
    aparc+aseg.mgz patient001_frame01_gt.nii.gz GT.nii.gz x_ground_truth.png labelsTr labelsTs gt_segmentations masks
    sub-01_dseg.nii.gz sub-01_desc-brain_mask.nii.gz sub-01_label-GM_probseg.nii.gz sub-01_FLAIR_roi.nii.gz
    case_pred.nii Annotations
"""
SCANS = """
    BraTS_000_flair.nii.gz t1_masked.nii.gz labelled.nii.gz T1_roi.nii.gz segment7.png 001.nii.gz imagesTr ÄÖ.png
    sub-01_acq-labelOff_T1w.nii.gz magt.nii
"""


def test_label_maps_are_known_as_people_name_them():
    assert [name for name in LABELS.split() if not is_label_map(name)] == []
    assert [name for name in SCANS.split() if is_label_map(name)] == []


@pytest.mark.parametrize(
    ("names", "patients", "classes"),
    [
        ("B_1/B_1_t1.nii B_1/B_1_seg.nii B_2/B_2_t1ce.nii", "B_1 B_1 B_2", None),
        ("alice/t1.nii alice/FLAIR.nii.gz bob/t2.nii", "alice alice bob", None),
        ("case_0/imaging.nii case_1/imaging.nii", "case_0 case_1", None),
        ("s1/mri/brain.mgz s1/mri/T1.mgz s2/mri/brain.mgz", "s1 s1 s2", None),
        ("T1/p1.nii T2/p1.nii T1/p2.nii p1_t2.nii p2_flair_slice_3.png", "p1 p1 p2 p1 p2", None),
        ("patient1_frame01.nii patient1_frame12.nii", "patient1 patient1", None),
        ("sub-07_ses-1_T1w.nii x/sub-07_ses-2_bold.nii 00001_004.png", "sub-07 sub-07 00001_004", None),
        ("a/imagesTr/p_01_0000.nii a/imagesTr/p_01_0001.nii a/imagesTs/p_02_0000.nii", "p_01 p_01 p_02", None),
        ("site1/001.nii site1/002.nii site2/003.nii", "001 002 003", None),
        ("Smith.John Smith.Jane", "Smith.John Smith.Jane", None),  # folders of series
        ("ill/7_1.png ill/7_2.png well/8_1.png well/9_1.png", "7 7 8 9", "iiww"),
        ("ill/p1/1.png ill/p1/2.png well/p2/1.png well/p3/1.png", "p1 p1 p2 p3", "iiww"),
        ("g0/g0_1.png g0/g0_2.png g1/g1_1.png", "g0_1 g0_2 g1_1", "001"),
        ("ill/1.png ill/2.png well/1.png well/2.png", "ill/1 ill/2 well/1 well/2", "iiww"),
        ("ill/img_1.png well/img_1.png well/img_2.png", "ill/img_1 well/img_1 well/img_2", "iww"),
        ("a/x.png b/x.png", "a/x.png b/x.png", "ab"),
    ],
)
def test_patients_by_names_and_folders(names, patients, classes):
    found, rule = find_patients([Path("data", name) for name in names.split()], classes=classes)
    assert found == patients.split()
    assert classes is None or (rule == OWN_PATIENT) == (len(set(found)) == len(found))


def test_a_pattern_is_looked_for_in_the_name_then_in_the_path():
    paths = [Path("p12/1.nii.gz"), Path("p3/2.nii.gz")]
    assert find_patients(paths, r"p(\d+)/")[0] == ["12", "3"]
    assert find_patients(paths, r"^\d$")[0] == ["1", "2"]
    assert find_patients(paths, r"\d\.nii")[0] == ["1.nii", "2.nii"]
    with pytest.raises(DataError, match=r"--patient .* does not fit 1 of 2 names, such as '2"):
        find_patients(paths, r"p(\d\d)/")
    for pattern in ("(", "*", "(?P<a>x)(?P<a>y)", "a{99999999999}", "(?<=a+)b"):
        with pytest.raises(ConfigurationError, match=r"--patient .*as a regular expression"):
            find_patients(paths, pattern)
