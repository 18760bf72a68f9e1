import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.cli.prediction import print_results
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.training.results import table_of
from tiny_bundles import write_bundle


def test_predict_prints_label_maps_and_voxels_and_at_the_end_what_failed(command, model, scans, tmp_path):
    folder, path = tmp_path / "scans", tmp_path / "out" / "good.nii.gz"
    folder.mkdir()
    (folder / "good.nii.gz").write_bytes(scans[0].read_bytes())
    (folder / "bad.nii.gz").write_bytes(b"junk")
    run = ("predict", model, folder, "-o", tmp_path / "out", "--device", "cpu", "--overlap", 0, "--quiet")
    predicted = command(*run, "--flips", "x")
    first, *sizes, table = predicted.out.splitlines()
    assert (predicted.status, first, table) == (1, str(path), str(tmp_path / "out" / "predictions.csv"))
    assert [re.sub(r"[\d,.]*\d", "1", size) for size in sizes] == [
        f"  {name}: 1 voxels, 1 mL" for name in ("bright", "dark")
    ]
    assert predicted.err.startswith(f"not predicted: {folder / 'bad.nii.gz'}: ")
    assert json.loads((tmp_path / "out" / "good.json").read_text())["flips"] == [0]
    planned = command(*run, "--dry-run").out.splitlines()
    assert planned[0] == f"would read: model {model} (background, bright, dark), good.nii.gz"
    assert planned[1].startswith(f"would write: {path}, ")
    planned = command(*run, "--dry-run", "--skip-existing", "--json").json()["write"]
    assert planned == [str(table), str(Path(table).with_suffix(".json"))]
    options = ("--preview", "--probabilities")
    planned = command(*run, *options, "--dry-run", "--json").json()["write"]
    command(*run, *options)
    assert {*planned} == {str(file) for file in path.parent.iterdir()}
    told = command(*run, "--json", "--set", "precision=bfloat16").json()
    assert json.loads((tmp_path / "out" / "good.json").read_text())["precision"] == "bfloat16"
    assert told["predictions"][0]["path"] == str(path)
    assert set(told["predictions"][0]["voxels"]) == {"bright", "dark"}


def test_classes_are_printed(command, tmp_path):
    kind = {"task": "classification", "patch_size": (16, 16), "labels": ("healthy", "ill")}
    model = write_bundle(tmp_path / "model", contract=CONTRACTS["xray"], **kind)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save(tmp_path / "x.png")
    result = command("predict", model, tmp_path / "x.png", "-o", tmp_path / "x.csv", "--device", "cpu")
    assert re.fullmatch(rf"x: .*healthy 0\..*\n{tmp_path}/x\.csv\n", result.out)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "{tmp}", "scan.nii.gz"], 1, "no config.json in it"),
        (["predict", "{tmp}", "scan.nii.gz", "--flips", "w"], 2, "expected all, or axes of x, y, z"),
        (["predict", "{tmp}", "scan.nii.gz", "--set", "stitch=gpu"], 1, "stitch"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)


def test_evaluate_prints_intervals_and_what_could_not_be_measured(command, decathlon, tmp_path):
    saved = tmp_path / "saved"
    saved.mkdir()
    for index in range(5):
        name = f"ball_{index:03d}.nii.gz"
        (saved / name).write_bytes((decathlon / "labelsTr" / name).read_bytes())
    run = ("evaluate", saved, decathlon, "-o", tmp_path / "out", "--bootstrap", 50)
    result = command(*run, "--quiet")
    assert result.status == 1
    assert f"full results: {tmp_path / 'out' / 'results.json'}" in result.out
    assert "bright  1.000 (1.000–1.000)" in result.out
    assert result.err.startswith("not measured: ball_005: ")
    told = command(*run, "--json").json()
    assert told["metrics"]["dice"]["value"] == 1
    assert told["refused"][0]["case"] == "ball_005"


def entry(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, **more}


SEGMENTED = {
    "dice": entry(0.8781, 0.8712, 0.8846),
    "dice node [/]": entry(0.88, 0.87, 0.89),
    "dice Posterior": entry(0.87, 0.86, 0.88, undefined=2, cases=39),
    "hausdorff95": entry(1.234, 1.1, 1.4, unit="mm"),
    "hausdorff95 Posterior": entry(None, reason="no case has it"),
}
TWO = {"auc": entry(0.9, 0.8, 0.95), "sensitivity": entry(0.7, 0.5, 0.9)}
THREE = {"auc": entry(0.9), "auc a": entry(0.8), "auc b": entry(0.9), "accuracy": entry(0.5)}
SEGMENTATION = """Dice HD95 (mm)
mean 0.878 (0.871–0.885) 1.23 (1.10–1.40)
node [/] 0.880 (0.870–0.890)
Posterior 0.870 (0.860–0.880) —
39 test patients; 95% bootstrap intervals over patients
Dice of Posterior: mean over 37 of 39 cases (in the others the ground truth is empty)
HD95 of Posterior is undefined: no case has it
full results: runs/x/results.json"""
CLASSES = """AUC sensitivity at specificity 0.9
ill 0.900 (0.800–0.950) 0.700 (0.500–0.900)
39 test patients, 50 images; 95% bootstrap intervals over patients"""
FOLDS = """mean 0.900 0.500
a 0.800
39 test patients in 5 folds; 95% bootstrap intervals over patients"""


@pytest.mark.parametrize(
    ("test", "results", "expected"),
    [
        (SEGMENTED, {"labels": ["background", "node [/]", "Posterior"]}, SEGMENTATION),
        (TWO, {"labels": ["normal", "ill"], "specificity": 0.9, "cases": 50}, CLASSES),
        (THREE, {"labels": ["a", "b", "c"], "folds": 5, "fold": None}, FOLDS),
        ({}, {"labels": ["b", "a"]}, "no test patients: nothing was measured"),
        (TWO, {"labels": ["b", "a"], "patients": 1, "cases": 1}, "1 test patient; no confidence interval"),
    ],
)
def test_results_are_a_table_with_intervals_and_what_is_left_out(capsys, test, results, expected):
    table = table_of({"test": test, "patients": 39, "cases": 39, **results})
    print_results(table, Path("runs/x"), {"full results": "results.json"})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line in expected.splitlines()] == expected.splitlines()
