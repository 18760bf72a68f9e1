"""Planes, the slices of volumes and the classes of images."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.prediction import predict_all
from tiny_bundles import write_bundle

CT, XRAY = CONTRACTS["ct"], CONTRACTS["xray"]


def test_planes_and_the_slices_of_volumes(scans, tmp_path):
    planar = write_bundle(tmp_path / "xray", contract=XRAY, patch_size=(16, 16))
    pixels = np.random.default_rng(0).integers(0, 255, (20, 31), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "chest.png")
    found = modelsgenesis.predict(planar, tmp_path / "chest.png", output=tmp_path / "seg.nii.gz", device="cpu")
    assert found.labels.shape == (20, 31)
    slices = write_bundle(tmp_path / "slices", contract=CT.override(dims=2), patch_size=(16, 16))
    found = modelsgenesis.predict(slices, scans[0], output=tmp_path / "volume.nii.gz", device="cpu")
    assert found.labels.shape == nib.load(scans[0]).shape
    model = write_bundle(tmp_path / "volumes", contract=CT)
    with pytest.raises(ScanError, match=r"chest\.png.*has 2 axes; expected 3"):
        modelsgenesis.predict(model, tmp_path / "chest.png", output=tmp_path / "x.nii.gz", device="cpu")


@pytest.fixture
def radiographs(tmp_path):
    folder = tmp_path / "xrays"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (30, 24), np.uint8)
        Image.fromarray(pixels).save(folder / f"x{index}.png")
    (folder / "broken.png").write_bytes(b"junk")
    return folder


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes_become_a_table(radiographs, tmp_path, multilabel):
    model = write_bundle(
        tmp_path / "model",
        task="classification",
        contract=XRAY,
        patch_size=(16, 16),
        labels=("healthy", "ill"),
        multilabel=multilabel,
    )
    found = predict_all(model, radiographs, output=tmp_path / "out", device="cpu")
    assert [answer.name for answer in found.predictions] == ["x0", "x1", "x2"]
    assert len(found.failed) == 1
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "predicted", "probability healthy", "probability ill"]
    for row, answer in zip(rows, found.predictions, strict=True):
        scores = {name: float(row[f"probability {name}"]) for name in ("healthy", "ill")}
        assert scores == pytest.approx(answer.scores, rel=1e-4)
        if multilabel:
            assert answer.predicted == tuple(name for name, value in answer.scores.items() if value >= 0.5)
        else:
            assert sum(answer.scores.values()) == pytest.approx(1)
            assert row["predicted"] == max(scores, key=scores.get)


def test_classes_as_json_and_with_flips(radiographs, tmp_path):
    model = write_bundle(tmp_path / "m", task="classification", contract=XRAY, patch_size=(16, 16), labels=("a", "b"))
    options = {"device": "cpu", "config": PredictionConfig(flips=(0,))}
    found = predict_all(model, radiographs / "x0.png", output=tmp_path / "x.json", **options)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["labels"] == ["a", "b"]
    assert content["cases"] == [
        {"case": "x0", "predicted": list(found.predictions[0].predicted), "probabilities": found.predictions[0].scores}
    ]
    mirrored = tmp_path / "mirrored.png"
    Image.fromarray(np.asarray(Image.open(radiographs / "x0.png"))[::-1]).save(mirrored)
    same = modelsgenesis.predict(model, mirrored, output=tmp_path / "y.csv", **options)
    assert same.scores == pytest.approx(found.predictions[0].scores, abs=1e-6)
    with pytest.raises(ConfigurationError, match=r"x\.nii\.gz: classes are written as a table; name a file\.csv"):
        predict_all(model, radiographs, output=tmp_path / "x.nii.gz", **options)


def test_the_images_of_an_array(tmp_path):
    random = np.random.default_rng(0)
    grey, colour = random.integers(0, 255, (11, 18, 20), np.uint8), random.integers(0, 255, (2, 18, 20, 3), np.uint8)
    np.savez(tmp_path / "grey.npz", test_images=grey, test_labels=np.zeros((11, 1)), val_images=grey[:2])
    np.savez(tmp_path / "colour.npz", images=colour)
    options = {"task": "classification", "patch_size": (16, 16), "labels": ("a", "b")}
    model = write_bundle(tmp_path / "one", contract=XRAY, **options)
    found = predict_all(model, tmp_path / "grey.npz", output=tmp_path / "x.csv", device="cpu")
    names = [answer.name for answer in found.predictions]
    assert names == [*(f"test_{index:02d}" for index in range(11)), "val_0", "val_1"]
    assert found.predictions[0].scores == pytest.approx(found.predictions[-2].scores)
    of_three = write_bundle(tmp_path / "three", contract=XRAY.override(channels=("red", "green", "blue")), **options)
    assert len(predict_all(of_three, tmp_path / "colour.npz", output=tmp_path / "y.csv", device="cpu").predictions) == 2
    with pytest.raises(DataError, match=r"test_images is \(11, 18, 20\); the model takes 3 channels"):
        predict_all(of_three, tmp_path / "grey.npz", output=tmp_path / "y.csv", device="cpu")
    np.savez(tmp_path / "none.npz", other=grey)
    with pytest.raises(DataError, match=r"none\.npz: holds other; expected images, or test_images"):
        predict_all(model, tmp_path / "none.npz", output=tmp_path / "y.csv", device="cpu")
