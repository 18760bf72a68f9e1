"""What `predict` writes for volumes, planes, series, channels, arrays and ensembles, where, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import modelsgenesis
from dicom_files import write_series
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.data import find_scans
from modelsgenesis.errors import CheckpointError, ConfigurationError, DataError, ScanError
from modelsgenesis.files import read_csv
from recorded_notes import Notes
from tiny_bundles import OBLIQUE, write_bundle

CT, MRI, XRAY = CONTRACTS["ct"], CONTRACTS["mri"], CONTRACTS["xray"]
CLASSIFIER = {"task": "classification", "patch_size": (16, 16), "labels": ("healthy", "ill")}


def predict(model, scan, output, **options):
    return modelsgenesis.predict(model, scan, output=output, device="cpu", **options)


def predict_all(model, source, output, **options):
    return modelsgenesis.predict_all(model, source, output=output, device="cpu", **options)


def voxels_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def save_scan(path, array, affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def save_picture(path, seed=0, shape=(30, 24)):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(path)
    return path


def reasons_of(found):
    return {scan.source.rpartition("/")[2]: scan.reason for scan in found.failed}


def test_a_label_map_has_the_geometry_of_the_scan_bit_for_bit_and_names_no_patient(model, scans, tmp_path):
    (tmp_path / "Doe^John").mkdir()
    oblique = nib.Nifti1Image(voxels_of(scans[0]), OBLIQUE)
    oblique.set_qform(OBLIQUE, code=2)
    nib.save(oblique, tmp_path / "Doe^John" / "john.nii.gz")
    oblique = nib.load(tmp_path / "Doe^John" / "john.nii.gz")
    found = predict(model, tmp_path / "Doe^John" / "john.nii.gz", tmp_path / "seg.nii.gz", probabilities=True)
    image, soft = nib.load(found.path), nib.load(tmp_path / "seg_probabilities.nii.gz")
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        assert image.header[field].tobytes() == oblique.header[field].tobytes() == soft.header[field].tobytes()
    labels, soft = voxels_of(found.path), np.asanyarray(soft.dataobj)
    assert (labels.dtype, labels.shape, soft.shape) == (np.uint8, oblique.shape, (*oblique.shape, 3))
    assert np.array_equal(soft.argmax(-1), labels)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
    assert np.array_equal(found.labels, labels)
    assert found.voxels == {"bright": int((labels == 1).sum()), "dark": int((labels == 2).sum())}
    text = (tmp_path / "seg.json").read_text()
    said = {"labels": {"0": "background", "1": "bright", "2": "dark"}, "model": "organs", "members": 1, "flips": []}
    said |= {"overlap": 0.5, "precision": "float32", "device": "cpu", "library_name": "modelsgenesis"}
    said |= {"voxels": found.voxels, "volume_ml": found.volume_ml}
    assert json.loads(text) == {**said, "library_version": modelsgenesis.__version__}
    assert not any(word in text.lower() for word in ("doe", "john", str(tmp_path)))


def test_the_number_format_of_the_machine_changes_no_prediction(model, scans, number_format, tmp_path):
    plain = predict(model, scans[0], tmp_path / "plain.nii.gz")
    for precision in ("float32", "bfloat16"):
        config = PredictionConfig(precision=precision)
        found = predict(model, scans[0], tmp_path / f"{precision}.nii.gz", config=config)
        assert np.array_equal(found.labels, plain.labels) == (precision == "float32")


@pytest.mark.slow
def test_another_kind_of_cpu_gives_the_same_prediction(finetuned, scans, tmp_path):
    code = "import sys, modelsgenesis as mg; mg.predict(sys.argv[1], sys.argv[2], output=sys.argv[3], device='cpu')"
    found = []
    for name, kind in {"own": {}, "old": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}}.items():
        path = tmp_path / f"{name}.nii.gz"
        command = [sys.executable, "-c", code, str(finetuned[0]), str(scans[0]), str(path)]
        subprocess.run(command, env=os.environ | kind, check=True)
        found.append(voxels_of(path))
    assert (found[0] != found[1]).mean() <= 1e-4
    assert len(np.unique(found[0])) == 3


def test_every_scan_of_a_folder_is_predicted_and_a_bad_one_costs_no_other(model, scans, tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "scans" / "out"
    for name, scan in (("a.nii.gz", scans[0]), ("more/b.nii.gz", scans[1])):
        save_scan(folder / name, voxels_of(scan))
    (folder / "broken.nii.gz").write_bytes(b"junk")
    save_scan(folder / "constant.nii.gz", np.full((8, 8, 8), 7, np.int16))
    found = predict_all(model, folder, out, probabilities=True)
    assert [one.path for one in found.predictions] == [out / "a.nii.gz", out / "more" / "b.nii.gz"]
    assert list(reasons_of(found)) == ["broken.nii.gz", "constant.nii.gz"]
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        predict_all(model, folder, tmp_path / "strict", strict=True)
    again = predict_all(model, folder, out, skip_existing=True)  # and does not predict predictions
    assert (len(again.kept), again.predictions) == (2, ())
    assert sum("earlier prediction" in scan.reason for scan in again.skipped) == 4


def test_the_wrong_model_and_a_missing_scan(model, scans, tmp_path):
    restores = write_bundle(tmp_path / "genesis", task="restoration")
    (tmp_path / "empty").mkdir()
    for asked, scan, error, word in (
        (restores, scans[0], ConfigurationError, "genesis: the model is for restoration: .*fine-tuned with --task seg"),
        (model, tmp_path / "nowhere.nii.gz", DataError, "there is no such file"),
        (model, tmp_path / "empty", ScanError, "empty: no scan to predict in it"),
        (model, scans[:2], ConfigurationError, "holds 2 scans, expected one; see predict_all"),
        (tmp_path / "empty", scans[0], CheckpointError, "no config.json in it"),
        ([], scans[0], ConfigurationError, "received no model"),
    ):
        with pytest.raises(error, match=word):
            predict(asked, scan, None)


def test_an_ensemble_is_the_mean_of_its_probabilities(scans, tmp_path):
    for fold in range(2):
        write_bundle(tmp_path / "folds" / f"fold{fold}", seed=fold)
    (tmp_path / "folds" / "fold2").mkdir()  # not trained yet
    write_bundle(tmp_path / "other", contract=CT.override(spacing=(3.0, 3.0, 3.0)), seed=5)
    notes = Notes()

    def soft(model, name):
        found = predict(model, scans[0], tmp_path / f"{name}.nii.gz", probabilities=True, reporter=notes)
        return np.asanyarray(found.probabilities.dataobj)

    folds = soft(tmp_path / "folds", "folds")
    assert "2 models: fold0, fold1" in notes.text
    assert json.loads((tmp_path / "folds.json").read_text())["members"] == 2
    each = [soft(tmp_path / "folds" / f"fold{fold}", f"fold{fold}") for fold in range(2)]
    np.testing.assert_allclose(folds, (each[0] + each[1]) / 2, atol=1e-5)
    # Prepared in two ways, averaged in the scan's own grid.
    mixed = soft([tmp_path / "folds", tmp_path / "other"], "mixed")
    np.testing.assert_allclose(mixed, (2 * folds + soft(tmp_path / "other", "other")) / 3, atol=1e-5)
    assert np.array_equal(voxels_of(tmp_path / "mixed.nii.gz"), mixed.argmax(-1))


@pytest.mark.parametrize("change", [{"labels": ("a", "b", "c")}, {"contract": CT.override(channels=("a", "b"))}])
def test_models_that_do_not_agree(model, scans, tmp_path, change):
    with pytest.raises(ConfigurationError, match=r"other: predicts .*a.*b.*, but organs"):
        predict([model, write_bundle(tmp_path / "other", **change)], scans[0], None)


def test_a_scan_of_another_modality_triggers_a_warning_with_the_reason(model, scans, tmp_path):
    notes, brain = Notes(), np.random.default_rng(0).uniform(0, 20_000, (16, 16, 12)).astype(np.float32)
    predict(write_bundle(tmp_path / "model", contract=MRI), scans[0], tmp_path / "seg.nii.gz", reporter=notes)
    with pytest.raises(ScanError, match="not in HU"):  # which a model of CT needs
        predict(model, save_scan(tmp_path / "brain.nii.gz", brain, np.eye(4)), tmp_path / "x.nii.gz", reporter=notes)
    for note, told, trained in zip(notes.notes, ("ct", "mri"), ("mri", "ct"), strict=True):
        assert f"its values look like {told}, the model was trained on {trained}" in note


def test_each_series_of_a_dicom_folder_is_predicted_in_its_own_frame(model, tmp_path, monkeypatch):
    series = tmp_path / "patient7"
    for number in (1, 2):
        random = np.random.default_rng(number)
        body = (1024 + 60 + random.normal(0, 200, (8, 20, 24))).clip(0).astype(np.uint16)
        body[:, :3] = 24  # air
        write_series(series, body, series=f"1.2.{number}", prefix=f"S{number}", orientation=(1, 0, 0, 0, 1, 0))
    found = predict_all(model, series, tmp_path)
    assert [one.path.name for one in found.predictions] == ["patient7_1.nii.gz", "patient7_2.nii.gz"]
    for reference, one in zip(find_scans(series)[0], found.predictions, strict=True):
        volume, image = reference.read(), nib.load(one.path)
        assert image.shape == volume.array.shape == (24, 20, 8)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-6)
    shutil.copytree(series, tmp_path / "case", ignore=shutil.ignore_patterns("S2*"))
    monkeypatch.chdir(tmp_path)
    [found] = predict_all(model, "case", None).predictions
    assert (str(found.path), found.file) == ("case_seg.nii.gz", "case")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A model of two channels and three cases for it, by nnU-Net's names."""
    folder = tmp_path_factory.mktemp("channels")
    for case in range(3):
        for channel in range(2):
            random = np.random.default_rng(10 * case + channel)
            array = random.uniform(1, 100 * (channel + 1), (16, 18, 14)).astype(np.float32)
            save_scan(folder / f"brain_{case:03d}_{channel:04d}.nii.gz", array)
    return write_bundle(folder.with_name("brain"), contract=MRI.override(channels=("t1", "flair"))), folder


def test_channels_by_name_as_given_and_in_one_file_are_the_same_case(of_two, tmp_path):
    model, folder = of_two
    found = predict_all(model, folder, tmp_path / "all")
    assert [one.path.name for one in found.predictions] == [f"brain_{case:03d}.nii.gz" for case in range(3)]
    files = [folder / f"brain_001_{channel:04d}.nii.gz" for channel in range(2)]
    assert np.array_equal(predict(model, files, tmp_path / "one.nii.gz").labels, found.predictions[1].labels)
    turned = predict(model, files[::-1], tmp_path / "turned.nii.gz")
    assert (turned.name, np.array_equal(turned.labels, found.predictions[1].labels)) == ("brain_001", False)
    four = save_scan(tmp_path / "four.nii.gz", np.stack([voxels_of(file) for file in files], axis=-1))
    assert np.array_equal(predict(model, four, tmp_path / "four_seg.nii.gz").labels, found.predictions[1].labels)


@pytest.mark.parametrize(("first", "second", "same"), [("FLAIR", "T1", False), ("T1", "T2", True)])
def test_channels_are_matched_by_the_names_that_their_data_set_gives_them(of_two, tmp_path, first, second, same):
    model, folder = of_two
    images, notes = tmp_path / "data" / "imagesTr", Notes()
    shutil.copytree(folder, images)
    content = {"channel_names": {"0": first, "1": second}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    files = [images / f"brain_000_{channel:04d}.nii.gz" for channel in range(2)]
    straight, turned = (predict(model, order, tmp_path / "one.nii.gz").labels for order in (files, files[::-1]))
    for source in (tmp_path / "data", images):
        found = predict_all(model, source, tmp_path / "out", reporter=notes).predictions[0].labels
        assert np.array_equal(found, straight if same else turned)
    assert notes.text.count("the channels of its data set, T1, T2") == (2 if second == "T2" else 0)


def test_channels_that_are_missing_or_do_not_fit(of_two, model, tmp_path):
    array, folder = voxels_of(of_two[1] / "brain_000_0000.nii.gz"), tmp_path / "scans"
    for name in ("a_0000", "b_0000", "c_0000"):
        save_scan(folder / f"{name}.nii.gz", array)
    save_scan(folder / "b_0001.nii.gz", array[:-1])
    save_scan(folder / "c_0001.nii.gz", array, OBLIQUE + np.eye(4, k=3))
    found = predict_all(of_two[0], folder, tmp_path / "out")
    reasons = reasons_of(found)
    assert (found.table, list(tmp_path.glob("out/*"))) == (None, [])
    assert (len(found.predictions), len(reasons)) == (0, 3)
    assert "there is a_0000.nii.gz; the model takes 2 files, a_0000 to a_0001" in reasons["a_0000.nii.gz"]
    assert "(15, 18, 14) is not the (16, 18, 14)" in reasons["b_0000.nii.gz"]
    assert "its affine is up to 1 mm away" in reasons["c_0000.nii.gz"]
    four = save_scan(tmp_path / "two_times.nii.gz", np.stack([array, array], axis=-1))
    with pytest.raises(ScanError, match=r"two_times\.nii\.gz.*2 volumes; the model takes one"):
        predict(model, four, tmp_path / "seg.nii.gz")


def test_planes_and_the_slices_of_volumes(model, scans, tmp_path):
    planar = write_bundle(tmp_path / "xray", contract=XRAY, patch_size=(16, 16))
    chest = save_picture(tmp_path / "chest.png", shape=(20, 31))
    assert predict(planar, chest, tmp_path / "seg.nii.gz").labels.shape == (20, 31)
    slices = write_bundle(tmp_path / "slices", contract=CT.override(dims=2), patch_size=(16, 16))
    assert predict(slices, scans[0], tmp_path / "volume.nii.gz").labels.shape == nib.load(scans[0]).shape
    with pytest.raises(ScanError, match=r"chest\.png.*has 2 axes; expected 3"):
        predict(model, chest, tmp_path / "x.nii.gz")


def test_a_scan_in_memory_has_the_prediction_of_its_file_and_nothing_is_written(model, scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turned = save_scan(tmp_path / "turned.nii.gz", voxels_of(scans[0]).astype(np.float64), OBLIQUE)
    of_file, image = predict(model, turned, None), nib.load(turned)
    array = torch.from_numpy(voxels_of(turned))
    for scan, affine in ((image, None), (array, OBLIQUE), (array[None].numpy(), OBLIQUE)):
        found = predict(model, scan, None, affine=affine, probabilities=True)
        assert np.array_equal(found.labels, of_file.labels)
        assert np.array_equal(found.labels, found.image.dataobj)
        np.testing.assert_allclose(found.image.affine, OBLIQUE, atol=1e-5)
        assert found.probabilities.shape == (*array.shape, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["turned.nii.gz"]
    assert (of_file.path, of_file.probabilities) == (None, None)
    written = predict(model, image, tmp_path / "out")
    assert (written.path, written.file) == (tmp_path / "out" / "turned.nii.gz", "turned.nii.gz")
    assert nib.load(written.path).header["srow_x"].tobytes() == image.header["srow_x"].tobytes()
    with pytest.raises(DataError, match="replace the scan itself"):
        predict(model, image, turned)


def test_an_image_in_metres_or_with_a_changed_affine_is_taken_as_what_saving_it_would_give(model, scans, tmp_path):
    image = nib.Nifti1Image(voxels_of(scans[0]), np.diag([2e-3, 2e-3, 2.5e-3, 1]))
    image.header.set_xyzt_units("meter")
    ml = predict(model, image, None).volume_ml
    assert ml == {
        name: pytest.approx(count * 0.01, rel=1e-4) for name, count in predict(model, image, None).voxels.items()
    }
    image.affine[:] = OBLIQUE
    assert np.array_equal(predict(model, image, None).image.affine, OBLIQUE.astype(np.float32))


def test_channels_and_planes_in_memory(of_two, tmp_path):
    model, folder = of_two
    files = [folder / f"brain_001_{channel:04d}.nii.gz" for channel in range(2)]
    expected, images = predict(model, files, None).labels, [nib.load(file) for file in files]
    stacked = np.stack([voxels_of(file) for file in files])
    for scan, affine in (
        (images, None),
        ([images[0], files[1]], None),
        (nib.concat_images(images), None),
        (stacked, OBLIQUE),
        (list(stacked), OBLIQUE),
    ):
        assert np.array_equal(predict(model, scan, None, affine=affine).labels, expected)
    planar = write_bundle(tmp_path / "xray", contract=XRAY, patch_size=(16, 16))
    colours = np.random.default_rng(0).integers(0, 255, (20, 31, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "chest.png")
    grey = np.asarray(Image.open(tmp_path / "chest.png").convert("L"))
    of_file = predict(planar, tmp_path / "chest.png", None)
    assert (of_file.volume_ml, of_file.area_mm2) == ({}, {})  # a picture has no pixel size
    for scan in (colours, grey, grey[None]):
        assert (predict(planar, scan, None).labels != of_file.labels).mean() < 0.01  # grey values are rounded
    area = predict(planar, grey, None, affine=np.diag([0.5, 0.5, 1, 1])).area_mm2
    assert area == {name: count / 4 for name, count in of_file.voxels.items()}


@pytest.mark.parametrize(
    ("scan", "affine", "word"),
    [
        (np.zeros((9, 9, 9, 7)), np.eye(4), "array: its shape is 9×9×9×7; expected three axes"),
        (np.zeros((9, 9, 9)), None, "array: a volume of 9×9×9 needs its geometry: pass affine="),
        (np.zeros((9, 9, 9)), np.eye(3), r"affine: its shape is \(3, 3\); expected \(4, 4\)"),
        (np.zeros((9, 9, 9)), np.zeros((4, 4)), "array: its affine is not finite, too large or singular"),
        (np.zeros((9, 9, 9)), np.eye(4), "array: every voxel is 0"),
        (np.full((9, 9, 9), np.nan), np.eye(4), "array: 729 voxels are NaN"),
        (np.zeros((9, 9)), None, "array: its shape is 9×9; expected three axes"),
        (np.zeros((9, 9, 9), complex), np.eye(4), "expected a path, a nibabel image or an array of numbers"),
        ({"image": 1}, None, "received a dict; expected a path, a nibabel image or an array of numbers"),
        (nib.Nifti1Image(np.zeros((9, 9, 9, 7), np.uint8), np.eye(4)), None, "image: holds 7 volumes; .* takes one"),
        (nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)), np.eye(4), "a nibabel image has its own"),
        (nib.Nifti1Image(np.zeros((9, 9, 9), np.complex64), np.eye(4)), None, "image: voxels are complex64"),
        ([], None, "received no scan"),
    ],
)
def test_what_in_memory_is_no_scan(model, scan, affine, word):
    with pytest.raises(ScanError, match=word):
        predict(model, scan, None, affine=affine)


def test_several_segmentations_have_a_table_of_sizes_that_an_interrupted_run_completes(model, scans, tmp_path):
    for name, scan in (("a.nii.gz", scans[0]), ("more/b.nii.gz", scans[1])):
        save_scan(tmp_path / "scans" / name, voxels_of(scan), np.diag([2.0, 2, 2.5, 1]))
    found = predict_all(model, tmp_path / "scans", tmp_path / "out")
    rows = read_csv(found.table, DataError)
    assert [(row["file"], row["case"]) for row in rows] == [("a.nii.gz", "a"), ("more/b.nii.gz", "more/b")]
    for row, one in zip(rows, found.predictions, strict=True):
        assert float(row["volume_ml_bright"]) == one.volume_ml["bright"] == one.voxels["bright"] / 100
    (tmp_path / "out" / "a.nii.gz").unlink()
    planned = predict_all(model, tmp_path / "scans", tmp_path / "out", skip_existing=True, dry_run=True)
    assert [one.path.name for one in planned.predictions] == ["a.nii.gz"]
    assert not (tmp_path / "out" / "a.nii.gz").exists()
    again = predict_all(model, tmp_path / "scans", tmp_path / "out", skip_existing=True)
    assert (len(again.predictions), len(again.kept)) == (1, 1)
    assert read_csv(again.table, DataError) == rows
    (tmp_path / "out" / "a.nii.gz").unlink()
    another, notes = shutil.copytree(model, tmp_path / "another"), Notes()
    predict_all(another, tmp_path / "scans", tmp_path / "out", skip_existing=True, reporter=notes)
    assert any("is kept, but of another model: " in note for note in notes.notes)
    again.table.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"predictions\.csv: exists and is not a prediction"):
        predict_all(model, tmp_path / "scans", tmp_path / "out")


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes_become_a_table(tmp_path, multilabel):
    (tmp_path / "xrays").mkdir()
    for index in range(3):
        save_picture(tmp_path / "xrays" / f"x{index}.png", seed=index)
    model = write_bundle(tmp_path / "model", contract=XRAY, multilabel=multilabel, **CLASSIFIER)
    found = predict_all(model, tmp_path / "xrays", tmp_path / "out")
    assert [one.name for one in found.predictions] == ["x0", "x1", "x2"]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["labels"] == {"0": "healthy", "1": "ill"}
    rows = read_csv(tmp_path / "out" / "predictions.csv", DataError)
    for row, one in zip(rows, found.predictions, strict=True):
        assert (row["file"], row["case"]) == (f"{one.name}.png", one.name)
        assert {name: float(row[f"prob_{name}"]) for name in ("healthy", "ill")} == one.scores
        assert row["predicted"] == "; ".join(one.predicted)
        # Of two classes that exclude one another the more probable one has at least a half, too.
        assert one.predicted == tuple(name for name, value in one.scores.items() if value >= 0.5)
        assert multilabel or sum(one.scores.values()) == pytest.approx(1)


def test_a_mirrored_image_has_the_same_classes_with_flips(tmp_path):
    model, flips = write_bundle(tmp_path / "model", contract=XRAY, **CLASSIFIER), PredictionConfig(flips=(0,))
    picture = save_picture(tmp_path / "x.png")
    Image.fromarray(np.asarray(Image.open(picture))[::-1]).save(tmp_path / "mirrored.png")
    one, other = (predict(model, tmp_path / x, tmp_path / "x.csv", config=flips) for x in ("x.png", "mirrored.png"))
    assert one.scores == pytest.approx(other.scores, abs=1e-6)
