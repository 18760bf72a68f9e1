import numpy as np
import pytest

from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.errors import DataError, UnreadableScanError


def write(path, shape, labels, parts=("train", "val", "test"), top=200):
    random = np.random.default_rng(0)
    arrays = {}
    for part in parts:
        arrays[f"{part}_images"] = random.integers(0, top, (len(labels), *shape)).astype(np.uint8)
        arrays[f"{part}_labels"] = np.asarray(labels)
    np.savez_compressed(path, **arrays)
    return path


def test_reads_grey_planes(tmp_path):
    data = read_labelled(write(tmp_path / "pneumoniamnist.npz", (28, 28), [[0], [2], [1]]))
    assert (data.labels, data.dims, data.modality, data.multilabel) == (("0", "1", "2"), 2, "xray", False)
    assert [case.classes for case in data.cases[:3]] == [(0,), (2,), (1,)]
    assert [case.part for case in data.cases[::3]] == ["training", "validation", "test"]
    assert len({case.patient for case in data.cases}) == 9
    assert prepare_case(data.cases[0], data, data_contract(data), size=(14, 14)).image.shape == (1, 14, 14)


def test_reads_colour_a_channel_each_and_several_classes(tmp_path):
    data = read_labelled(write(tmp_path / "x.npz", (8, 8, 3), [[0, 1], [1, 1], [0, 0]]), modality="xray")
    assert data.channels == ("red", "green", "blue")
    assert (data.multilabel, [case.classes for case in data.cases[:3]]) == (True, [(1,), (0, 1), ()])
    assert data.modality == "xray"
    case = prepare_case(data.cases[0], data, data_contract(data))
    assert case.image.shape == (3, 8, 8)
    assert not np.array_equal(case.image[0], case.image[2])


def test_reads_shapes(tmp_path):
    data = read_labelled(write(tmp_path / "adrenal.npz", (6, 7, 8), [[0], [1]], ("train", "val"), top=2))
    assert (data.modality, data.dims) == ("shape", 3)
    case = prepare_case(data.cases[0], data, data_contract(data))
    assert case.image.shape == (1, 6, 7, 8)
    assert set(np.unique(case.image)) == {0, 1}


def test_says_what_is_wrong(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK junk")
    with pytest.raises(UnreadableScanError, match=r"x\.npz: cannot be read"):
        read_labelled(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(DataError, match="no train_images; expected MedMNIST's keys, received images"):
        read_labelled(path)
    np.savez(path, train_images=np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="has train_images and no train_labels"):
        read_labelled(path)
    np.savez(path, train_images=np.zeros((2, 4, 4)), train_labels=np.zeros((3, 1), int))
    with pytest.raises(DataError, match=r"train_images is \(2, 4, 4\) beside 3 labels"):
        read_labelled(path)
    np.savez(path, train_images=np.zeros((2, 4, 4)), train_labels=np.zeros((2, 1)))
    with pytest.raises(DataError, match="train_labels is float64"):
        read_labelled(path)
    np.savez(path, train_images=np.zeros((2, 4, 4)), train_labels=np.array([[0, 2], [1, 0]]))
    with pytest.raises(DataError, match="train_labels holds 2; expected 0 and 1"):
        read_labelled(path)
    both = {"train_images": np.zeros((2, 4, 4)), "train_labels": np.zeros((2, 1), int)}
    np.savez(path, **both, val_images=np.zeros((2, 4, 5)), val_labels=np.zeros((2, 1), int))
    with pytest.raises(DataError, match="val has images or labels of another shape than train"):
        read_labelled(path)


@pytest.mark.shared
def test_reads_the_adrenal_glands(shared_data):
    data = read_labelled(shared_data / "adrenalmnist3d_64.npz")
    assert (len(data.cases), data.modality, data.dims) == (1286, "shape", 3)
    assert (data.cases[0].name, data.cases[-1].name) == ("train_0000", "val_0097")
