import numpy as np
import pytest

from labelled_files import AFFINE, mask, picture, save, volume, write_json
from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.errors import DataError, ScanError

TWO = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "core": 1, "edema": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def raw(folder, description=TWO, channels=2):
    for case in ("a_001", "a_002"):
        for channel in range(channels):
            save(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz", volume(channel))
        save(folder / "labelsTr" / f"{case}.nii.gz", mask(1, 2))
    write_json(folder / "dataset.json", description)
    return folder


def test_reads_version_2(tmp_path):
    data = read_labelled(raw(tmp_path))
    assert [case.name for case in data.cases] == ["a_001", "a_002"]
    assert [image.path.name for image in data.cases[0].images] == ["a_001_0000.nii.gz", "a_001_0001.nii.gz"]
    assert (data.channels, data.labels, data.modality) == (("T1", "T2"), ("background", "core", "edema"), "mri")
    assert prepare_case(data.cases[0], data, data_contract(data)).image.shape == (2, 10, 9, 8)
    assert data.notes == ()


def test_reads_version_1_whose_list_leaves_out_the_channel(tmp_path):
    one = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": 3,
        "training": [{"image": "./imagesTr/a_001.nii.gz", "label": "./labelsTr/a_001.nii.gz"}],
    }
    data = read_labelled(raw(tmp_path, one, channels=1))
    assert (data.modality, data.labels, len(data.cases)) == ("ct", ("background", "liver", "cancer"), 2)
    assert data.notes == ("dataset.json says 3 training cases, 2 were found",)


def test_reads_files_that_the_description_lists_and_planes(tmp_path):
    for name in ("x", "y"):
        picture(tmp_path / "here" / f"{name}.png", 0)
        picture(tmp_path / "there" / f"{name}.png", 1)
    listed = {name: {"images": [f"here/{name}.png"], "label": f"there/{name}.png"} for name in ("x", "y")}
    description = {"channel_names": {"0": "X-ray"}, "labels": {"background": 0, "lung": 255}, "dataset": listed}
    write_json(tmp_path / "dataset.json", description | {"file_ending": ".png"})
    data = read_labelled(tmp_path)
    assert (data.dims, data.modality, data.values) == (2, "xray", ((0,), (255,)))
    assert (data_contract(data).dims, data_contract(data).orientation) == (2, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "labels whole are regions of several values"),
        ({"labels": {"background": 0, "core": 1, "ignore": 2}}, "has an ignore label"),
        ({"labels": {"core": 1}}, "0 for the background"),
        ({"labels": {"background": 0, "core": 1, "edema": 1}}, "expected a value of its own each"),
        ({"labels": {"background": "x"}}, "expected whole numbers"),
        ({"labels": []}, "expected labels, from name to value"),
        ({"channel_names": {}}, "expected channel_names"),
        ({"channel_names": {"a": "T1"}}, "keys a; expected numbers"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, r"2 files are not there, such as .*a_001_0002\.nii\.gz"),
        ({"file_ending": ".nrrd"}, r"no labels in .*labelsTr that end in \.nrrd"),
        ({"dataset": {"z": {"images": ["imagesTr/a_001_0000.nii.gz"], "label": "labelsTr/a_001.nii.gz"}}}, "z lists 1"),
        ({"dataset": {"z": {"label": "labelsTr/a_001.nii.gz"}}}, "dataset: expected images and label of each case"),
    ],
)
def test_says_what_is_wrong(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_labelled(raw(tmp_path, TWO | changes))


def test_channels_on_different_grids_are_refused(tmp_path):
    raw(tmp_path)
    save(tmp_path / "imagesTr" / "a_001_0001.nii.gz", volume(0, (10, 9, 7)))
    save(tmp_path / "imagesTr" / "a_002_0001.nii.gz", volume(0), AFFINE + np.eye(4))
    data = read_labelled(tmp_path)
    with pytest.raises(ScanError, match=r"a_001_0001\.nii\.gz: shape \(10, 9, 7\) is not the \(10, 9, 8\)"):
        prepare_case(data.cases[0], data, data_contract(data))
    with pytest.raises(ScanError, match=r"a_002_0001\.nii\.gz: its affine is up to 1 mm away"):
        prepare_case(data.cases[1], data, data_contract(data))
