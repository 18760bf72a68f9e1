"""What `predict` writes, where, and what it refuses."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, DataError, ScanError
from modelsgenesis.prediction import predict_all
from recorded_notes import Notes
from tiny_bundles import LABELS, OBLIQUE, write_bundle

CT, MRI = CONTRACTS["ct"], CONTRACTS["mri"]


def labels_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_answers_in_the_shape_and_affine_of_the_scan_bit_for_bit(model, scans, tmp_path):
    scan = nib.load(scans[0])
    oblique = nib.Nifti1Image(np.asanyarray(scan.dataobj), OBLIQUE)
    oblique.set_qform(OBLIQUE, code=2)
    nib.save(oblique, tmp_path / "oblique.nii.gz")
    oblique = nib.load(tmp_path / "oblique.nii.gz")
    prediction = modelsgenesis.predict(
        model, tmp_path / "oblique.nii.gz", output=tmp_path / "seg.nii.gz", probabilities=True, device="cpu"
    )
    answer, soft = nib.load(prediction.path), nib.load(prediction.probabilities)
    assert prediction.probabilities == tmp_path / "seg_probabilities.nii.gz"
    assert answer.shape == oblique.shape
    assert soft.shape == (*oblique.shape, 3)
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        assert answer.header[field].tobytes() == oblique.header[field].tobytes() == soft.header[field].tobytes()
    assert answer.affine.tobytes() == oblique.affine.tobytes()
    labels = labels_of(prediction.path)
    assert labels.dtype == np.uint8
    assert np.array_equal(np.asanyarray(soft.dataobj).argmax(-1), labels)
    np.testing.assert_allclose(np.asanyarray(soft.dataobj).sum(-1), 1, atol=1e-5)
    assert np.array_equal(prediction.labels, labels)
    assert prediction.voxels == {"bright": int((labels == 1).sum()), "dark": int((labels == 2).sum())}
    assert len(np.unique(labels)) > 1


def test_the_names_of_the_classes_lie_beside_and_nothing_of_the_patient(model, scans, tmp_path):
    folder = tmp_path / "Doe^John"
    folder.mkdir()
    (folder / "john.nii.gz").write_bytes(scans[0].read_bytes())
    modelsgenesis.predict(model, folder / "john.nii.gz", output=tmp_path / "answer.nii.gz", device="cpu")
    text = (tmp_path / "answer.json").read_text()
    assert json.loads(text) == {
        "labels": {"0": "background", "1": "bright", "2": "dark"},
        "model": "organs",
        "members": 1,
        "flips": [],
        "overlap": 0.5,
        "precision": "float32",
        "device": "cpu",
        "library_name": "modelsgenesis",
        "library_version": modelsgenesis.__version__,
    }
    assert not any(word in text.lower() for word in ("doe", "john", str(tmp_path)))


def test_the_number_format_of_the_machine_changes_no_answer(model, scans, number_format, tmp_path):
    plain = modelsgenesis.predict(model, scans[0], output=tmp_path / "plain.nii.gz", device="cpu")
    for precision in ("float32", "bfloat16"):
        path, config = tmp_path / f"{precision}.nii.gz", PredictionConfig(precision=precision)
        found = modelsgenesis.predict(model, scans[0], output=path, config=config, device="cpu")
        assert json.loads((tmp_path / f"{precision}.json").read_text())["precision"] == precision
        assert np.array_equal(found.labels, plain.labels) == (precision == "float32")


@pytest.mark.slow
def test_another_kind_of_cpu_gives_the_same_answer(finetuned, scans, tmp_path):
    code = "import sys, modelsgenesis as mg; mg.predict(sys.argv[1], sys.argv[2], output=sys.argv[3], device='cpu')"
    found = []
    for name, environment in {
        "own": {},
        "old": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    }.items():
        path = tmp_path / f"{name}.nii.gz"
        command = [sys.executable, "-c", code, str(finetuned[0]), str(scans[0]), str(path)]
        subprocess.run(command, env=os.environ | environment, check=True)
        found.append(labels_of(path))
    assert (found[0] != found[1]).mean() <= 1e-4
    assert len(np.unique(found[0])) == 3


@pytest.mark.parametrize("codes", ["LPS", "SPR", "ARI"])
def test_another_orientation_of_the_same_scan_gives_the_same_answer(model, scans, tmp_path, codes):
    scan = nib.load(scans[0])
    change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes))
    turned = scan.as_reoriented(change)
    nib.save(turned, tmp_path / "turned.nii.gz")
    straight = modelsgenesis.predict(model, scans[0], output=tmp_path / "a.nii.gz", device="cpu")
    modelsgenesis.predict(model, tmp_path / "turned.nii.gz", output=tmp_path / "b.nii.gz", device="cpu")
    answer = nib.load(tmp_path / "b.nii.gz")
    assert answer.shape == turned.shape
    np.testing.assert_allclose(answer.affine, turned.affine, atol=1e-4)
    back = nib.orientations.ornt_transform(nib.io_orientation(answer.affine), nib.io_orientation(scan.affine))
    assert np.array_equal(np.asanyarray(answer.as_reoriented(back).dataobj), straight.labels)


@pytest.mark.parametrize("spacing", [None, (4.0, 4.0, 2.5)])
def test_a_scan_smaller_than_the_patch(scans, tmp_path, spacing):
    model = write_bundle(tmp_path / "model", contract=CT.override(spacing=spacing))
    nib.save(nib.load(scans[0]).slicer[4:14, 5:20, 3:10], tmp_path / "small.nii.gz")
    found = modelsgenesis.predict(model, tmp_path / "small.nii.gz", output=tmp_path / "seg.nii.gz", device="cpu")
    assert found.labels.shape == (10, 15, 7)


def test_a_folder_gets_an_answer_a_scan_and_a_bad_one_costs_no_other(model, scans, tmp_path):
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    (folder / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (folder / "more" / "b.nii.gz").write_bytes(scans[1].read_bytes())
    (folder / "broken.nii.gz").write_bytes(b"junk")
    empty = nib.load(scans[2])
    nib.save(nib.Nifti1Image(np.full(empty.shape, 7, np.int16), empty.affine), folder / "constant.nii.gz")
    notes = Notes()
    found = predict_all(model, folder, output=tmp_path / "out", device="cpu", reporter=notes)
    assert [answer.path for answer in found.predictions] == [
        tmp_path / "out" / "a.nii.gz",
        tmp_path / "out" / "more" / "b.nii.gz",
    ]
    assert labels_of(tmp_path / "out" / "more" / "b.nii.gz").shape == nib.load(scans[1]).shape
    reasons = {scan.source.rpartition("/")[2]: scan.reason for scan in found.failed}
    assert set(reasons) == {"broken.nii.gz", "constant.nii.gz"}
    assert "every voxel is 7" in reasons["constant.nii.gz"]
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        predict_all(model, folder, output=tmp_path / "strict", device="cpu", strict=True)
    again = predict_all(model, folder, output=tmp_path / "out", device="cpu", skip_existing=True)
    assert len(again.kept) == 2
    assert not again.predictions


def test_answers_inside_the_folder_are_not_predicted_again(model, scans, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(scans[1].read_bytes())
    first = predict_all(model, tmp_path, output=tmp_path / "out", device="cpu", probabilities=True)
    second = predict_all(model, tmp_path, output=tmp_path / "out", device="cpu")
    assert [one.path for one in first.predictions] == [one.path for one in second.predictions]
    assert not second.failed
    assert sum("earlier prediction" in scan.reason for scan in second.skipped) == 4


def test_the_wrong_model_and_a_missing_scan(model, scans, tmp_path):
    restores = write_bundle(tmp_path / "genesis", task="restoration")
    (tmp_path / "empty").mkdir()
    for asked, scan, error, word in (
        (restores, scans[0], ConfigurationError, "genesis: the model is for restoration: .*fine-tuned with --task seg"),
        (model, tmp_path / "nowhere.nii.gz", DataError, "there is no such file"),
        (model, tmp_path / "empty", ScanError, "empty: no scan to predict in it"),
        (tmp_path / "empty", scans[0], CheckpointError, "config"),
        ([], scans[0], ConfigurationError, "received no model"),
    ):
        with pytest.raises(error, match=word):
            modelsgenesis.predict(asked, scan)


def test_an_ensemble_is_the_mean_of_its_probabilities(scans, tmp_path):
    for fold in range(2):
        write_bundle(tmp_path / "folds" / f"fold{fold}", seed=fold)
    (tmp_path / "folds" / "fold2").mkdir()  # not trained yet
    write_bundle(tmp_path / "other", contract=CT.override(spacing=(3.0, 3.0, 3.0)), seed=5)
    notes = Notes()

    def soft(model, name):
        path = tmp_path / f"{name}.nii.gz"
        found = modelsgenesis.predict(model, scans[0], output=path, probabilities=True, device="cpu", reporter=notes)
        return np.asanyarray(nib.load(found.probabilities).dataobj)

    folds = soft(tmp_path / "folds", "folds")
    each = [soft(tmp_path / "folds" / f"fold{fold}", f"fold{fold}") for fold in range(2)]
    np.testing.assert_allclose(folds, (each[0] + each[1]) / 2, atol=1e-5)
    assert notes.notes[0] == "averaging 2 models: fold0, fold1"
    assert json.loads((tmp_path / "folds.json").read_text())["members"] == 2
    mixed = soft(
        [tmp_path / "folds", tmp_path / "other"], "mixed"
    )  # prepared in two ways, averaged in the scan's frame
    np.testing.assert_allclose(mixed, (2 * folds + soft(tmp_path / "other", "other")) / 3, atol=1e-5)
    assert np.array_equal(labels_of(tmp_path / "mixed.nii.gz"), mixed.argmax(-1))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": ("background", "liver", "spleen")}, "other: its list of classes background, liver, spleen is not"),
        ({"contract": CT.override(channels=("a", "b"))}, "other: its list of channels a, b is not the image of organs"),
        ({"task": "classification"}, "other: its task classification is not the segmentation"),
    ],
)
def test_models_that_do_not_agree(model, scans, tmp_path, change, word):
    with pytest.raises(ConfigurationError, match=word):
        modelsgenesis.predict([model, write_bundle(tmp_path / "other", **change)], scans[0])


def test_flips_go_through(model, scans, tmp_path):
    options = {"device": "cpu", "probabilities": True}
    turned = PredictionConfig(flips="all")
    plain = modelsgenesis.predict(model, scans[0], output=tmp_path / "a.nii.gz", **options)
    flipped = modelsgenesis.predict(model, scans[0], output=tmp_path / "b.nii.gz", config=turned, **options)
    assert json.loads((tmp_path / "b.json").read_text())["flips"] == "all"
    assert not np.array_equal(labels_of(plain.probabilities), labels_of(flipped.probabilities))


@pytest.mark.parametrize(("contract", "told"), [(CT, "mri"), (MRI, "ct")])
def test_a_scan_of_another_modality_is_warned_of_with_the_reason(scans, tmp_path, contract, told):
    notes, scan, model = Notes(), scans[0], write_bundle(tmp_path / "model", contract=contract)
    if told == "mri":
        brain = np.random.default_rng(0).uniform(0, 20_000, (16, 16, 12)).astype(np.float32)
        nib.save(nib.Nifti1Image(brain, np.eye(4)), scan := tmp_path / "brain.nii.gz")
    modelsgenesis.predict(model, scan, output=tmp_path / "seg.nii.gz", device="cpu", reporter=notes)
    (note,) = notes.notes
    assert f"its values look like {told}, the model was trained on {contract.modality}" in note
    assert ("its own percentiles instead of Hounsfield units" in note) == (told == "mri")
    assert "expect a poor prediction" in note


def test_a_trained_model_finds_what_it_learnt(finetuned, decathlon, tmp_path):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    labels = modelsgenesis.predict(finetuned[0], path, output=tmp_path / "seg.nii.gz", device="cpu").labels
    truth = labels_of(decathlon / "labelsTr" / path.name)
    assert 2 * ((labels == 1) & (truth == 1)).sum() / ((labels == 1).sum() + (truth == 1).sum()) > 0.6
    assert LABELS[1] == "bright"
