"""What a folder, a glob, a list and a data set's description lead to."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from labelled_files import write_json
from modelsgenesis.data import find_scans, scan_sources, skipped_notes
from modelsgenesis.errors import ConfigurationError, DataError


def scan(path: Path) -> Path:
    """Write a small scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 12, np.eye(4)), path)
    return path


def names(source, **options) -> list[str]:
    return [found.path.name for found in find_scans(source, **options)[0]]


def reasons(source) -> dict[str, str]:
    """Why each scan was skipped, by the last part of its name; what was left aside is marked."""
    return {Path(one.source).name: f"{'' if one.bad else 'aside: '}{one.reason}" for one in scan_sources(source)[1]}


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
    (tmp_path / "scans.txt").write_text("# mine\na/1.nii.gz\n\nb\nscans.txt\n")  # the list names itself
    assert names(first) == ["1.nii.gz"]
    assert names(str(tmp_path / "**" / "*.nii.gz")) == ["1.nii.gz", "2.nii.gz"]
    assert names(str(tmp_path / "*" / "2.*")) == ["2.nii.gz"]
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
    assert [note.count("_seg") for note in skipped_notes(skipped)] == [2, 0]
    assert "and 3 more: holds labels, by its name" in skipped_notes(skipped)[0]
    for source in (mask, tmp_path / "labels", tmp_path / "labels.txt", tmp_path / "nnunet"):
        assert names(source) == ["1.nii.gz"]
    assert len(names(str(tmp_path / "*" / "*.nii.gz"))) == 12
    assert len(names(str(tmp_path / "*" / "*_seg.nii.gz"))) == 5


def test_what_systems_leave_behind_is_left_aside_and_named(tmp_path: Path) -> None:
    scan(tmp_path / "a" / "1.nii")
    scan(tmp_path / "__MACOSX" / "a" / "1.nii")
    for name in ("._1.nii", ".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == ["1.nii"]
    found = reasons(tmp_path)
    assert found.pop("empty") == "aside: an empty folder"
    left = "aside: left by macOS or Windows, not a scan"
    assert found == dict.fromkeys(("__MACOSX", "._1.nii", ".DS_Store", "Thumbs.db"), left)


@pytest.mark.parametrize("training", ["mapping", "plain"])
def test_a_decathlon_data_set(tmp_path: Path, training: str) -> None:
    image, label = "./imagesTr/p_01.nii.gz", "./labelsTr/p_01.nii.gz"
    scan(tmp_path / "set" / image)
    scan(tmp_path / "set" / label)
    scan(tmp_path / "set" / "imagesTs" / "p_02.nii.gz")
    listed = [{"image": image, "label": label} if training == "mapping" else image]
    test = ["./imagesTs/p_02.nii.gz", "./imagesTs/p_03.nii.gz"]
    write_json(tmp_path / "set" / "dataset.json", {"modality": {"0": "CT"}, "training": listed, "test": test})
    for source in (tmp_path, tmp_path / "set", tmp_path / "set" / "dataset.json"):
        scans, skipped = find_scans(source)
        assert [(found.path.name, found.modality) for found in scans] == [("p_01.nii.gz", "ct"), ("p_02.nii.gz", "ct")]
        assert [one.reason for one in skipped] == ["named in dataset.json, but not there"]


def test_an_nnunet_data_set_groups_its_channels(tmp_path: Path) -> None:
    for name in ("p_01_0000.nii.gz", "p_01_0001.nii.gz", "p_02_0000.nii.gz"):
        scan(tmp_path / "imagesTr" / name)
    scan(tmp_path / "labelsTr" / "p_01.nii.gz")
    description = {"channel_names": {"0": "MRI_T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 2}
    write_json(tmp_path / "dataset.json", description)
    scans, _ = find_scans(tmp_path)
    assert [found.group for found in scans] == ["p_01", "p_01", "p_02"]
    assert {found.modality for found in scans} == {"mri"}


def test_groups_by_a_pattern(tmp_path: Path) -> None:
    for name in ("sub-07_ses-1_T1w.nii.gz", "00001280_004.nii.gz"):
        scan(tmp_path / name)
    assert [found.group for found in find_scans(tmp_path)[0]] == ["00001280_004", "sub-07"]
    assert [found.group for found in find_scans(tmp_path, group_pattern=r"(\d+)_")[0]] == ["00001280", "07"]
    with pytest.raises(ConfigurationError, match="--patient"):
        find_scans(tmp_path, group_pattern="(")


def test_bad_files_are_skipped_and_the_others_found(tmp_path: Path) -> None:
    scan(tmp_path / "good.nii.gz")
    scan(tmp_path / f"{'a' * 248}.nii.gz")  # 255 bytes, the most that a name may have
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz")).write_bytes((tmp_path / "good.nii.gz").read_bytes())
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    for name in ("pipe.nii.gz", "pipe.dcm", "pipe"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "device.nii").symlink_to("/dev/zero")
    assert names(tmp_path) == [f"{'a' * 248}.nii.gz", "good.nii.gz"]
    found = reasons(tmp_path)
    assert found.pop("bad.nii.gz")
    assert "no such file" in found.pop("gone.nii")
    assert "DICOM" in found.pop("empty.dcm")
    assert "not UTF-8" in found.pop(r"M\udcfcller.nii.gz")
    assert sorted(found) == ["device.nii", "pipe.dcm", "pipe.nii.gz"]
    assert all("not a regular file" in reason for reason in found.values())


def test_a_loop_of_links_is_left_and_told(tmp_path: Path) -> None:
    scan(tmp_path / "a" / "1.nii")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["1.nii"]
    assert reasons(tmp_path)["loop"].startswith("aside: a link back")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable scan; expected NIfTI, Analyze, MGH"):
        find_scans(tmp_path)
    (tmp_path / "bad.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable scan: 1 skipped, the first .*bad\.nii: "):
        find_scans(tmp_path)
    assert scan_sources(tmp_path)[0] == []
    for source in ("missing", "a" * 5000, "a\0b", "~nobody-of-this-name/x"):
        with pytest.raises(DataError, match=r"no such file|cannot be read"):
            find_scans(tmp_path / source if source[0] != "~" else source)


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[" * 100_000, '{"channel_names": {"0": "CT"}, "dataset": [1]}', '{"channel_names": [[]]}'),
        *(f'{{"training": {value}}}' for value in ("[null]", "[[1, 2]]", '[{"image": {}}]', '5, "file_ending": 5')),
        *(f'{{"training": [], {more}}}' for more in ('"test": 5', '"modality": {"0": null}', '"modality": 1e400')),
        '{"training": [], "name": "\\ud800"}',
    ],
)
def test_a_description_of_odd_kinds_is_skipped_and_its_folder_searched(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    scan(tmp_path / "1.nii")
    assert names(tmp_path) == ["1.nii"]
    assert reasons(tmp_path)["dataset.json"]
    with pytest.raises(DataError, match=r"dataset\.json: "):
        find_scans(tmp_path / "dataset.json")


def test_descriptions_and_lists_that_cannot_be_used(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"training": ["a" * 5000 + ".nii.gz", "1.nii"]})
    scan(tmp_path / "1.nii")
    assert names(tmp_path) == ["1.nii"]
    assert "not there" in next(iter(reasons(tmp_path).values()))
    for content in ([], {"name": "other"}):
        write_json(tmp_path / "dataset.json", content)
        assert reasons(tmp_path) == {}
        with pytest.raises(DataError, match=r"neither a Decathlon nor an nnU-Net description"):
            find_scans(tmp_path / "dataset.json")
    for content in (b"\xff\xfe\x00", b"a\0b.nii\n", b"a" * 5000):
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"no such file|cannot be read"):
            find_scans(tmp_path / "list.txt")
