"""What a folder, a glob, a list and a data set's description lead to."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from modelsgenesis.data import find_scans, read_volume, survey
from modelsgenesis.errors import DataError, UnreadableScanError


def scan(path: Path) -> Path:
    """Write a small scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 12, np.eye(4)), path)
    return path


def names(source, **options) -> list[str]:
    return [found.path.name for found in find_scans(source, **options)[0]]


def test_a_folder_is_searched_to_any_depth(tmp_path: Path) -> None:
    scan(tmp_path / "b" / "c" / "d" / "deep.nii.gz")
    scan(tmp_path / "a.nii")
    scan(tmp_path / ".hidden" / "x.nii")
    scan(tmp_path / ".hidden.nii")
    (tmp_path / "notes.md").write_text("no scan")
    (tmp_path / "data").write_bytes(b"no scan either")
    Image.new("L", (4, 4)).save(tmp_path / "b" / "image.png")
    assert names(tmp_path) == ["a.nii", "image.png", "deep.nii.gz"]
    assert names(str(tmp_path)) == names(tmp_path)


def test_a_file_a_glob_a_list_and_several(tmp_path: Path) -> None:
    first, second = scan(tmp_path / "a" / "1.nii.gz"), scan(tmp_path / "b" / "2.nii.gz")
    (tmp_path / "scans.txt").write_text("# mine\na/1.nii.gz\n\nb\n")
    assert names(first) == ["1.nii.gz"]
    assert names(str(tmp_path / "**" / "*.nii.gz")) == ["1.nii.gz", "2.nii.gz"]
    assert names(str(tmp_path / "*" / "2.*")) == ["2.nii.gz"]
    assert names(tmp_path / "scans.txt") == ["1.nii.gz", "2.nii.gz"]
    assert names([second, first, second, tmp_path]) == ["2.nii.gz", "1.nii.gz"]


def test_labels_are_not_taken_for_scans(tmp_path: Path) -> None:
    scan(tmp_path / "images" / "1.nii.gz")
    scan(tmp_path / "labels" / "1.nii.gz")
    scans, refused = find_scans(tmp_path)
    assert [found.path.parent.name for found in scans] == ["images"]
    assert refused[0].source == str(tmp_path / "labels")
    assert refused[0].reason == "a folder of labels by its name"
    assert not refused[0].bad
    assert names(tmp_path / "labels") == ["1.nii.gz"]


@pytest.mark.parametrize("training", ["mapping", "plain"])
def test_a_decathlon_data_set(tmp_path: Path, training: str) -> None:
    image, label = "./imagesTr/p_01.nii.gz", "./labelsTr/p_01.nii.gz"
    scan(tmp_path / "set" / image)
    scan(tmp_path / "set" / label)
    scan(tmp_path / "set" / "imagesTs" / "p_02.nii.gz")
    description = {
        "modality": {"0": "CT"},
        "training": [{"image": image, "label": label} if training == "mapping" else image],
        "test": ["./imagesTs/p_02.nii.gz", "./imagesTs/p_03.nii.gz"],
    }
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(description))
    for source in (tmp_path, tmp_path / "set", tmp_path / "set" / "dataset.json"):
        scans, refused = find_scans(source)
        assert [(found.path.name, found.modality) for found in scans] == [
            ("p_01.nii.gz", "ct"),
            ("p_02.nii.gz", "ct"),
        ]
        assert [one.reason for one in refused] == ["named in dataset.json, but not there"]


def test_an_nnunet_data_set_groups_its_channels(tmp_path: Path) -> None:
    for name in ("p_01_0000.nii.gz", "p_01_0001.nii.gz", "p_02_0000.nii.gz"):
        scan(tmp_path / "imagesTr" / name)
    scan(tmp_path / "labelsTr" / "p_01.nii.gz")
    description = {"channel_names": {"0": "MRI_T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    scans, _ = find_scans(tmp_path)
    assert [found.group for found in scans] == ["p_01", "p_01", "p_02"]
    assert {found.modality for found in scans} == {"mri"}


def test_groups(tmp_path: Path) -> None:
    for name in ("sub-07_ses-1_T1w.nii.gz", "00001280_004.nii.gz"):
        scan(tmp_path / name)
    assert [found.group for found in find_scans(tmp_path)[0]] == ["00001280_004", "sub-07"]
    groups = [found.group for found in find_scans(tmp_path, group_pattern=r"(\d+)_")[0]]
    assert groups == ["00001280", "07"]


@pytest.mark.shared
def test_patients_of_the_radiographs(shared_data: Path) -> None:
    scans, refused = find_scans(shared_data / "chestxray8", group_pattern=r"(\d+)_")
    assert (len(scans), len({found.group for found in scans}), refused) == (752, 512, [])


def test_bad_scans_are_refused_and_the_others_found(tmp_path: Path) -> None:
    scan(tmp_path / "good.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    scans, refused = find_scans(tmp_path)
    assert [found.path.name for found in scans] == ["good.nii.gz"]
    reasons = {Path(one.source).name: one.reason for one in refused}
    assert reasons["bad.nii.gz"].startswith("cannot be read: Not a gzipped file")
    assert reasons["gone.nii"] == "there is no such file"
    assert reasons["empty.dcm"] == "has no DICOM content; it is damaged or of another format"


def test_a_loop_of_links_is_left_and_told(tmp_path: Path) -> None:
    scan(tmp_path / "a" / "1.nii")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    scans, refused = find_scans(tmp_path)
    assert len(scans) == 1
    assert refused[0].reason == "a link back to a folder that was searched already"


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable scan; expected NIfTI, Analyze, MGH"):
        find_scans(tmp_path)
    (tmp_path / "bad.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable scan: 1 refused, the first .*bad\.nii: starts with no NIfTI"):
        find_scans(tmp_path)
    assert survey(tmp_path)[0] == []
    with pytest.raises(DataError, match=r"missing: there is no such file or folder"):
        find_scans(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no usable scan; expected"):
        find_scans(str(tmp_path / "*.mha"))


def test_descriptions_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"neither a Decathlon nor an nnU-Net description"):
        find_scans(tmp_path / "other.json")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read as JSON"):
        find_scans(tmp_path / "dataset.json")
    scan(tmp_path / "1.nii")
    scans, refused = find_scans(tmp_path)
    assert len(scans) == 1
    assert refused[0].reason.startswith("cannot be read as JSON")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list\.txt: cannot be read as a list of paths"):
        find_scans(tmp_path / "list.txt")


def test_files_of_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("")
    with pytest.raises(UnreadableScanError, match=r"x\.xyz: of no known format; expected NIfTI"):
        read_volume(tmp_path / "x.xyz")
    with pytest.raises(UnreadableScanError, match=r"y\.xyz: there is no such file"):
        read_volume(tmp_path / "y.xyz")
