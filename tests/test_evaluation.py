"""What a model, and predictions that are written already, are worth on labelled data."""

import copy
import csv
import json
import shutil
import zlib
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import ANY

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.data import LabelledCase, LabelledData, Volume
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.evaluation import MeasuringOptions
from modelsgenesis.prediction import predict_all
from modelsgenesis.training import Split
from recorded_notes import Notes
from tiny_bundles import write_bundle

FAST = MeasuringOptions(bootstrap=50)
CPU = {"device": "cpu", "options": FAST}


@pytest.fixture(scope="module")
def written(model, decathlon, tmp_path_factory):
    """Label maps of the first three cases."""
    folder = tmp_path_factory.mktemp("answers")
    scans = sorted((decathlon / "imagesTr").iterdir())[:3]
    predict_all(model, scans, output=folder, device="cpu")
    return folder


FIRST = Split(training=(), validation=(), test=("ball_000", "ball_001", "ball_002"))


def test_a_model_and_its_written_answers_measure_the_same(model, decathlon, written, tmp_path):
    found = modelsgenesis.evaluate(model, decathlon, output=tmp_path / "model", split=FIRST, **CPU)
    answers = modelsgenesis.evaluate(written, decathlon, output=tmp_path / "written", split=FIRST, **CPU)
    assert found.rows == answers.rows
    assert found.summary == answers.summary
    results = json.loads((tmp_path / "model" / "results.json").read_text())
    assert results["metrics"] == found.summary
    assert {key: results[key] for key in ("task", "model", "part", "cases", "patients", "refused", "bootstrap")} == {
        "task": "segmentation",
        "model": "organs",
        "part": "test",
        "cases": 3,
        "patients": 3,
        "refused": 0,
        "bootstrap": 50,
    }
    with (tmp_path / "model" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(FIRST.test)
    assert float(rows[0]["dice bright"]) == pytest.approx(found.rows[0]["dice bright"])
    prediction = np.asanyarray(nib.load(written / "ball_000.nii.gz").dataobj)
    truth = np.asanyarray(nib.load(decathlon / "labelsTr" / "ball_000.nii.gz").dataobj)
    overlap = ((prediction == 1) & (truth == 1)).sum()
    dice = 2 * overlap / ((prediction == 1).sum() + (truth == 1).sum())
    assert found.rows[0]["dice bright"] == pytest.approx(dice, abs=1e-6)


def test_the_truth_is_a_perfect_prediction(decathlon, tmp_path):
    """Without JSON files beside them, values mean what they mean in the masks."""
    found = modelsgenesis.evaluate(decathlon / "labelsTr", decathlon, output=tmp_path, options=FAST)
    assert found.values["dice"] == 1
    assert found.values["hausdorff95"] == 0
    assert found.summary["dice bright"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert len(found.rows) == 6


def test_classes_are_matched_by_name_not_by_number(decathlon, written, tmp_path):
    """The same answers under other numbers, which the JSON files beside them tell."""
    turned = tmp_path / "turned"
    shutil.copytree(written, turned)
    for path in turned.glob("*.nii.gz"):
        image = nib.load(path)
        values = np.array([0, 2, 1], np.uint8)[np.asanyarray(image.dataobj)]
        nib.save(nib.Nifti1Image(values, image.affine), path)
        names = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        names["labels"] = {"0": "background", "1": "dark", "2": "bright"}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(names))
    straight = modelsgenesis.evaluate(written, decathlon, output=tmp_path / "a", split=FIRST, options=FAST)
    other = modelsgenesis.evaluate(turned, decathlon, output=tmp_path / "b", split=FIRST, options=FAST)
    assert straight.rows == other.rows
    names["labels"] = {"0": "background", "1": "dark", "2": "liver"}
    (turned / "ball_002.json").write_text(json.dumps(names))
    many = {"0": "background", "1": "dark", "2": "bright", "999": "liver"}
    (turned / "ball_001.json").write_text(json.dumps({"labels": many}))
    with pytest.raises(ScanError, match=r"ball_002\.nii\.gz: value 2, liver, is not a class of Balls"):
        modelsgenesis.evaluate(turned, decathlon, output=tmp_path / "c", split=FIRST, options=FAST, strict=True)


def test_a_model_whose_classes_have_another_order(finetuned, decathlon, number_format, tmp_path):
    straight = load_bundle(finetuned[0])
    order = [0, 2, 1]
    network = copy.deepcopy(straight.network)
    for tensor in network.head.parameters():
        tensor.data = tensor.data[order]
    labels = tuple(straight.config.labels[index] for index in order)
    save_bundle(tmp_path / "turned", Bundle(network, replace(straight.config, labels=labels)))
    one = Split(training=(), validation=(), test=("ball_000",))
    options = {"split": one, "config": PredictionConfig(precision=number_format), **CPU}
    first, turned = (
        modelsgenesis.evaluate(model, decathlon, output=tmp_path / "measured", **options).values
        for model in (finetuned[0], tmp_path / "turned")
    )
    assert first["dice"] > 0.5
    if number_format == "float32":
        assert turned == first
    else:  # classes that tie in 8 bits go to the first of them
        assert turned["dice bright"] == pytest.approx(first["dice bright"], abs=0.02)
        assert turned["dice dark"] == pytest.approx(first["dice dark"], abs=0.02)
    assert json.loads((tmp_path / "measured" / "results.json").read_text())["precision"] == number_format


def test_what_cannot_be_measured_is_said(decathlon, written, tmp_path):
    folder = tmp_path / "answers"
    shutil.copytree(written, folder)
    image = nib.load(folder / "ball_001.nii.gz")
    nib.save(image.slicer[1:], folder / "ball_001.nii.gz")
    moved = nib.Nifti1Image(np.asanyarray(nib.load(folder / "ball_002.nii.gz").dataobj), image.affine + np.eye(4))
    nib.save(moved, folder / "ball_002.nii.gz")
    found = modelsgenesis.evaluate(folder, decathlon, output=tmp_path / "out", options=FAST)
    reasons = {scan.source: scan.reason for scan in found.skipped}
    assert set(reasons) == {f"ball_{index:03d}" for index in range(1, 6)}
    assert "(28, 24, 20)" in reasons["ball_001"]
    assert "mm away" in reasons["ball_002"]
    assert "no predictions ball_003.nii.gz" in reasons["ball_003"]
    assert found.summary["dice"]["low"] is None  # of one patient there is no interval
    assert json.loads((tmp_path / "out" / "results.json").read_text())["refused"] == 5


def test_a_run_measured_on_what_it_was_trained_on_is_warned(decathlon, tmp_path):
    run, notes = write_bundle(tmp_path / "run"), Notes()
    split = {"training": ["ball_000"], "validation": [], "test": ["ball_001"]}
    (run / "split.json").write_text(json.dumps(split))
    both = Split(training=(), validation=(), test=("ball_000", "ball_001"))
    modelsgenesis.evaluate(run, decathlon, output=tmp_path / "a", split=both, reporter=notes, **CPU)
    assert "warning: run was trained on 1 of the 2 cases" in notes.notes[0]
    notes = Notes()
    modelsgenesis.evaluate(run, decathlon, output=tmp_path / "b", split=run / "split.json", reporter=notes, **CPU)
    assert not notes.notes


def test_what_does_not_fit_together(model, decathlon, tmp_path):
    other = write_bundle(tmp_path / "other", labels=("background", "liver", "spleen"))
    with pytest.raises(
        ConfigurationError, match="its classes background, liver, spleen are not the background, bright"
    ):
        modelsgenesis.evaluate(other, decathlon, output=tmp_path / "x", **CPU)
    classifier = write_bundle(tmp_path / "classes", task="classification")
    with pytest.raises(ConfigurationError, match="classes: is for classification, Balls for segmentation"):
        modelsgenesis.evaluate(classifier, decathlon, output=tmp_path / "x", **CPU)
    split = Split((), (), ("nobody",))
    with pytest.raises(DataError, match="the split names 'nobody', which is not in Balls"):
        modelsgenesis.evaluate(model, decathlon, output=tmp_path / "x", split=split, **CPU)
    with pytest.raises(DataError, match="the split has no test cases"):
        modelsgenesis.evaluate(model, decathlon, output=tmp_path / "x", split=Split((), (), ()), **CPU)


class Picture:
    """A random image in memory."""

    def __init__(self, seed):
        self.seed, self.source, self.path = zlib.crc32(seed.encode()), f"picture {seed}", None

    def read(self):
        array = np.random.default_rng(self.seed).uniform(0, 255, (20, 24)).astype(np.float32)
        return Volume(array=array, affine=np.eye(4), source=self.source, has_spacing=False)


def pictures(*, multilabel=False, channels=("image",)):
    cases = [
        LabelledCase(
            name=f"x{seed}",
            patient=f"p{seed // 2}",
            images=tuple(Picture(f"{seed}{name.lower()}") for name in channels),
            classes=(seed % 2,),
        )
        for seed in range(6)
    ]
    labels = ("healthy", "ill")
    return LabelledData(
        name="x",
        task="classification",
        cases=tuple(cases),
        labels=labels,
        multilabel=multilabel,
        modality="xray",
        channels=channels,
        dims=2,
    )


def test_classes_by_a_model_and_by_a_table(tmp_path):
    model = write_bundle(
        tmp_path / "model",
        task="classification",
        contract=CONTRACTS["xray"],
        patch_size=(16, 16),
        labels=("ill", "healthy"),
    )
    found = modelsgenesis.evaluate(model, pictures(), output=tmp_path / "out", **CPU)
    assert set(found.summary) == {"auc", "average_precision", "sensitivity", "accuracy"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["patients"], results["cases"], results["specificity"]) == (3, 6, 0.9)
    row = found.rows[1]
    assert (row["case"], row["patient"], row["class"]) == ("x1", "p0", "ill")
    assert row["probability healthy"] + row["probability ill"] == pytest.approx(1)
    right = np.mean([row["class"] == row["predicted"] for row in found.rows])
    assert found.values["accuracy"] == pytest.approx(right)
    table = [["case", "predicted", "probability ill", "probability healthy"]]
    table += [[row["case"], "", row["probability ill"], row["probability healthy"]] for row in found.rows]
    (tmp_path / "table.csv").write_text("\n".join(",".join(map(str, line)) for line in table))
    again = modelsgenesis.evaluate(tmp_path / "table.csv", pictures(), output=tmp_path / "b", options=FAST)
    assert again.summary == found.summary
    content = {"cases": [{"case": "x0", "probabilities": {"healthy": 0.7, "ill": 0.3}}]}
    (tmp_path / "table.json").write_text(json.dumps(content))
    few = modelsgenesis.evaluate(tmp_path / "table.json", pictures(), output=tmp_path / "c", options=FAST)
    assert (len(few.rows), len(few.skipped)) == (1, 5)
    assert few.summary["auc"]["reason"] == "all 1 cases are of one class"
    head = "case,probability healthy,probability ill\n"
    for text in ("case,predicted\nx0,ill\n", f"{head}x0,nan,1\n", f"{head}x0,0,1\nx0,1,0\n", f"{head}x0,,1\n"):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=r"bad\.csv: cannot be read as predictions of healthy, ill"):
            modelsgenesis.evaluate(tmp_path / "bad.csv", pictures(), output=tmp_path / "d", options=FAST)


def test_channels_are_matched_by_name_and_others_are_warned_of(tmp_path):
    contract = CONTRACTS["xray"].override(channels=("red", "green"))
    options = {"task": "classification", "contract": contract, "patch_size": (16, 16), "labels": ("healthy", "ill")}
    model, notes = write_bundle(tmp_path / "model", **options), Notes()

    def soft(*channels):
        data = pictures(channels=channels)
        rows = modelsgenesis.evaluate(model, data, output=tmp_path / "out", reporter=notes, **CPU).rows
        return [row["probability ill"] for row in rows]

    assert soft("red", "green") == soft("Green", "Red") != soft("green", "rouge")
    assert [note for note in notes.notes if note.startswith("warning")] == [ANY]
    assert "x, green, rouge, are not the model's red, green" in notes.notes[-1]


def test_results_of_something_else_stay(decathlon, tmp_path):
    (tmp_path / "results.json").write_text('{"test": {}}')
    with pytest.raises(DataError, match=r"results\.json: is there already"):
        modelsgenesis.evaluate(decathlon / "labelsTr", decathlon, output=tmp_path, options=FAST)


@pytest.mark.parametrize(("scale", "dice"), [(0.99999, 1), (0.5, None)])
def test_values_of_label_maps_are_whole_numbers(decathlon, tmp_path, scale, dice):
    for path in (decathlon / "labelsTr").iterdir():
        image, name = nib.load(path), path.name.replace(".nii.gz", ".json")
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj) * np.float32(scale), image.affine), tmp_path / path.name)
        (tmp_path / name).write_text(json.dumps({"labels": {"0": "background", "1": "bright", "2": "dark"}}))
    with nullcontext() if dice else pytest.raises(DataError, match="none of 6 cases could be measured"):
        found = modelsgenesis.evaluate(tmp_path, decathlon, output=tmp_path / "out", options=FAST)
        assert found.values["dice"] == dice
