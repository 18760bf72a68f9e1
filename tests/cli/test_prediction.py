import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from modelsgenesis.configs import CONTRACTS
from tiny_bundles import write_bundle


def test_predict_prints_the_label_map_and_its_voxels(command, model, scans, tmp_path):
    path = tmp_path / "seg.nii.gz"
    run = ("predict", model, scans[0], "-o", path, "--device", "cpu", "--overlap", 0)
    predicted = command(*run, "--flips", "x")
    assert predicted.status == 0
    assert predicted.out.splitlines()[0] == str(path)
    assert nib.load(path).shape == nib.load(scans[0]).shape
    assert json.loads((tmp_path / "seg.json").read_text())["flips"] == [0]
    told = command(*run, "--json", "--precision", "bfloat16").json()
    assert json.loads((tmp_path / "seg.json").read_text())["precision"] == "bfloat16"
    assert told["answers"][0]["path"] == str(path)
    assert set(told["answers"][0]["voxels"]) == {"bright", "dark"}


def test_a_bad_scan_is_told_at_the_end_and_by_the_status(command, model, scans, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "good.nii.gz").write_bytes(scans[0].read_bytes())
    (folder / "bad.nii.gz").write_bytes(b"junk")
    result = command("predict", model, folder, "-o", tmp_path / "out", "--device", "cpu", "--overlap", 0, "--quiet")
    assert result.status == 1
    assert result.out.splitlines()[0] == str(tmp_path / "out" / "good.nii.gz")
    assert result.err.startswith(f"not predicted: {folder / 'bad.nii.gz'}: ")
    assert len(result.err.splitlines()) == 1


def test_classes_are_printed(command, tmp_path):
    kind = {"task": "classification", "patch_size": (16, 16), "labels": ("healthy", "ill")}
    model = write_bundle(tmp_path / "model", contract=CONTRACTS["xray"], **kind)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save(tmp_path / "x.png")
    result = command("predict", model, tmp_path / "x.png", "-o", tmp_path / "x.csv", "--device", "cpu")
    first, last = result.out.splitlines()
    assert first.startswith("x: ")
    assert "healthy 0." in first
    assert last == str(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "{tmp}", "scan.nii.gz"], 1, "no config.json in it"),
        (["predict", "no-such-model", "scan.nii.gz"], 1, "no-such-model"),
        (["predict", "{tmp}", "scan.nii.gz", "--flips", "w"], 2, "expected all, or axes of x, y, z"),
        (["predict", "{tmp}", "scan.nii.gz", "--stitch", "gpu"], 1, "stitch"),
        (["predict", "{tmp}", "scan.nii.gz", "--precision", "half"], 1, "precision"),
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
    assert f"{tmp_path / 'out' / 'results.json'}: 5 cases" in result.out
    assert "bright  1.000 (1.000–1.000)" in result.out
    assert result.err.startswith("not measured: ball_005: ")
    told = command(*run, "--json").json()
    assert told["metrics"]["dice"]["value"] == 1
    assert told["refused"][0]["case"] == "ball_005"
