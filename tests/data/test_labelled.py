"""`dataset.json` and class folders as data sets."""

import re

import numpy as np
import pytest

from labelled_files import AFFINE, mask, picture, save, volume, write_csv, write_json
from modelsgenesis.data import find_scans
from modelsgenesis.data.cases import data_contract, prepare_case
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import ConfigurationError, DataError, ScanError

BRAIN = {
    "name": "Brain",
    "modality": {"0": "FLAIR", "1": "T1w", "10": "T2w"},
    "labels": {"0": "background", "1": "edema", "4": "tumour"},
}
TWO = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "core": 1, "edema": 2},
    "file_ending": ".nii.gz",
}


def decathlon_like(folder, changes=None, channels=3):
    """Two cases whose file holds the channels as its volumes."""
    training = []
    for index in range(2):
        image = np.stack([volume(10 * index + channel) * (channel + 1) for channel in range(channels)], axis=-1)
        save(folder / "imagesTr" / f"brain_{index}.nii.gz", image)
        save(folder / "labelsTr" / f"brain_{index}.nii.gz", mask(1, 4))
        training.append({"image": f"imagesTr/brain_{index}.nii.gz", "label": f"labelsTr/brain_{index}.nii.gz"})
    write_json(folder / "dataset.json", BRAIN | {"training": training} | (changes or {}))
    return folder


def nnunet(folder, changes=None, channels=2):
    """Two cases with a file a channel."""
    for case in ("a_001", "a_002"):
        for channel in range(channels):
            save(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz", volume(channel))
        save(folder / "labelsTr" / f"{case}.nii.gz", mask(1, 2))
    write_json(folder / "dataset.json", TWO | (changes or {}))
    return folder


def test_channels_are_the_volumes_of_a_file_in_the_order_of_their_numbers(tmp_path):
    data = read_labelled(decathlon_like(tmp_path), task="seg")
    assert data.channels == ("FLAIR", "T1w", "T2w")
    assert (data.modality, data.dims, data.labels) == ("mri", 3, ("background", "edema", "tumour"))
    assert [image.index for image in data.cases[0].images] == [0, 1, 2]
    case = prepare_case(data.cases[1], data, data_contract(data))
    assert (case.image.shape, case.image.dtype) == ((3, 10, 9, 8), np.float32)
    assert case.image.max(axis=(1, 2, 3)) == pytest.approx(1)  # each by percentiles of its own
    assert np.bincount(case.label.ravel()).tolist() == [10 * 72 - 2 * 2 * 72, 144, 144]
    assert [case.patient for case in data.cases] == ["brain_0", "brain_1"]
    told = read_labelled(tmp_path, patient_pattern=r"_(\d)")
    assert ([case.patient for case in told.cases], told.notes) == (["0", "1"], (r"patients by the pattern _(\d)",))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "modality", "cases", "patients", "labels"),
    [
        ("Task04_Hippocampus", "mri", 195, 195, ("background", "Anterior", "Posterior")),
        ("CardiacMR", "mri", 160, 80, None),  # two frames of each heart
        ("chestxray8", "xray", 752, 512, ("no_finding", "pneumonia")),
        ("BreastUS", "ultrasound", 624, 624, ("benign", "normal", "malignant")),
    ],
)
def test_reads_real_data(shared_data, name, modality, cases, patients, labels):
    data = read_labelled(shared_data / name, modality=None if name.startswith("Task") else modality)
    assert (len(data.cases), len({case.patient for case in data.cases})) == (cases, patients)
    assert data.modality == modality
    assert labels in (None, data.labels)


def test_version_2_of_nnunet(tmp_path):
    data = read_labelled(nnunet(tmp_path))
    assert [case.name for case in data.cases] == ["a_001", "a_002"]
    assert [image.path.name for image in data.cases[0].images] == ["a_001_0000.nii.gz", "a_001_0001.nii.gz"]
    assert (data.channels, data.labels, data.modality) == (("T1", "T2"), ("background", "core", "edema"), "mri")
    case = prepare_case(data.cases[0], data, data_contract(data))
    turned = prepare_case(data.cases[0], data, data_contract(data).override(channels=("t2", "T1")))
    np.testing.assert_array_equal(turned.image, case.image[::-1])  # by name
    assert data.notes == ()


def test_version_1_of_nnunet_whose_list_leaves_out_the_channel(tmp_path):
    training = [{"image": "./imagesTr/a_001.nii.gz", "label": "./labelsTr/a_001.nii.gz"}]
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": training}
    write_json(nnunet(tmp_path, channels=1) / "dataset.json", content)
    data = read_labelled(tmp_path)
    assert (data.modality, data.labels) == ("ct", ("background", "liver"))
    assert [scan.path for scan in find_scans(tmp_path)[0]] == [data.cases[0].images[0].path]


def test_images_in_the_folders_of_nnunet_are_the_numbered_ones_alone(tmp_path):
    save(nnunet(tmp_path, {"channel_names": {"0": "T1"}}) / "imagesTr" / "a_001.nii.gz", volume(9))
    assert [case.paths[0].name for case in read_labelled(tmp_path).cases] == ["a_001_0000.nii.gz", "a_002_0000.nii.gz"]
    write_json(tmp_path / "dataset.json", TWO | {"channel_names": {}})
    found, skipped = find_scans(tmp_path)
    assert (len(found), skipped) == (5, [])


def test_files_that_nnunet_lists_and_planes(tmp_path):
    for name in ("x", "y"):
        picture(tmp_path / "here" / f"{name}.png", 0)
        picture(tmp_path / "there" / f"{name}.png", 1)
    listed = {name: {"images": [f"here/{name}.png"], "label": f"there/{name}.png"} for name in ("x", "y")}
    labels = {"lung": 255, "background": 0}
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "X-ray"}, "labels": labels, "dataset": listed})
    data = read_labelled(tmp_path)
    assert (data.dims, data.modality, data.values, data.labels[0]) == (2, "xray", ((0,), (255,)), "background")
    assert (data_contract(data).dims, data_contract(data).orientation) == (2, None)


@pytest.mark.parametrize("kind", [decathlon_like, nnunet])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions"),
        ({"labels": {"background": 0, "core": 1, "ignore": 2}}, "ignore"),
        ({"labels": {"core": 1}}, "0 for the background"),
        ({"labels": {"background": 0, "core": 1, "edema": 1}}, "a value of its own"),
        ({"labels": {"background": 0, "core": 1.5}}, "labels"),
        ({"labels": {"0": "background", "1": "a\nb"}}, "not printable"),
        ({"labels": []}, "labels"),
        ({"channel_names": {"a": "T1"}, "modality": {}}, "as a data set"),
        ({"channel_names": {str(number): "T1" for number in range(500)}}, "500 channels"),
        ({"dataset": {"z": {"label": "labelsTr/a.nii.gz"}}, "training": 5, "channel_names": {"0": "a"}}, "None"),
        ({"dataset": {"../z": {"images": ["a.nii"], "label": "b.nii"}}, "channel_names": {"0": "a"}}, "case called"),
        ({"file_ending": "/../x", "channel_names": {"0": "a"}}, "file_ending"),
        ({"file_ending": ".nrrd", "channel_names": {"0": "a"}}, "no training cases"),
        ({"dataset": {"z": {"images": ["imagesTr/a"], "label": "x"}}, "channel_names": {"0": "a"}}, "not there"),
        ({"dataset": {"z": {"images": ["imagesTr"]}}, "channel_names": {"0": "a"}}, "no label map"),
    ],
)
def test_descriptions_that_are_refused(tmp_path, kind, changes, message):
    with pytest.raises(DataError, match=message):
        read_labelled(kind(tmp_path, changes))


@pytest.mark.parametrize("name", ["../sec.nii.gz", "imagesTr/../../sec.nii.gz", "/etc/sec.nii.gz", ".", "", "a\0b"])
def test_no_path_of_a_description_leads_out_of_its_folder(tmp_path, name):
    save(tmp_path / "sec.nii.gz", volume(0))
    (tmp_path / "set").mkdir()
    path = write_json(tmp_path / "set" / "dataset.json", {"training": [name], "labels": {"0": "background"}})
    for read in (read_labelled, find_scans):
        with pytest.raises(DataError, match="as a data set"):
            read(path)
    scans, refused = find_scans(tmp_path)
    assert [scan.path.name for scan in scans] == ["sec.nii.gz"]
    assert [one.bad for one in refused] == [True]


def test_a_path_inside_may_be_absolute_or_a_link(tmp_path):
    inner = save(tmp_path / "set" / "a.nii.gz", volume(0))
    (tmp_path / "set" / "b.nii.gz").symlink_to(save(tmp_path / "far.nii.gz", volume(1)))
    training = [{"image": str(inner), "label": "b.nii.gz"}]
    write_json(tmp_path / "set" / "dataset.json", {"training": training, "labels": {"0": "background", "1": "x"}})
    assert read_labelled(tmp_path / "set").cases[0].mask.name == "b.nii.gz"


def test_folders_are_classes_and_names_tell_the_patient(tmp_path):
    for index in range(6):
        picture(tmp_path / ("pneumonia" if index % 2 else "no_finding") / f"0000{index // 2}_{index:03d}.png", index)
    (tmp_path / "pneumonia" / "broken.png").write_bytes(b"no image")
    picture(tmp_path / "pneumonia" / "00001_003_mask.png", 0)
    picture(tmp_path / "masks" / "00001_003.png", 0)
    (tmp_path / "__MACOSX" / "pneumonia").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "Thumbs.db").touch()
    data = read_labelled(tmp_path, modality="xray")
    assert (data.labels, data.dims, data.task) == (("no_finding", "pneumonia"), 2, "classification")
    assert {case.patient for case in data.cases} == {"00000", "00001", "00002"}
    assert data.notes[0] == "patients by the names of files and folders"
    said = " ".join(data.notes[1:])
    assert all(name in said for name in ("broken.png", "_mask.png", "masks", "__MACOSX", "empty"))


@pytest.mark.parametrize(
    "names", [("grade0_{}.png", "grade1_{}.png"), ("img_{}.png",) * 2, ("{}.png",) * 2, ("a1_{}.png", "b2_{}.png")]
)
def test_a_rule_that_finds_one_patient_a_class_found_classes(tmp_path, names):
    for place, name in zip(("grade0", "grade1"), names, strict=True):
        for index in range(3):
            picture(tmp_path / place / name.format(index), index)
    data = read_labelled(tmp_path, modality="xray")
    assert len({case.patient for case in data.cases}) == 6
    assert re.match("warning: every image .* --patient", data.notes[0])


def test_folders_of_parts_hold_folders_of_classes(tmp_path):
    for part in ("train", "val", "test"):
        for name in ("normal", "abnormal"):
            picture(tmp_path / part / name / "1.png", 0)
    (tmp_path / "__MACOSX").mkdir()
    data = read_labelled(tmp_path)
    assert data.labels == ("normal", "abnormal")
    assert [case.part for case in data.cases] == ["test"] * 2 + ["training"] * 2 + ["validation"] * 2
    assert (data.cases[0].name, data.cases[0].patient) == ("test/abnormal/1.png", "test/abnormal/1")


def test_class_folders_that_are_refused(tmp_path):
    for make, message in (
        (lambda: None, "of no known layout"),
        (lambda: picture(tmp_path / "only" / "1.png", 0), "images of only alone"),
        ((tmp_path / "empty").mkdir, "images of only alone"),
        ((tmp_path / "empty" / "1.png").touch, "no image of this class"),
    ):
        make()
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path)
    picture(tmp_path / "empty" / "x.png", 0)
    with pytest.raises(DataError, match=r"--patient 'x': does not fit 1 of 2 names, such as '1\.png'"):
        read_labelled(tmp_path, patient_pattern="x")
    save(tmp_path / "empty" / "x2.nii.gz", volume(0))
    with pytest.raises(DataError, match="planes and volumes in one set"):
        read_labelled(tmp_path)


def test_channels_and_masks_that_do_not_lie_on_their_image_are_refused_by_name(tmp_path):
    few, turned, uneven = (tmp_path / name for name in ("few", "turned", "uneven"))
    decathlon_like(few, channels=2)
    save(decathlon_like(turned) / "labelsTr" / "brain_0.nii.gz", mask(1, 4), AFFINE @ np.diag([-1, 1, 1, 1]))
    save(nnunet(uneven) / "imagesTr" / "a_001_0001.nii.gz", volume(0, (10, 9, 7)))
    for folder, message in (
        (few, r"brain_0\.nii\.gz.*2 was asked for"),
        (turned, r"labelsTr/brain_0\.nii\.gz: its affine is up to"),
        (uneven, r"a_001_0001\.nii\.gz: shape \(10, 9, 7\) is not the \(10, 9, 8\)"),
    ):
        data = read_labelled(folder)
        with pytest.raises(ScanError, match=message):
            prepare_case(data.cases[0], data, data_contract(data))


def test_refuses_what_is_no_data_set(tmp_path, decathlon):
    (tmp_path / "x.txt").touch()
    for name, message in (
        *((tmp_path / name, "no such folder or file; expected a Deca") for name in ("nowhere", "a" * 5000, "a\0b")),
        ("~nobody-of-this-name/x", "check the path"),
        (tmp_path / "x.txt", "of no known layout, or empty; expected a Decathlon"),
    ):
        with pytest.raises(DataError, match=message):
            read_labelled(name)
    for options, error, message in (
        ({"task": "det"}, ConfigurationError, "task: received 'det'; known are cls, seg"),
        ({"modality": "mr"}, ConfigurationError, "modality: received 'mr'; did you mean mri"),
        ({"task": "cls"}, DataError, "for segmentation; classification was asked for"),
    ):
        with pytest.raises(error, match=message):
            read_labelled(decathlon, **options)
    for name in ("a", "b"):
        write_csv(tmp_path / f"{name}.csv", ["image", "label"], [])
    with pytest.raises(DataError, match=r"holds a\.csv and b\.csv; name the one to read"):
        read_labelled(tmp_path)


def test_the_modality_is_asked_for_or_said_or_told_by_values(decathlon, tmp_path):
    assert read_labelled(decathlon).modality == "ct"
    assert read_labelled(decathlon, modality="mri").modality == "mri"
    data = read_labelled(decathlon_like(tmp_path, {"modality": {}}, channels=1))
    assert (data.modality, data.notes[0][:33]) == ("mri", "modality: mri (positive values up")
