import numpy as np
import pytest

from labelled_files import mask, save, volume, write_json
from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.errors import DataError, ScanError

BRAIN = {
    "name": "Brain",
    "modality": {"0": "FLAIR", "1": "T1w", "10": "T2w"},
    "labels": {"0": "background", "1": "edema", "4": "tumour"},
}


def brain(folder, count=2, channels=3):
    training = []
    for index in range(count):
        image = np.stack([volume(10 * index + channel) * (channel + 1) for channel in range(channels)], axis=-1)
        save(folder / "imagesTr" / f"brain_{index}.nii.gz", image)
        save(folder / "labelsTr" / f"brain_{index}.nii.gz", mask(1, 4))
        training.append({"image": f"imagesTr/brain_{index}.nii.gz", "label": f"labelsTr/brain_{index}.nii.gz"})
    write_json(folder / "dataset.json", BRAIN | {"training": training})
    return folder


def test_channels_are_the_volumes_of_a_file_in_the_order_of_their_numbers(tmp_path):
    data = read_labelled(brain(tmp_path), task="seg")
    assert data.channels == ("FLAIR", "T1w", "T2w")
    assert (data.modality, data.dims, data.labels) == ("mri", 3, ("background", "edema", "tumour"))
    assert [image.index for image in data.cases[0].images] == [0, 1, 2]
    case = prepare_case(data.cases[1], data, data_contract(data))
    assert case.image.shape == (3, 10, 9, 8)
    assert case.image.dtype == np.float32
    assert data_contract(data).channels == data.channels
    for channel, prepared in zip(case.image, case.volumes, strict=True):
        assert np.shares_memory(channel, prepared.array)
        assert channel.max() == pytest.approx(1)  # by percentiles of its own
    assert np.bincount(case.label.ravel()).tolist() == [10 * 72 - 2 * 2 * 72, 144, 144]


def test_a_file_of_too_few_channels_is_refused_by_name(tmp_path):
    data = read_labelled(brain(tmp_path, channels=2))
    with pytest.raises(ScanError, match=r"brain_0\.nii\.gz.*2 was asked for"):
        prepare_case(data.cases[0], data, data_contract(data))


def test_the_patient_is_told_by_a_pattern(tmp_path):
    data = read_labelled(brain(tmp_path), patient_pattern=r"_(\d)")
    assert [case.patient for case in data.cases] == ["0", "1"]
    assert data.notes == (r"patients by the pattern _(\d)",)
    assert [case.patient for case in read_labelled(tmp_path).cases] == ["brain_0", "brain_1"]


@pytest.mark.shared
def test_reads_the_hippocampus(shared_data):
    data = read_labelled(shared_data / "Task04_Hippocampus")
    assert (len(data.cases), data.labels) == (195, ("background", "Anterior", "Posterior"))
    assert (data.modality, data.task, len({case.patient for case in data.cases})) == ("mri", "segmentation", 195)


def test_a_description_of_another_kind_is_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"labels": {"x": "background"}, "training": []})
    with pytest.raises(DataError, match=r"expected keys labels \(value to name\)"):
        read_labelled(tmp_path)
