import pytest

from labelled_files import picture, save, volume
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import prepare_cases, read_labelled
from modelsgenesis.errors import ConfigurationError, DataError


def test_folders_are_classes_and_names_tell_the_patient(tmp_path):
    for index in range(6):
        picture(tmp_path / ("pneumonia" if index % 2 else "no_finding") / f"0000{index // 2}_{index:03d}.png", index)
    (tmp_path / "pneumonia" / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").touch()
    data = read_labelled(tmp_path, modality="xray")
    assert (data.labels, data.dims, data.task) == (("no_finding", "pneumonia"), 2, "classification")
    assert {case.patient for case in data.cases} == {"00000", "00001", "00002"}
    assert data.notes[0] == "patients by the part of the files' names before the last _"
    assert "left out" in data.notes[1]
    assert "broken.png" in data.notes[1]
    prepared, refused = prepare_cases(data.cases, data, CONTRACTS["xray"], size=(8, 8))
    assert (len(prepared), refused) == (6, [])
    assert prepared[0].image.shape == (1, 8, 8)
    assert prepared[0].volumes == ()


def test_warns_where_every_image_would_be_its_own_patient(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / name / f"image_{name}.png", 0)
    data = read_labelled(tmp_path)
    assert data.notes[0].startswith("warning: every image counts as its own patient")
    assert [case.patient for case in data.cases] == ["image_a", "image_b"]


def test_folders_of_parts_hold_folders_of_classes(tmp_path):
    for part in ("train", "val", "test"):
        for name in ("normal", "abnormal"):
            picture(tmp_path / part / name / "1.png", 0)
    data = read_labelled(tmp_path)
    assert data.labels == ("normal", "abnormal")
    assert [case.part for case in data.cases] == ["test"] * 2 + ["training"] * 2 + ["validation"] * 2
    assert data.cases[0].name == "test/abnormal/1.png"


def test_volumes_are_classified_too(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / f"sub-{name}_T1.nii.gz", volume(0))
    data = read_labelled(tmp_path, modality="mri")
    assert (data.dims, [case.patient for case in data.cases]) == (3, ["sub-a", "sub-b"])


def test_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match=r"no dataset\.json, CSV, \.npz or folders in it; expected a Decathlon"):
        read_labelled(tmp_path)
    picture(tmp_path / "only" / "1.png", 0)
    with pytest.raises(DataError, match="images of only alone; expected a folder a class"):
        read_labelled(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no usable scan"):
        read_labelled(tmp_path)
    picture(tmp_path / "empty" / "x.png", 0)
    with pytest.raises(DataError, match=r"pattern 'x': does not fit 1 of 2 names, such as '1'"):
        read_labelled(tmp_path, patient_pattern="x")
    with pytest.raises(ConfigurationError, match=r"patient pattern '\(': is no regular expression"):
        read_labelled(tmp_path, patient_pattern="(")
    save(tmp_path / "empty" / "x2.nii.gz", volume(0))
    with pytest.raises(DataError, match="planes and volumes in one set"):
        read_labelled(tmp_path)


@pytest.mark.shared
def test_reads_the_x_rays(shared_data):
    data = read_labelled(shared_data / "chestxray8", modality="xray")
    assert (len(data.cases), len({case.patient for case in data.cases})) == (752, 512)
    assert data.labels == ("no_finding", "pneumonia")
