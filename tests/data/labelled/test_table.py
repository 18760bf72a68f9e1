import pytest

from labelled_files import mask, picture, save, volume, write_csv
from modelsgenesis.data import data_contract, prepare_case, read_labelled
from modelsgenesis.errors import DataError, ScanError


@pytest.fixture
def pictures(tmp_path):
    return [picture(tmp_path / "img" / f"p{index // 2}_{index % 2}.png", index).name for index in range(6)]


def table(folder, columns, rows):
    return write_csv(folder / "labels.csv", columns, rows)


def test_classes_parts_and_patients(tmp_path, pictures):
    parts = ["train", "train", "val", "val", "test", "test"]
    rows = [
        (f"img/{n}", "ill" if i % 2 else "normal", f"q{i // 2}", p)
        for i, (n, p) in enumerate(zip(pictures, parts, strict=True))
    ]
    data = read_labelled(table(tmp_path, ["image", "label", "patient", "split"], rows), task="cls", modality="xray")
    assert (data.task, data.labels, data.dims, data.multilabel) == ("classification", ("normal", "ill"), 2, False)
    assert [case.classes for case in data.cases] == [(0,), (1,)] * 3
    assert [case.patient for case in data.cases] == ["q0", "q0", "q1", "q1", "q2", "q2"]
    assert [case.part for case in data.cases[::2]] == ["training", "validation", "test"]
    assert data.cases[0].name == "p0_0"
    assert prepare_case(data.cases[0], data, data_contract(data), size=(8, 8)).image.shape == (1, 8, 8)
    assert read_labelled(tmp_path).labels == data.labels  # the one CSV of a folder


def test_without_a_patient_column_names_tell(tmp_path, pictures):
    data = read_labelled(
        table(tmp_path, ["image", "label"], [(f"img/{n}", str(i % 2)) for i, n in enumerate(pictures)])
    )
    assert [case.patient for case in data.cases] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert data.notes[0] == "patients by the part of the files' names before the last _"
    assert data.modality is None
    with pytest.raises(DataError, match="its modality cannot be told; say which with --modality: ct, mri"):
        data_contract(data)


def test_several_classes_may_hold(tmp_path, pictures):
    rows = [(f"img/{n}", label) for n, label in zip(pictures, ["a;b", "b", "", "c", "a", "a ; c"], strict=True)]
    data = read_labelled(table(tmp_path, ["Image", " label"], rows))
    assert data.multilabel
    assert data.labels == ("a", "b", "c")
    assert [case.classes for case in data.cases] == [(0, 1), (1,), (), (2,), (0,), (0, 2)]


def test_masks_and_channels(tmp_path):
    for index in range(2):
        for channel in "ab":
            save(tmp_path / f"{channel}{index}.nii.gz", volume(index))
        save(tmp_path / f"m{index}.nii.gz", mask(3, 7) if index else mask(3))
    rows = [(f"a{i}.nii.gz;b{i}.nii.gz", f"m{i}.nii.gz") for i in range(2)]
    data = read_labelled(table(tmp_path, ["image", "mask"], rows), modality="mri")
    assert (data.task, data.labels, data.values) == ("segmentation", ("background", "3", "7"), ((0,), (3,), (7,)))
    assert data.channels == ("channel 0", "channel 1")
    case = prepare_case(data.cases[1], data, data_contract(data))
    assert case.image.shape == (2, 10, 9, 8)
    assert sorted(set(case.label.ravel().tolist())) == [0, 1, 2]


def test_named_structures_refuse_other_values(tmp_path):
    for index in range(2):
        save(tmp_path / f"a{index}.nii.gz", volume(index))
        save(tmp_path / f"m{index}.nii.gz", mask(index + 1))
    rows = [(f"a{i}.nii.gz", "liver", f"m{i}.nii.gz") for i in range(2)]
    data = read_labelled(table(tmp_path, ["image", "label", "mask"], rows), modality="mri")
    assert data.labels == ("background", "liver")
    prepare_case(data.cases[0], data, data_contract(data))
    with pytest.raises(ScanError, match=r"m1\.nii\.gz: label values \[2\] are not among \[0, 1\]"):
        prepare_case(data.cases[1], data, data_contract(data))


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (["file", "label"], [("img/p0_0.png", "a")], "no column image; its columns are file, label"),
        (["image"], [("img/p0_0.png",)], "neither a column label nor a column mask"),
        (["image", "label"], [], "holds a header and no line"),
        (["image", "label"], [("img/p0_0.png",)], "line 2 has not the 2 fields"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_1.png", "")], "line 3 has no label"),
        (["image", "label"], [("", "a")], "line 2 has no image"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/no.png", "b")], r"lists 1 files .* such as .*no\.png"),
        (["image", "mask"], [("img/p0_0.png", "img/no.png")], r"lists 1 files .* such as .*no\.png"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_0.png", "b")], r"p0_0\.png in 2 lines"),
        (["image", "label"], [("img/p0_0.png", "a"), ("img/p0_1.png;img/p1_0.png", "b")], "line 3 has 2 channels"),
        (["image", "label", "patient"], [("img/p0_0.png", "a", "")], "line 2 has no patient"),
        (["image", "label", "split"], [("img/p0_0.png", "a", "tset")], "split 'tset'; did you mean test"),
        (
            ["image", "label", "mask"],
            [("img/p0_0.png", "a", "img/p1_0.png"), ("img/p0_1.png", "b", "img/p1_1.png")],
            "the same in every line; received 'a' and 'b'",
        ),
    ],
)
def test_says_what_is_wrong(tmp_path, pictures, columns, rows, message):
    with pytest.raises(DataError, match=message):
        read_labelled(table(tmp_path, columns, rows))


@pytest.mark.shared
def test_a_folder_of_dicom_is_an_image_and_keeps_its_dots(tmp_path, shared_data):
    for series in ("1.2.840.1", "1.2.840.2"):
        (tmp_path / series).symlink_to(shared_data / "dicom" / "ct_abdomen")
    data = read_labelled(table(tmp_path, ["image", "label"], [("1.2.840.1", "a"), ("1.2.840.2", "b")]))
    assert [(case.name, case.patient) for case in data.cases] == [("1.2.840.1",) * 2, ("1.2.840.2",) * 2]
    assert (data.modality, data.dims) == ("ct", 3)
