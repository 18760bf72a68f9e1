"""MedMNIST's arrays as data sets, and archives that are not what they claim."""

import io
import zipfile

import numpy as np
import pytest

from labelled_files import save, volume
from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.data.labelled.images import array_names, read_array
from modelsgenesis.errors import DataError, ScanError


def arrays(path, shape, labels, parts=("train", "val", "test"), top=200):
    random, content = np.random.default_rng(0), {}
    for part in parts:
        content[f"{part}_images"] = random.integers(0, top, (len(labels), *shape)).astype(np.uint8)
        content[f"{part}_labels"] = np.asarray(labels)
    np.savez_compressed(path, **content)
    return path


def test_arrays_of_grey_planes(tmp_path):
    data = read_labelled(arrays(tmp_path / "pneumoniamnist.npz", (28, 28), [[0], [2], [1]]))
    assert (data.labels, data.dims, data.modality, data.multilabel) == (("0", "1", "2"), 2, "xray", False)
    assert [case.classes for case in data.cases[:3]] == [(0,), (2,), (1,)]
    assert [case.part for case in data.cases[::3]] == ["training", "validation", "test"]
    assert len({case.patient for case in data.cases}) == 9
    assert prepare_case(data.cases[0], data, data_contract(data), size=(14, 14)).image.shape == (1, 14, 14)


def test_arrays_of_colours_a_channel_each_and_several_classes(tmp_path):
    data = read_labelled(arrays(tmp_path / "x.npz", (8, 8, 3), [[0, 1], [1, 1], [0, 0]]), modality="xray")
    assert (data.channels, data.modality) == (("red", "green", "blue"), "xray")
    assert (data.multilabel, [case.classes for case in data.cases[:3]]) == (True, [(1,), (0, 1), ()])
    case = prepare_case(data.cases[0], data, data_contract(data))
    assert case.image.shape == (3, 8, 8)
    assert not np.array_equal(case.image[0], case.image[2])


def test_arrays_of_shapes(tmp_path):
    data = read_labelled(arrays(tmp_path / "adrenal.npz", (6, 7, 8), [[0], [1]], ("train", "val"), top=2))
    assert (data.modality, data.dims) == ("shape", 3)
    case = prepare_case(data.cases[0], data, data_contract(data))
    assert case.image.shape == (1, 6, 7, 8)
    assert set(np.unique(case.image)) == {0, 1}


IMAGES, NUMBERS = np.zeros((2, 4, 4)), np.zeros((2, 1), int)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros(3)}, "no train_images.* received images"),
        ({"train_images": IMAGES}, "no train_labels"),
        ({"train_images": IMAGES, "train_labels": np.zeros((3, 1), int)}, r"\(2, 4, 4\) beside 3 labels"),
        ({"train_images": IMAGES, "train_labels": NUMBERS.astype(float)}, "train_labels is float64"),
        ({"train_images": IMAGES, "train_labels": NUMBERS - 1}, "train_labels is int64"),
        ({"train_images": IMAGES, "train_labels": NUMBERS + 2**40}, "train_labels holds"),
        ({"train_images": IMAGES, "train_labels": np.full((2, 3), 2)}, "train_labels holds 2"),
        ({"train_images": np.zeros((2, 4)), "train_labels": NUMBERS}, "train_images is"),
        ({"train_images": IMAGES, "train_labels": NUMBERS, "val_images": IMAGES}, "no val_labels"),
        (
            {"train_images": IMAGES, "train_labels": NUMBERS, "val_images": np.zeros((2, 5, 4)), "val_labels": NUMBERS},
            "val_images is",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path / "x.npz")


def packed(*parts):
    """An archive of one array that claims a shape and holds other bytes."""
    shape, dtype, content = parts
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "cannot be read"),
        (packed((), "<f8", bytes(8)), "expected an array"),
        (packed((1, 1), "<U1", bytes(4)), "expected an array"),
        (packed((1, 1), "<M8[s]", bytes(8)), "expected an array"),
        (packed((1, 1), [("a", "<f4")], bytes(4)), "expected an array"),
        (packed((1,), "|O", b"cos\nsystem\n."), "expected an array"),
        (packed((1 << 40,), "|u1", b""), "claims 1,099,511,627,776 bytes"),
        (packed((100, 10, 10), "|u1", bytes(50)), "claims 10,000 bytes"),
        (packed((10, -3), "|u1", b""), "cannot be read"),
    ],
)
def test_arrays_of_odd_kinds_are_refused_by_their_header(tmp_path, content, message):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", content)
        file.writestr("other", b"hello")
    assert array_names(tmp_path / "x.npz") == ["images"]
    for key in ("images", "other"):
        with pytest.raises(ScanError, match=message if key == "images" else "no item named"):
            read_array(tmp_path / "x.npz", key)


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("modelsgenesis.data.labelled.images._ANY_SIZE", 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((1, 2048, 2048), np.uint8))
    with pytest.raises(ScanError, match="fill the memory"):
        read_array(tmp_path / "x.npz", "images")
    with pytest.raises(ScanError, match="cannot be read"):
        array_names(save(tmp_path / "y.nii", volume(0)))


@pytest.mark.shared
def test_reads_the_adrenal_glands(shared_data):
    data = read_labelled(shared_data / "adrenalmnist3d_64.npz")
    assert (len(data.cases), data.modality, data.dims) == (1286, "shape", 3)
    assert (data.cases[0].name, data.cases[-1].name) == ("train_0000", "val_0097")
