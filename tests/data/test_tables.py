"""CSV tables as data sets."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from labelled_files import mask, picture, save, volume, write_csv
from modelsgenesis.data.cases import data_contract, prepare_case
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import DataError, ScanError

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


@pytest.fixture
def pictures(tmp_path):
    return [picture(tmp_path / "img" / f"p{index // 2}_{index % 2}.png", index).name for index in range(6)]


def table(folder, columns, rows):
    return write_csv(folder / "labels.csv", columns, rows)


def test_classes_parts_and_patients(tmp_path, pictures):
    parts = zip(pictures, ["train"] * 2 + ["val"] * 2 + ["test"] * 2, strict=True)
    rows = [(f"img/{n}", "ill" if i % 2 else "normal", f"q{i // 2}", part) for i, (n, part) in enumerate(parts)]
    data = read_labelled(table(tmp_path, ["image", "label", "patient", "split"], rows), task="cls", modality="xray")
    assert (data.task, data.labels, data.dims, data.multilabel) == ("classification", ("normal", "ill"), 2, False)
    assert [case.classes for case in data.cases] == [(0,), (1,)] * 3
    assert [case.patient for case in data.cases] == ["q0", "q0", "q1", "q1", "q2", "q2"]
    assert [case.part for case in data.cases[::2]] == ["training", "validation", "test"]
    prepared = prepare_case(data.cases[0], data, data_contract(data), size=(8, 8))
    assert (prepared.name, prepared.image.shape) == ("p0_0", (1, 8, 8))
    (tmp_path / "._labels.csv").write_bytes(b"\0\5\x16\7")
    assert read_labelled(tmp_path).labels == data.labels  # the one CSV of a folder


def test_without_a_patient_column_names_tell(tmp_path, pictures):
    rows = [(f"img/{n}", str(i % 2)) for i, n in enumerate(pictures)]
    data = read_labelled(table(tmp_path, ["image", "label"], rows))
    assert [case.patient for case in data.cases] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert data.notes[0] == "patients by the names of files and folders"
    assert data.modality is None
    with pytest.raises(DataError, match="the modality is unknown; name it with --modality: ct, ct-8bit, mri"):
        data_contract(data)


def test_several_classes_may_hold(tmp_path, pictures):
    rows = [(f"img/{n}", label) for n, label in zip(pictures, ["a;b", "b", "", "c", "a", "a ; c"], strict=True)]
    data = read_labelled(table(tmp_path, ["Image", " label"], rows))
    assert (data.multilabel, data.labels) == (True, ("a", "b", "c"))
    assert [case.classes for case in data.cases] == [(0, 1), (1,), (), (2,), (0,), (0, 2)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_ends_and_marks(tmp_path, pictures, start, sign, end):
    lines = [f"image{sign}label", f"img/{pictures[0]}{sign}é\xa0a", "", f"img/{pictures[1]}{sign}b"]
    (tmp_path / "x.csv").write_bytes(start + end.join(lines).encode())
    assert read_labelled(tmp_path / "x.csv").labels == ("b", "é\xa0a")


def segmented(folder, alter=lambda label, index: label, columns=("image", "mask"), more=()):
    for index in range(2):
        for channel in "ab":
            save(folder / f"{channel}{index}.nii.gz", volume(index))
        save(folder / f"m{index}.nii.gz", alter(mask(3, 7) if index else mask(3), index))
    rows = [(f"a{i}.nii.gz;b{i}.nii.gz", f"m{i}.nii.gz", *more) for i in range(2)]
    return read_labelled(table(folder, columns, rows), modality="mri")


def test_masks_whose_values_are_nearly_whole_and_channels(tmp_path):
    data = segmented(tmp_path, lambda label, _: label.astype(np.float32) * np.float32(0.99999))
    assert (data.task, data.labels, data.values) == ("segmentation", ("background", "3", "7"), ((0,), (3,), (7,)))
    assert data.channels == ("channel 0", "channel 1")
    case = prepare_case(data.cases[1], data, data_contract(data))
    assert case.image.shape == (2, 10, 9, 8)
    assert np.bincount(case.label.ravel()).tolist() == [432, 144, 144]


@pytest.mark.parametrize(
    ("error", "message", "alter"),
    [
        (DataError, r"m0\.nii\.gz: holds -1", lambda label, _: label.astype(np.int16) - 1),
        (ScanError, r"m0\.nii\.gz: .* such as nan", lambda label, _: np.where(label, np.float32(np.nan), 0)),
        (
            DataError,
            "299 structures",
            lambda label, _: np.indices((label.size,))[0].astype(np.int16).reshape(label.shape) % 300,
        ),
    ],
)
def test_masks_whose_values_cannot_be_looked_up(tmp_path, error, message, alter):
    with pytest.raises(error, match=message):
        segmented(tmp_path, alter)


def test_named_structures_refuse_other_values(tmp_path):
    data = segmented(tmp_path, columns=("image", "mask", "label"), more=("liver;spleen;cyst",))
    assert data.labels == ("background", "liver", "spleen", "cyst")
    prepare_case(data.cases[0], data, data_contract(data))
    with pytest.raises(ScanError, match=r"m1\.nii\.gz: label values \[7\] are not among \[0, 1, 2, 3\]"):
        prepare_case(data.cases[1], data, data_contract(data))
    for names, message in (("liver;liver", "'liver' names several classes"), ("liver;;cyst", "names the structures")):
        with pytest.raises(DataError, match=message):
            segmented(tmp_path, columns=("image", "mask", "label"), more=(names,))


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (["file", "label"], [("img/p0_0.png", "a")], "no column image; its columns are file, label"),
        (["image"], [("img/p0_0.png",)], "no column label"),
        (["image", "label"], [], "no line"),
        (["image", "label", "label"], [("img/p0_0.png", "a", "b")], "twice"),
        (["image", "label"], [("img/p0_0.png", "a\0")], "NULs"),
        (["image", "label"], [("img/p0_0.png", "a" * 200_000)], "as a CSV"),
        (["image", "label"], [("img/p0_0.png",)], "line 2 has 1 fields and the header 2"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_1.png", "")], "line 3 has no label"),
        (["image", "label"], [("", "a")], "line 2 has no image"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/no.png", "b")], r"lists 1 file .* such as .*no\.png"),
        (["image", "label"], [("a" * 5000, "a")], "lists 1 file|too long"),
        (["image", "mask", "label"], [("img/p0_0.png", "img/no.png", "x")], r"lists 1 file .* such as .*no\.png"),
        (["image", "mask"], [("img/p0_0.png", "img/no.png")], r"labels\.csv: lists 1 file .* such as .*no\.png"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_0.png", "b")], "p0_0.*names several cases"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_1.png;img/p1_0.png", "b")], "line 3 has 2 channels"),
        (["image", "label", "patient"], [("img/p0_0.png", "a", "")], "line 2 has no patient"),
        (["image", "label", "split"], [("img/p0_0.png", "a", "tset")], "split 'tset'; did you mean test"),
        (
            ["image", "mask", "label"],
            [("img/p0_0.png", "img/p1_0.png", label) for label in "ab"],
            "in every line; received 'a' and 'b'",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path, pictures, columns, rows, message):
    with pytest.raises(DataError, match=message):
        read_labelled(table(tmp_path, columns, rows))


def test_a_table_of_another_encoding_is_refused(tmp_path):
    for content in ("image,label\na.png,gr\xfcn".encode("latin-1"), "image,label\na.png,b".encode("utf-16"), b""):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"x\.csv: cannot be read"):
            read_labelled(tmp_path / "x.csv")


@pytest.mark.shared
def test_a_folder_of_dicom_is_an_image_and_keeps_its_dots(tmp_path, shared_data):
    for series in ("1.2.840.1", "1.2.840.2"):
        (tmp_path / series).symlink_to(shared_data / "dicom" / "ct_abdomen")
    data = read_labelled(table(tmp_path, ["image", "label"], [("1.2.840.1", "a"), ("1.2.840.2", "b")]))
    assert [(case.name, case.patient) for case in data.cases] == [("1.2.840.1",) * 2, ("1.2.840.2",) * 2]
    assert (data.modality, data.dims) == ("ct", 3)


def test_the_candidates_of_luna16_are_cut_into_patches_by_the_example(tmp_path):
    affine = np.array([[-1.0, 0, 0, 30], [0, -2, 0, 20], [0, 0, 2.5, -10], [0, 0, 0, 1]])
    values, place = np.full((24, 25, 20), -600, np.int16), (11, 12, 9)
    values[place] = 300
    save(tmp_path / "LUNA16" / "subset0" / "1.2.nii.gz", values, affine)
    x, y, z, _ = affine @ (*place, 1)
    rows = [("1.2", -x, -y, z, 1), ("1.2", -x, -y, z + 25, 0), ("9.9", 0, 0, 0, 0)]
    write_csv(tmp_path / "LUNA16" / "candidates_V2.csv", ["seriesuid", "coordX", "coordY", "coordZ", "class"], rows)
    cut_patches = runpy.run_path(str(RECIPES / "luna16_patches.py"))["cut_patches"]
    data = read_labelled(cut_patches(tmp_path / "LUNA16", tmp_path / "patches"), modality="ct")
    assert data.labels == ("no nodule", "nodule")
    assert [(case.patient, case.classes) for case in data.cases] == [("1.2", (1,)), ("1.2", (0,))]
    patch = data.cases[0].images[0].read()
    assert patch.array.shape == (64, 64, 32)
    assert np.argwhere(patch.array == 300).tolist() == [[32, 32, 16]]
    np.testing.assert_allclose(patch.affine @ (32, 32, 16, 1), affine @ (*place, 1))


@pytest.mark.parametrize(
    ("shape", "labels", "classes"),
    [
        ((16, 16), [[0], [2], [1]], [(0,), (2,), (1,)]),
        ((16, 16, 3), [[0, 1], [1, 1], [0, 0]], [(1,), (0, 1), ()]),  # three channels
        ((6, 7, 8), [[0], [1], [1]], [(0,), (1,), (1,)]),
    ],
)
def test_medmnist_becomes_images_and_a_table_by_the_example(tmp_path, shape, labels, classes):
    images = np.random.default_rng(0).integers(0, 255, (3, *shape), np.uint8)
    stored = {"images": images, "labels": np.array(labels)}
    stored = {f"{part}_{name}": array for part in ("train", "val", "test") for name, array in stored.items()}
    np.savez(tmp_path / "x.npz", **stored)
    convert = runpy.run_path(str(RECIPES / "medmnist.py"))["convert"]
    data = read_labelled(convert(tmp_path / "x.npz", tmp_path / "x"), modality="xray")
    assert [case.classes for case in data.cases[:3]] == classes
    assert [(case.name, case.part) for case in data.cases[::8]] == [("train_0", "training"), ("test_2", "test")]
    assert len({case.patient for case in data.cases}) == 9
    read = [image.read().array for image in data.cases[4].images]
    np.testing.assert_array_equal(np.stack(read, axis=-1).squeeze(), images[1])
