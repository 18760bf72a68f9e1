"""MedMNIST's arrays as data sets, and archives that are not what they claim."""

import io
import zipfile

import numpy as np
import pytest

from labelled_files import save, volume
from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.data.labelled.images import array_names, read_array
from modelsgenesis.errors import DataError, ScanError


@pytest.mark.parametrize(
    ("name", "shape", "labels", "top", "facts", "classes"),
    [
        ("pneumoniamnist", (28, 28), [[0], [2], [1]], 200, (("0", "1", "2"), 2, "xray", False, ("image",)), [0, 2, 1]),
        ("x", (8, 8, 3), [[0, 1], [1, 1], [0, 0]], 200, (("0", "1"), 2, "mri", True, ("red", "green", "blue")), None),
        ("adrenal", (6, 7, 8), [[0], [1]], 2, (("0", "1"), 3, "shape", False, ("image",)), [0, 1]),
    ],
)
def test_arrays_of_planes_colours_and_shapes(tmp_path, name, shape, labels, top, facts, classes):
    random = np.random.default_rng(0)
    content = {
        key: value
        for part in ("train", "val", "test")
        for key, value in (
            (f"{part}_images", random.integers(0, top, (len(labels), *shape)).astype(np.uint8)),
            (f"{part}_labels", np.asarray(labels)),
        )
    }
    np.savez_compressed(tmp_path / name, **content)
    data = read_labelled(tmp_path / f"{name}.npz", modality="mri" if name == "x" else None)
    assert (data.labels, data.dims, data.modality, data.multilabel, data.channels) == facts
    held = [case.classes for case in data.cases[: len(labels)]]
    assert held == ([(1,), (0, 1), ()] if classes is None else [(index,) for index in classes])
    assert [case.part for case in data.cases[:: len(labels)]] == ["training", "validation", "test"]
    assert len({case.patient for case in data.cases}) == 3 * len(labels)
    image = prepare_case(data.cases[0], data, data_contract(data)).image
    assert image.shape == (len(data.channels), *shape[: data.dims])
    assert len(data.channels) == 1 or not np.array_equal(image[0], image[2])


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
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("shape", "dtype", "content", "message"),
    [
        ((), "<f8", bytes(8), "expected an array"),
        ((1, 1), "<U1", bytes(4), "expected an array"),
        ((1, 1), [("a", "<f4")], bytes(4), "expected an array"),
        ((1,), "|O", b"cos\nsystem\n.", "expected an array"),
        ((1 << 40,), "|u1", b"", "claims 1,099,511,627,776 bytes"),
        ((100, 10, 10), "|u1", bytes(50), "claims 10,000 bytes"),
        ((10, -3), "|u1", b"", "cannot be read"),
    ],
)
def test_arrays_of_odd_kinds_are_refused_by_their_header(tmp_path, shape, dtype, content, message):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", header.getvalue() + content)
        file.writestr("other", b"hello")
    assert array_names(tmp_path / "x.npz") == ["images"]
    for key, expected in (("images", message), ("other", "no item named")):
        with pytest.raises(ScanError, match=expected):
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
