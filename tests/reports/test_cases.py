"""What is kept of test cases: predictions, their list, and pictures of those that tell most."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.data import Volume
from modelsgenesis.data.cases import LabelledCase, LabelledData
from modelsgenesis.metrics.measures import CLASS_SEPARATOR
from modelsgenesis.reports.cases import KeptCases, note_of, slices_of, telling_cases
from modelsgenesis.reports.pictures import read_pictures
from recorded_notes import Notes

NAN = float("nan")


def volume(array, spacing=(1.0, 1.0, 1.0), **more):
    return Volume(array=np.asarray(array), affine=np.diag([*spacing, 1.0]), source="x", **more)


def data_of(task="segmentation", **more):
    return LabelledData(name="x", task=task, cases=(), labels=("none", "liver"), **more)


@pytest.fixture(scope="module")
def evaluated(model, decathlon, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated") / "evaluation"
    return modelsgenesis.evaluate(model, decathlon, output=output, device="cpu", bootstrap=20)


def test_an_evaluation_keeps_predictions_in_the_scans_own_grid_and_lists_their_files(evaluated, model, decathlon):
    listed = json.loads((evaluated.folder / "predictions" / "cases.json").read_text())
    assert (listed["labels"], listed["values"]) == (["background", "bright", "dark"], [[0], [1], [2]])
    entries = listed["cases"]
    assert [entry["name"] for entry in entries] == [row["case"] for row in evaluated.rows]
    [kept_image], mask = entries[0]["images"], entries[0]["mask"]
    [image], index = kept_image["files"], kept_image["index"]
    assert (Path(image), index) == (decathlon / "imagesTr" / "ball_000.nii.gz", None)
    kept, scan = nib.load(evaluated.folder / "predictions" / entries[0]["prediction"]), nib.load(image)
    assert np.array_equal(kept.affine, scan.affine)
    expected = modelsgenesis.predict(model, image, device="cpu").labels
    assert np.array_equal(np.asarray(kept.dataobj), expected)
    assert (
        entries[0]["note"] == f"Dice {np.mean([evaluated.rows[0][f'dice {name}'] for name in ('bright', 'dark')]):.3f}"
    )
    # Predictions that were kept can be measured as any others.
    again = modelsgenesis.evaluate(evaluated.folder / "predictions", decathlon, output=evaluated.folder / "again")
    assert again.rows == evaluated.rows
    assert Path(mask).is_file()


def test_pictures_show_the_best_the_median_and_the_worst_case(evaluated):
    about, arrays = read_pictures(evaluated.folder)
    scores = {row["case"]: np.mean([row["dice bright"], row["dice dark"]]) for row in evaluated.rows}
    ranked = sorted(scores, key=lambda name: scores[name])
    shown = {one["title"]: one["case"] for one in about["shown"]}
    assert shown == {"Best case": ranked[-1], "Median case": ranked[2], "Worst case": ranked[0]}
    assert [view["plane"] for view in about["shown"][0]["views"]] == ["axial", "coronal", "sagittal"]
    scan, truth = arrays["0/0/scan"], arrays["0/0/truth"]
    assert (scan.shape, scan.dtype, len(scan)) == (truth.shape, np.uint8, 11)
    assert set(np.unique(truth)) == {0, 1, 2}


def test_slices_go_through_the_largest_structure_and_are_cut_around_it():
    truth = np.zeros((90, 80, 60), np.uint8)
    truth[40:50, 30:40, 20:30], truth[60:62, 50:52, 40:41] = 1, 2
    scan = np.arange(truth.size, dtype=np.float32).reshape(truth.shape)
    views, arrays = slices_of({"T1": volume(scan), "T2": volume(-scan)}, {"truth": volume(truth, (1, 1, 3))})
    assert [(view["plane"], view["channel"]) for view in views] == list(
        zip(("axial", "coronal", "sagittal", "axial"), ("T1", "T1", "T1", "T2"), strict=True)
    )
    middle = arrays["0/truth"][5]
    assert np.count_nonzero(middle == 1) == 100
    assert middle.shape < truth.shape[:2]
    assert 2 in arrays["0/truth"][-1]


def test_cases_without_structures_or_scans_have_pictures_too():
    empty = np.zeros((20, 16, 12), np.uint8)
    views, arrays = slices_of({"image": volume(empty + 7)}, {"truth": volume(empty), "predicted": volume(empty)})
    assert arrays["0/scan"].shape == (11, 16, 20)
    predicted = empty.copy()
    predicted[3:5, 3:5, 3:5] = 1
    views, arrays = slices_of({}, {"truth": volume(empty), "predicted": volume(predicted)})
    assert (views[0]["channel"], arrays["0/scan"].max(), arrays["0/predicted"][5].sum()) == ("", 0, 4)
    flat, mask = np.random.default_rng(0).random((300, 500)), np.zeros((300, 500), np.uint8)
    mask[100:140, 200:260] = 1
    views, arrays = slices_of({"image": volume(flat)}, {"truth": volume(mask), "predicted": volume(mask)})
    assert [view["plane"] for view in views] == ["image"]
    assert arrays["0/truth"].shape == (1, 88, 108)
    large, _ = np.ones((1000, 400)), slices_of({"image": volume(np.ones((1000, 400)))}, {})
    assert max(slices_of({"image": volume(large)}, {})[1]["0/scan"].shape) == 224


def test_which_cases_tell_most():
    rows = [{"case": name, "dice liver": dice} for name, dice in zip("abcde", (0.9, NAN, 0.1, 0.5, 0.7), strict=True)]
    titles = {title: row["case"] for title, row in telling_cases(rows).items()}
    assert titles == {"Best case": "a", "Median case": "d", "Worst case": "c"}
    assert list(telling_cases(rows[:2])) == ["The only case"]
    assert telling_cases(rows[1:2]) == {}
    kinds = [("a", "liver", 0.6), ("b", "none", 0.9), ("c", "none", 0.8)]
    rows = [{"case": name, "class": "liver", "predicted": said, f"prob_{said}": sure} for name, said, sure in kinds]
    wrong = telling_cases(rows)
    assert [row["case"] for row in wrong.values()] == ["b", "c"]


def test_of_several_classes_at_once_those_that_are_wrong_tell_how_sure_a_prediction_is():
    soft = [{"prob_a": 0.99, "prob_b": 0.6, "prob_c": 0.1}, {"prob_a": 0.7, "prob_b": 0.2, "prob_c": 0.03}]
    named = [("a", f"a{CLASS_SEPARATOR}b"), (f"a{CLASS_SEPARATOR}c", "a")]
    rows = [
        {"case": str(index), "class": true, "predicted": said, **soft[index]}
        for index, (true, said) in enumerate(named)
    ]
    assert list(telling_cases(rows, multilabel=True).values()) == rows[::-1]
    assert "(b 0.60)" in note_of(rows[0], multilabel=True)
    assert "(c 0.03)" in note_of(rows[1], multilabel=True)
    assert "(" not in note_of({**rows[0], "predicted": "a"}, multilabel=True)


def test_a_large_case_of_many_structures_keeps_their_numbers_and_its_contrast():
    labels = np.zeros((160, 150, 140), np.int32)
    labels[40:60, 40:60, 40:60], labels[80:120, 80:120, 80:120] = 1, 300
    scan = np.random.default_rng(0).normal(100, 10, labels.shape).astype(np.float32)
    scan[0] = np.nan
    _, arrays = slices_of({"image": volume(scan)}, {"truth": volume(labels)})
    assert set(np.unique(arrays["0/truth"])) == {0, 1, 300}
    assert np.count_nonzero(arrays["0/truth"][5] == 300) == 1600
    assert arrays["0/scan"].dtype == np.uint8
    assert np.median(arrays["0/scan"]) == pytest.approx(127, abs=3)


def test_a_case_may_be_called_as_the_list_of_cases(tmp_path):
    kept = KeptCases(tmp_path, data_of(), Notes())
    case = LabelledCase(name="Cases", patient="p1", images=(), mask=tmp_path / "gone.nii.gz")
    kept.check([case])
    kept.add(case, data_of(), np.ones((4, 4, 4), np.uint8), volume(np.zeros((4, 4, 4))))
    assert json.loads((tmp_path / "predictions" / "cases.json").read_text())["cases"] == []  # so far
    kept.check([case])  # what was cut off can be written again
    other = replace(case, name="site/p2")
    kept.add(other, data_of(), np.ones((4, 4, 4), np.uint8), volume(np.zeros((4, 4, 4))))
    assert (tmp_path / "predictions" / "site" / "p2.nii.gz").is_file()
    kept.finish([{"case": "Cases", "dice liver": 0.5}])
    (entry,) = json.loads((tmp_path / "predictions" / "cases.json").read_text())["cases"]
    assert (tmp_path / "predictions" / entry["prediction"]).is_file()
    assert json.loads((tmp_path / "predictions" / "Cases_seg.json").read_text())["labels"] == {
        "0": "none",
        "1": "liver",
    }


def test_what_cannot_be_kept_is_said_and_ends_nothing(tmp_path):
    notes = Notes()
    (tmp_path / "predictions").write_text("a file in the way")
    kept = KeptCases(tmp_path, data_of(), notes)
    case = LabelledCase(name="p1", patient="p1", images=(), mask=tmp_path / "gone.nii.gz")
    kept.add(case, data_of(), np.zeros((4, 4, 4), np.uint8), volume(np.zeros((4, 4, 4))))
    kept.finish([{"case": "p1", "dice liver": 0.5}])
    assert len(notes.notes) == 3
    assert "warning: the prediction of p1 is missing" in notes.text
