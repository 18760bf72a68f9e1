"""How good a model is on labelled data, and so predictions that are saved already."""

import copy
import json
import shutil
import zlib
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import ANY

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.data import ScanReference, Volume
from modelsgenesis.data.cases import LabelledCase, LabelledData
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.evaluation import read_label_maps
from modelsgenesis.files import read_csv
from modelsgenesis.training.splits import Split
from recorded_notes import Notes
from tiny_bundles import write_bundle

evaluate = partial(modelsgenesis.evaluate, device="cpu", bootstrap=50)


def split_of(*test, training=()):
    return Split(training=training, validation=(), test=test)


FIRST = split_of("ball_000", "ball_001", "ball_002")


@pytest.fixture(scope="module")
def saved(model, scans, tmp_path_factory):
    """Label maps of the first three cases."""
    folder = tmp_path_factory.mktemp("predicted")
    modelsgenesis.predict_all(model, scans[:3], output=folder, device="cpu")
    return folder


def voxels_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_model_and_its_saved_predictions_measure_the_same(model, decathlon, saved, tmp_path):
    found = evaluate(model, decathlon, output=tmp_path / "model", split=FIRST)
    again = evaluate(saved, decathlon, output=tmp_path / "saved", split=FIRST)
    assert (found.rows, found.summary) == (again.rows, again.summary)
    results = json.loads((tmp_path / "model" / "results.json").read_text())
    assert results["metrics"] == found.summary
    expected = {"task": "segmentation", "model": "organs", "part": "test", "cases": 3, "patients": 3, "refused": 0}
    assert results.items() >= (expected | {"bootstrap": 50}).items()
    rows = read_csv(tmp_path / "model" / "cases.csv", DataError)
    assert [row["case"] for row in rows] == list(FIRST.test)
    assert float(rows[0]["dice bright"]) == found.rows[0]["dice bright"]
    ours, theirs = (voxels_of(folder / "ball_000.nii.gz") == 1 for folder in (saved, decathlon / "labelsTr"))
    dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
    assert found.rows[0]["dice bright"] == pytest.approx(dice, abs=1e-6)


def test_classes_are_matched_by_name_not_by_number(decathlon, saved, tmp_path):
    """The same predictions under other numbers, which the JSON files beside them tell."""
    turned = tmp_path / "turned"
    shutil.copytree(saved, turned)
    for path in turned.glob("*.nii.gz"):
        values, affine = np.array([0, 2, 1], np.uint8)[voxels_of(path)], nib.load(path).affine
        nib.save(nib.Nifti1Image(values, affine), path)
        beside = path.with_name(path.name.replace(".nii.gz", ".json"))
        beside.write_text(json.dumps({"labels": {"0": "background", "1": "dark", "2": "bright"}}))
    straight = evaluate(saved, decathlon, output=tmp_path / "a", split=FIRST)
    assert evaluate(turned, decathlon, output=tmp_path / "b", split=FIRST).rows == straight.rows
    names = {"0": "background", "1": "dark", "2": "bright", "999": "liver"}  # a name that no voxel has is no harm
    (turned / "ball_001.json").write_text(json.dumps({"labels": names}))
    (turned / "ball_002.json").write_text(json.dumps({"labels": {**names, "2": "liver"}}))
    with pytest.raises(ScanError, match=r"ball_002\.nii\.gz: value 2, liver, is not a class of Balls"):
        evaluate(turned, decathlon, output=tmp_path / "c", split=FIRST, strict=True)


def test_a_model_whose_classes_have_another_order(finetuned, decathlon, number_format, tmp_path):
    straight, order = load_bundle(finetuned[0]), [0, 2, 1]
    network = copy.deepcopy(straight.network)
    for tensor in network.head.parameters():
        tensor.data = tensor.data[order]
    labels = tuple(straight.config.labels[index] for index in order)
    save_bundle(tmp_path / "turned", Bundle(network, replace(straight.config, labels=labels)))
    options = {"split": split_of("ball_000"), "config": PredictionConfig(precision=number_format)}
    models = (finetuned[0], tmp_path / "turned")
    first, turned = (evaluate(one, decathlon, output=tmp_path / "measured", **options).values for one in models)
    assert first["dice"] > 0.5
    # In 8 bits classes that tie go to the first of them.
    assert turned == pytest.approx(first, abs=0 if number_format == "float32" else 0.02)
    assert json.loads((tmp_path / "measured" / "results.json").read_text())["precision"] == number_format


def test_what_cannot_be_measured_is_said(decathlon, saved, tmp_path):
    folder = tmp_path / "predicted"
    shutil.copytree(saved, folder)
    image = nib.load(folder / "ball_001.nii.gz")
    nib.save(image.slicer[1:], folder / "ball_001.nii.gz")
    moved = nib.Nifti1Image(voxels_of(folder / "ball_002.nii.gz"), image.affine + np.eye(4))
    nib.save(moved, folder / "ball_002.nii.gz")
    found = evaluate(folder, decathlon, output=tmp_path / "out")
    reasons = {scan.source: scan.reason for scan in found.skipped}
    assert set(reasons) == {f"ball_{index:03d}" for index in range(1, 6)}
    assert "(28, 24, 20)" in reasons["ball_001"]
    assert "mm away" in reasons["ball_002"]
    assert "no prediction of ball_003 in" in reasons["ball_003"]
    assert found.summary["dice"]["low"] is None  # of one patient there is no interval
    assert json.loads((tmp_path / "out" / "results.json").read_text())["refused"] == 5


def write_map(path, values, spacing=(1, 1, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.uint8), np.diag([*spacing, 1])), path)


@pytest.fixture
def two_folders(tmp_path):
    """Label maps of three patients, and predictions of two of them and of another."""
    truth = np.zeros((8, 8, 6), np.uint8)
    truth[2:6, 2:6, 1:5], truth[0, 0, 0] = 1, 2
    for name in ("p1", "p2", "p3"):
        write_map(tmp_path / "labels" / f"{name}.nii.gz", truth)
    for name in ("p1", "p2", "p9"):
        write_map(tmp_path / "predicted" / f"{name}_seg.nii.gz", np.roll(truth, 1 if name == "p2" else 0, axis=2))
    return tmp_path / "predicted", tmp_path / "labels"


def test_two_folders_of_label_maps_are_compared_by_name(two_folders, tmp_path):
    notes = Notes()
    Image.new("L", (8, 8)).save(two_folders[0] / "p1_seg_preview.png")  # as --preview draws it
    found = evaluate(*two_folders, output=tmp_path / "out", reporter=notes)
    assert [row["case"] for row in found.rows] == ["p1", "p2"]
    assert (found.rows[0]["dice 1"], found.rows[1]["dice 1"], found.rows[1]["hausdorff95 1"]) == (1, 0.75, 2)
    assert found.table.header == ("structure", "Dice", "IoU", "HD95 (mm)")
    assert (found.skipped[0].source, "no prediction of p3 in" in found.skipped[0].reason) == ("p3", True)
    assert "structures by the values of the label maps: 1, 2" in notes.notes
    assert [note for note in notes.notes if "ignored" in note] == [
        f"predictions ignored, as no label map in {two_folders[1]} has the name: p9"
    ]
    (two_folders[0] / "p1_seg.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver", "2": "node"}}))
    assert evaluate(*two_folders, output=tmp_path / "out").values["dice liver"] == 0.875


def test_json_and_tables_beside_label_maps_do_not_make_them_another_data_set(two_folders, tmp_path):
    """Two raters whose numbers differ, as the files that predict writes say; and what else lies in such folders."""
    predicted, labels = two_folders
    for name, content in {"notes": ["p1 is blurred"], "p2": {"Manufacturer": "X"}}.items():
        (labels / f"{name}.json").write_text(json.dumps(content))
    (labels / "patients.csv").write_text("id,age\np1,50\n")
    assert evaluate(predicted, labels, output=tmp_path / "out").values["dice 1"] == 0.875
    turned = np.array([0, 2, 1], np.uint8)[voxels_of(labels / "p1.nii.gz")]
    write_map(labels / "p1.nii.gz", turned)
    (labels / "p1.json").write_text(json.dumps({"labels": {"0": "background", "1": "node", "2": "liver"}}))
    beside = json.dumps({"labels": {"0": "background", "1": "liver", "2": "node"}})
    (predicted / "p1_seg.json").write_text(beside)
    (predicted / "p2_seg.json").write_text(beside)
    (labels / "p2.json").write_text(beside)
    found = evaluate(predicted, labels, output=tmp_path / "out")
    assert (found.rows[0]["dice liver"], found.rows[0]["dice node"], found.rows[1]["dice liver"]) == (1, 1, 0.75)
    (labels / "cases.csv").write_text("image,mask\nscan.nii.gz,p1.nii.gz\n")  # which is a data set
    with pytest.raises(DataError, match=r"lists 1 file not there, such as .*scan\.nii\.gz"):
        evaluate(predicted, labels, output=tmp_path / "out")


def test_label_maps_beside_their_images_are_compared_and_patients_are_told_by_a_pattern(two_folders, tmp_path):
    predicted, labels = two_folders
    (tmp_path / "data").mkdir()
    labels.rename(tmp_path / "data" / "labels")
    for name in ("p1", "p2", "p3"):
        write_map(tmp_path / "data" / "images" / f"{name}.nii.gz", np.arange(384).reshape(8, 8, 6) % 250)
    assert len(evaluate(predicted, tmp_path / "data", output=tmp_path / "out").rows) == 2
    maps = read_label_maps(tmp_path / "data" / "labels", predicted, Notes(), "(p)")
    assert {case.patient for case in maps.cases} == {"p"}


def test_pictures_are_measured_in_pixels(tmp_path):
    for folder, shift in (("labels", 0), ("predicted", 3)):
        (tmp_path / folder).mkdir()
        mask = np.zeros((20, 24), np.uint8)
        mask[4:12, 4 + shift : 12 + shift] = 1
        Image.fromarray(mask).save(tmp_path / folder / "x_mask.png")
    found = evaluate(tmp_path / "predicted", tmp_path / "labels", output=tmp_path / "out")
    assert (found.table.header[-1], found.summary["hausdorff95"]["value"]) == ("HD95 (pixels)", 3)


def test_folders_that_do_not_belong_together_are_refused(two_folders, tmp_path):
    predicted, labels = two_folders
    with pytest.raises(DataError, match="predictions and labels are the same folder"):
        evaluate(predicted, predicted, output=tmp_path / "out")
    for path in labels.iterdir():
        path.rename(labels / f"other_{path.name}")
    with pytest.raises(DataError, match=r"no file has the name of a prediction in .*; name them alike: .*p1_seg.* and"):
        evaluate(predicted, labels, output=tmp_path / "out")
    scan = np.random.default_rng(0).normal(size=(8, 8, 6)).astype(np.float32)
    for name in ("p1", "p2"):
        nib.save(nib.Nifti1Image(scan, np.eye(4)), labels / f"{name}.nii.gz")
    with pytest.raises(ScanError, match=r"p1\.nii\.gz: .* voxels are not labels"):
        evaluate(predicted, labels, output=tmp_path / "out")


def test_a_run_measured_on_what_it_was_trained_on_triggers_a_warning(decathlon, tmp_path):
    run, notes = write_bundle(tmp_path / "run"), Notes()
    (run / "split.json").write_text(json.dumps({"training": ["ball_000"], "validation": [], "test": ["ball_001"]}))
    evaluate(run, decathlon, output=tmp_path / "a", split=run / "split.json", reporter=notes)
    assert not notes.notes
    evaluate(run, decathlon, output=tmp_path / "b", split=split_of("ball_000", "ball_001"), reporter=notes)
    assert "warning: run was trained on 1 of the 2 cases" in notes.notes[0]


@pytest.mark.parametrize(
    ("made", "split", "error", "word"),
    [
        ({"labels": ("background", "liver", "spleen")}, None, ConfigurationError, "background, liver, spleen"),
        ({"task": "classification"}, None, ConfigurationError, "is for classification of .* Balls for segment"),
        ({}, split_of("nobody"), DataError, "'nobody'.*, which is not in Balls"),
        ({}, split_of(), DataError, "no test cases"),
    ],
)
def test_what_does_not_fit_together(decathlon, tmp_path, made, split, error, word):
    with pytest.raises(error, match=word):
        evaluate(write_bundle(tmp_path / "model", **made), decathlon, output=tmp_path / "x", split=split)


def picture(seed):
    """Refer to a random image in memory."""
    array = np.random.default_rng(zlib.crc32(seed.encode())).uniform(0, 255, (20, 24)).astype(np.float32)
    volume = Volume(array=array, affine=np.eye(4), source=f"picture {seed}", has_spacing=False)
    path = Path(f"{seed}.png")
    return ScanReference(path=path, files=(path,), format="memory", shape=array.shape, spacing=None, volume=volume)


def pictures(channels=("image",)):
    named, cases = [name.lower() for name in channels], []
    for seed in range(6):
        images = tuple(picture(f"{seed}{name}") for name in named)
        cases.append(LabelledCase(name=f"x{seed}", patient=f"p{seed // 2}", images=images, classes=(seed % 2,)))
    kind = {"task": "classification", "labels": ("healthy", "ill"), "modality": "xray", "dims": 2}
    return LabelledData(name="x", cases=tuple(cases), channels=channels, **kind)


def classifier(folder, labels=("healthy", "ill"), channels=("image",)):
    contract = CONTRACTS["xray"].override(channels=channels)
    return write_bundle(folder, task="classification", contract=contract, patch_size=(16, 16), labels=labels)


def test_classes_by_a_model_and_by_a_table(tmp_path):
    model = classifier(tmp_path / "model", labels=("ill", "healthy"))
    found = evaluate(model, pictures(), output=tmp_path / "out")
    assert set(found.summary) == {"auc", "average_precision", "sensitivity", "accuracy"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["patients"], results["cases"], results["specificity"]) == (3, 6, 0.9)
    row = found.rows[1]
    assert (row["file"], row["case"], row["patient"], row["class"]) == ("1image.png", "x1", "p0", "ill")
    assert row["prob_healthy"] + row["prob_ill"] == pytest.approx(1)
    assert found.values["accuracy"] == np.mean([row["class"] == row["predicted"] for row in found.rows])
    table = tmp_path / "table.csv"
    lines = [f"{row['case']},{row['prob_ill']},{row['prob_healthy']}" for row in found.rows]
    table.write_text("\n".join(["case,prob_ill,prob_healthy", *lines]))
    assert evaluate(table, pictures(), output=tmp_path / "b").summary == found.summary
    table.write_text("case,prob_ill,prob_healthy\nx0,0.3,0.7\n")
    few = evaluate(table, pictures(), output=tmp_path / "c")
    assert (len(few.rows), len(few.skipped), few.summary["auc"]["value"]) == (1, 5, None)


@pytest.mark.parametrize("rows", [None, "x0,nan,1\n", "x0,0,1\nx0,1,0\n", "x0,,1\n"])
def test_a_damaged_table_is_refused(tmp_path, rows):
    head = "case,prob_healthy,prob_ill\n"
    (tmp_path / "bad.csv").write_text("case,predicted\nx0,ill\n" if rows is None else head + rows)
    with pytest.raises(DataError, match=r"bad\.csv: cannot be read as predictions of healthy, ill"):
        evaluate(tmp_path / "bad.csv", pictures(), output=tmp_path / "d")


def test_channels_are_matched_by_name_and_others_trigger_a_warning(tmp_path):
    model, notes = classifier(tmp_path / "model", channels=("red", "green")), Notes()

    def soft(*channels):
        rows = evaluate(model, pictures(channels), output=tmp_path / "out", reporter=notes).rows
        return [row["prob_ill"] for row in rows]

    assert soft("red", "green") == soft("Green", "Red") != soft("green", "rouge")
    assert [note for note in notes.notes if note.startswith("warning")] == [ANY]
    assert "x, green, rouge, are not the model's red, green" in notes.notes[-1]


def test_results_of_something_else_stay(decathlon, tmp_path):
    (tmp_path / "results.json").write_text('{"test": {}}')
    with pytest.raises(DataError, match=r"results\.json: exists and is not"):
        evaluate(decathlon / "labelsTr", decathlon, output=tmp_path)


def test_label_maps_of_somebody_else_are_never_replaced(model, decathlon, tmp_path):
    folder, cases = tmp_path / "predictions", tmp_path / "predictions" / "cases.json"
    shutil.copytree(decathlon / "labelsTr", folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="predictions: exists and is not of an evaluation; choose another"):
        evaluate(model, decathlon, output=tmp_path, split=FIRST)
    cases.write_text("{}")  # of an evaluation, with a mask of the data among its label maps
    data = modelsgenesis.data.labelled.read_labelled(decathlon)
    masks = {case.name: folder / case.mask.name for case in data.cases}
    data = replace(data, cases=tuple(replace(case, mask=masks[case.name]) for case in data.cases))
    with pytest.raises(DataError, match="would replace"):
        evaluate(model, data, output=tmp_path, split=FIRST)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(("scale", "dice"), [(0.99999, 1), (0.5, None)])
def test_values_of_label_maps_are_whole_numbers(decathlon, tmp_path, scale, dice):
    for path in (decathlon / "labelsTr").iterdir():
        affine, name = nib.load(path).affine, path.name.replace(".nii.gz", ".json")
        nib.save(nib.Nifti1Image(voxels_of(path) * np.float32(scale), affine), tmp_path / path.name)
        (tmp_path / name).write_text(json.dumps({"labels": {"0": "background", "1": "bright", "2": "dark"}}))
    with nullcontext() if dice else pytest.raises(DataError, match="none of 6 cases could be measured"):
        assert evaluate(tmp_path, decathlon, output=tmp_path / "out").values["dice"] == dice
