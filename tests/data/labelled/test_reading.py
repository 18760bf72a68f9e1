import pytest

from labelled_files import mask, save, volume, write_csv, write_json
from modelsgenesis.data import read_labelled
from modelsgenesis.errors import ConfigurationError, DataError


def test_refuses_what_is_no_data_set(tmp_path, decathlon):
    for name in ("nowhere", "a" * 5000, "a\0b"):
        with pytest.raises(DataError, match=r"no such folder or file; expected a Decathlon"):
            read_labelled(tmp_path / name)
    with pytest.raises(DataError, match="check the path"):
        read_labelled("~nobody-of-this-name/x")
    (tmp_path / "x.txt").touch()
    with pytest.raises(DataError, match=r"x\.txt: of no known layout, or empty; expected a Decathlon"):
        read_labelled(tmp_path / "x.txt")
    with pytest.raises(ConfigurationError, match="task: received 'det'; known are cls, seg"):
        read_labelled(decathlon, task="det")
    with pytest.raises(ConfigurationError, match="modality: received 'mr'; did you mean mri"):
        read_labelled(decathlon, modality="mr")
    with pytest.raises(DataError, match="Balls: its labels are for segmentation; classification was asked for"):
        read_labelled(decathlon, task="cls")
    for name in ("a", "b"):
        write_csv(tmp_path / f"{name}.csv", ["image", "label"], [])
    with pytest.raises(DataError, match=r"holds a\.csv and b\.csv; name the one to read"):
        read_labelled(tmp_path)


def test_the_modality_is_asked_for_or_said_or_told_by_values(decathlon, tmp_path):
    assert read_labelled(decathlon).modality == "ct"
    assert read_labelled(decathlon, modality="mri").modality == "mri"
    for index in range(2):
        save(tmp_path / f"i{index}.nii.gz", volume(index))
        save(tmp_path / f"l{index}.nii.gz", mask(1))
    training = [{"image": f"i{index}.nii.gz", "label": f"l{index}.nii.gz"} for index in range(2)]
    write_json(tmp_path / "dataset.json", {"labels": {"0": "background", "1": "x"}, "training": training})
    data = read_labelled(tmp_path)
    assert data.modality == "mri"
    assert data.notes[0].startswith("modality: mri (positive values in arbitrary units")


def test_names_of_cases_are_unique(tmp_path):
    for place in ("a", "b"):
        save(tmp_path / place / "1.nii.gz", volume(0))
    training = [{"image": f"{place}/1.nii.gz", "label": f"{place}/1.nii.gz"} for place in ("a", "b")]
    write_json(tmp_path / "dataset.json", {"labels": {"0": "background"}, "training": training})
    with pytest.raises(DataError, match="'1' names several cases"):
        read_labelled(tmp_path)
