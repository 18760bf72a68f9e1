"""`finetune`: from labelled images and weights to a bundle that is measured on held-out patients."""

import json
import shutil
import signal

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import ClassificationConfig, GenesisUNetConfig, SegmentationConfig
from modelsgenesis.data import SkippedScan
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, ScanError, TrainingError
from modelsgenesis.files import read_csv
from modelsgenesis.finetuning import read_finetuning
from modelsgenesis.inference.ensemble import measure_cases
from modelsgenesis.training.results import read_rows, read_test_results, table_of
from modelsgenesis.training.splits import Split, read_split
from recorded_notes import Notes

NETWORK = GenesisUNetConfig(dims=3, widths=(4, 8), norm="instance")
BUDGET = {"steps": 30, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 2, "validate_every": 15, "bootstrap": 50}
CLASSIFY = ClassificationConfig(
    network=NETWORK, **BUDGET, hidden=0, levels=(0, 1), workers=0, precision="float32", validation_fraction=0.2
)
SHORT = {"modality": "xray", "device": "cpu", "draw": False}


@pytest.fixture(scope="module")
def classified(class_folders, tmp_path_factory):
    """A finished run on eight patients of the class folders, and what it measured."""
    output = tmp_path_factory.mktemp("classified") / "run"
    return modelsgenesis.finetune(class_folders, output, config=CLASSIFY, modality="xray", device="cpu", labels="8")


def test_learns_to_segment_held_out_patients_and_says_where_it_comes_from(finetuned):
    run, measured = finetuned
    assert measured["dice"] > 0.7
    metrics = ("dice", "iou", "hausdorff95")
    assert set(measured) == {f"{metric}{row}" for metric in metrics for row in ("", " bright", " dark")}
    assert 0 <= measured["hausdorff95"] < 30
    results = read_test_results(run)
    rows = read_rows(run, results)
    assert measured["dice bright"] == pytest.approx(np.mean([row["dice bright"] for row in rows]))
    assert results["test"]["dice"]["value"] == measured["dice"]
    split = json.loads((run / "run.json").read_text())["split"]
    assert len({name for part in split.values() for name in part}) == 6
    config = load_bundle(run).config
    assert (config.task, config.labels) == ("segmentation", ("background", "bright", "dark"))
    assert config.provenance.init == "run"
    assert config.provenance.results["test"]["patients"] == 1
    assert config.provenance.results["validation"]["dice"] == results["validation"]["dice"]
    assert "ball_" not in (run / "README.md").read_text()


def test_measures_what_evaluate_measures_on_the_scans_own_grid(finetuned, decathlon, tmp_path):
    """Of a model that resamples; its prepared grid would give another Dice."""
    config = read_finetuning(finetuned[0]).override(steps=2, validate_every=2)
    weights = load_bundle(finetuned[0])
    coarse = weights.config.override(input=weights.config.input.override(spacing=(4.0, 4.0, 5.0)))
    modelsgenesis.save_bundle(tmp_path / "coarse", modelsgenesis.Bundle(weights.network, coarse))
    run, measured = modelsgenesis.finetune(
        decathlon, tmp_path / "run", init=tmp_path / "coarse", config=config, device="cpu", draw=False
    )
    split = run / "split.json"
    found = modelsgenesis.evaluate(run, decathlon, split=split, output=tmp_path / "evaluation", device="cpu")
    assert found.values["dice"] == pytest.approx(measured["dice"], abs=0.02)  # windows overlap by a quarter, or a half
    assert load_bundle(run).config.input.spacing == (4.0, 4.0, 5.0)


@pytest.fixture
def trained(genesis, decathlon, tmp_path, finetuning_config):
    """Fine-tune the balls for a moment; return the bundle and what was said."""

    def train(init=genesis, from_scratch=False, **changes):
        notes, config = Notes(), finetuning_config.override(**changes)
        options = {"init": init, "from_scratch": from_scratch, "config": config, "device": "cpu", "draw": False}
        run, _ = modelsgenesis.finetune(
            decathlon, tmp_path / str(len(list(tmp_path.iterdir()))), reporter=notes, **options
        )
        return load_bundle(run), " ".join(notes.notes)

    return train


def test_the_control_has_the_shape_of_the_genesis_and_random_weights(trained, finetuning_config):
    bundle, said = trained(from_scratch=True, steps=2, network=GenesisUNetConfig())
    assert bundle.config.network.widths == finetuning_config.network.widths
    assert bundle.config.provenance.init is None
    assert "random weights in the shape of run" in said


def test_a_run_begins_with_rescaled_kernels_and_a_head_at_the_class_frequencies(trained, decathlon, tmp_path):
    bundle, said = trained(steps=1, learning_rate=1e-9)
    assert "kernels rescaled" in said
    used = read_split(tmp_path / "0" / "split.json").training
    labels = np.stack([nib.load(decathlon / "labelsTr" / f"{name}.nii.gz").get_fdata() for name in used]).astype(int)
    expected = np.bincount(labels.ravel()) / labels.size
    head = dict(bundle.network.named_parameters())["head.bias"]
    assert head.softmax(dim=0).tolist() == pytest.approx(expected.tolist(), rel=0.05)
    assert "rescaled" not in trained(steps=1, rescale=False)[1]
    assert "anew" not in said
    assert "norms begin anew" in trained(steps=1, fresh_norms=True)[1]
    assert "anew" not in trained(steps=1, fresh_norms=True, freeze_encoder=True)[1]


@pytest.mark.parametrize("restored", [True, False])
def test_a_classification_renews_the_norms_of_what_restored_and_not_of_a_classifier(
    classified, class_folders, tmp_path, restored
):
    notes, init = Notes(), "genesis-chest-xray-2d-small" if restored else classified[0]
    config = CLASSIFY.override(steps=1, validate_every=1)
    modelsgenesis.finetune(class_folders, tmp_path / "run", init=init, config=config, reporter=notes, **SHORT)
    assert ("norms begin anew" in notes.text) == restored


def test_what_comes_from_the_weights_is_frozen_or_trained_as_asked(genesis, trained):
    before = load_bundle(genesis).network.state_dict()
    after = trained(steps=3, freeze_encoder=True, rescale=False)[0].network.state_dict()
    assert all((before[name] == after[name]).all() for name in before if name.startswith("encoder."))
    assert any((before[name] != after[name]).any() for name in before if name.startswith("decoder."))
    bundle, said = trained(steps=1, learning_rate=1e-9, encoder_only=True, rescale=False)
    after = bundle.network.state_dict()
    near = {name: torch.allclose(before[name], after[name], atol=1e-6) for name in before if name in after}
    assert all(same for name, same in near.items() if name.startswith("encoder."))
    assert not any(near[name] for name in before if name.startswith("decoder.") and before[name].ndim == 5)
    assert "from the checkpoint" in said


@pytest.mark.parametrize("weights", [{}, {"init": None}])
def test_a_network_of_two_dimensions_learns_the_slices_of_volumes(trained, weights):
    config = trained(**weights, steps=2, patch_size=(16, 16), dims=2)[0].config
    assert (config.network.dims, config.input.dims, config.input.orientation) == (2, 2, "RAS")
    assert 0 <= config.provenance.results["test"]["dice"]["value"] <= 1


def test_a_label_that_does_not_match_is_skipped_and_said(decathlon, tmp_path, finetuning_config):
    folder = shutil.copytree(decathlon, tmp_path / "copy")
    names = sorted(path.name for path in (folder / "labelsTr").iterdir())
    label = nib.load(folder / "labelsTr" / names[0])
    values = np.asanyarray(label.dataobj)
    nib.save(nib.Nifti1Image(values[:-1], label.affine), folder / "labelsTr" / names[0])
    nib.save(nib.Nifti1Image(values, label.affine + np.eye(4)), folder / "labelsTr" / names[1])
    nib.save(nib.Nifti1Image(values + 5, label.affine), folder / "labelsTr" / names[2])
    (folder / "imagesTr" / names[3]).write_bytes(b"junk")
    notes, options = Notes(), {"device": "cpu", "draw": False}
    config = finetuning_config.override(steps=2, test_fraction=0.0, validation_fraction=0.0)
    run, _ = modelsgenesis.finetune(folder, tmp_path / "run", config=config, reporter=notes, **options)
    said = [note for note in notes.notes if note.startswith("skipped")]
    expected = ("is not the (28, 24, 20)", "its affine is up to", "label values [5, 6, 7]", "ball_003")
    assert all(text in note for text, note in zip(expected, sorted(said), strict=True))
    assert load_bundle(run).config.provenance.data["training_patients"] == 2
    with pytest.raises(ScanError, match="ball_000"):
        modelsgenesis.finetune(folder, tmp_path / "strict", config=config, strict=True, **options)
    bad = Split(training=("ball_004",), validation=(), test=("ball_000", "ball_001"))
    with pytest.raises(DataError, match="none of 2 cases could be measured"):
        modelsgenesis.finetune(folder, tmp_path / "test", config=config, split=bad, **options)


def test_prepared_cases_are_kept_in_a_folder_and_read_by_a_second_run(class_folders, tmp_path, monkeypatch):
    def train(folder, **options):
        run, _ = modelsgenesis.finetune(class_folders, tmp_path / folder, config=config, **SHORT, **options)
        return [row["loss"] for row in read_csv(run / "log.csv", DataError)]

    config, cache = CLASSIFY.override(steps=2, patch_size=(16, 16), test_fraction=0.0), tmp_path / "cache"
    losses = [train("memory"), train("first", cache=cache)]
    monkeypatch.setattr("modelsgenesis.data.cases.prepare_case", pytest.fail)
    assert losses[0] == losses[1] == train("second", cache=cache)


def test_without_data_the_embedded_sample_is_used_and_that_is_said_first(tmp_path, finetuning_config):
    notes = Notes()
    config = finetuning_config.override(steps=1, batch_size=1, overlap=0.0)  # which holds back validation patients
    run, measured = modelsgenesis.finetune(None, tmp_path / "run", config=config, device="cpu", reporter=notes)
    assert notes.notes[0].startswith("warning: starting from random weights")
    assert notes.notes[1].startswith("the data is the embedded sample")
    assert {"dice", "dice liver", "dice spleen", "dice back muscles"} <= set(measured)
    assert load_bundle(run).config.labels == ("background", "liver", "spleen", "back muscles")


def test_learns_to_classify_from_folders_and_says_what_the_results_rest_on(classified):
    run, measured = classified
    results = read_test_results(run)
    assert measured["auc"] > 0.9
    assert set(measured) == {"auc", "average_precision", "sensitivity", "accuracy"}
    assert results["split"]["training"] == {"patients": 8, "cases": 16, "classes": {"dark": 8, "pale": 8}}
    assert (results["labels_used"], results["specificity"], results["patients"]) == ("8", 0.9, 3)
    bundle = load_bundle(run)
    assert bundle.config.network.encoder.dims == 2  # as the images, whatever the configuration's network
    assert set(bundle.config.provenance.results["test"]["auc"]) == {"value", "low", "high"}
    assert "data" not in bundle.config.provenance.recipe
    assert "On the test patients" in bundle.card


def test_prediction_brings_images_to_the_size_as_training_did(class_folders, number_format, tmp_path):
    """Whatever training computed in: results are measured and predicted in float32."""
    config = CLASSIFY.override(steps=1, fit="crop", patch_size=(12, 12), precision="auto")
    run, _ = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **SHORT)
    row = read_rows(run, read_test_results(run))[0]
    case = class_folders / row["class"] / f"{row['case']}.png"
    scores = modelsgenesis.predict(run, case, output=tmp_path / "answer.csv", device="cpu").scores
    assert scores == pytest.approx({name: row[f"prob_{name}"] for name in ("dark", "pale")}, abs=1e-6)
    assert number_format in load_bundle(run).config.provenance.environment["hardware"]
    assert read_test_results(run)["precision"] == "float32"


def test_a_resumed_run_measures_the_same_and_needs_nothing_typed_again(classified, tmp_path):
    folder = shutil.copytree(classified[0], tmp_path / "part")
    (folder / "checkpoints" / "before.pt").replace(folder / "checkpoints" / "last.pt")  # as after step 15
    (folder / "results.json").unlink()
    run, measured = modelsgenesis.finetune(None, folder, resume=True, device="cpu")
    assert (run, measured) == (folder, classified[1])
    logs = [(place / "log.csv").read_text().splitlines() for place in (classified[0], folder)]
    assert [line.split(",")[2] for line in logs[0]] == [line.split(",")[2] for line in logs[1]]


def test_a_finished_run_is_left_as_it_is_and_a_changed_one_is_refused(classified, tmp_path):
    folder, notes = shutil.copytree(classified[0], tmp_path / "run"), Notes()
    written = (folder / "README.md").stat().st_mtime_ns
    again = modelsgenesis.finetune(None, folder, resume=True, device="cpu", reporter=notes)
    assert again == (folder, classified[1])
    assert "the run is finished" in notes.notes[-1]
    assert (folder / "README.md").stat().st_mtime_ns == written
    (folder / "results.json").unlink()
    other = Split(**{**json.loads((folder / "split.json").read_text()), "test": ()})
    with pytest.raises(TrainingError, match="with other scans or another split"):
        modelsgenesis.finetune(None, folder, split=other, resume=True, device="cpu")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(TrainingError, match=r"model\.safetensors: is not the network that was kept"):
        modelsgenesis.finetune(None, folder, resume=True, device="cpu")


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_changed_case_ends_a_resume(class_folders, tmp_path, part):
    data = shutil.copytree(class_folders, tmp_path / "data")
    run, _ = modelsgenesis.finetune(data, tmp_path / "run", config=CLASSIFY.override(steps=1), **SHORT)
    (run / "results.json").unlink()
    names = json.loads((run / "split.json").read_text())[part]
    changed = data / "pale" / f"{next(name for name in names if name.startswith('pale'))}.png"
    Image.fromarray(np.asarray(Image.open(changed))[::-1].copy()).save(changed)
    with pytest.raises(TrainingError, match=f"1 scans or their labels have changed .* such as {changed.stem}"):
        modelsgenesis.finetune(None, run, resume=True, device="cpu")


def test_without_validation_the_last_network_is_kept_and_without_test_nothing_is_measured(class_folders, tmp_path):
    config = CLASSIFY.override(steps=3, validate_every=2, validation_fraction=0.0, test_fraction=0.0)
    run, measured = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **SHORT)
    results = read_test_results(run)
    assert (measured, results["step"], results["test"], results["validation"]) == ({}, 3, {}, {})


def test_a_test_set_of_one_class_and_a_frozen_random_encoder_are_said(class_folders, tmp_path):
    notes, names = Notes(), [case.name for case in read_labelled(class_folders, modality="xray").cases]
    split = Split(training=(names[0], names[-1]), validation=(), test=(names[2], names[3]))
    config = CLASSIFY.override(steps=1, freeze_encoder=True)
    _, measured = modelsgenesis.finetune(
        class_folders, tmp_path / "run", config=config, split=split, reporter=notes, **SHORT
    )
    assert list(measured) == ["accuracy"]
    results = read_test_results(tmp_path / "run")
    assert "AUC is undefined: all 2 cases are of one class" in table_of(results).notes
    assert any("frozen encoder has random weights" in note for note in notes.notes)
    remarks = load_bundle(tmp_path / "run").config.provenance.results["remarks"]
    assert results["remarks"] == list(remarks)
    said = ("no validation patients", "frozen encoder", "dark was never predicted", "only 1 test")
    assert all(words in remark for words, remark in zip(said, remarks, strict=True)), remarks


def test_trains_every_fold_pools_them_and_resumes(class_folders, tmp_path):
    config = CLASSIFY.override(steps=2, folds=2)
    output, measured = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **SHORT)
    results = read_test_results(output)
    assert output == tmp_path / "run"
    assert (results["patients"], results["cases"], results["folds"], results["fold"]) == (16, 32, 2, None)
    assert results["test"]["accuracy"]["value"] == measured["accuracy"]
    assert len(results["test"]["auc"]["folds"]) == 2
    assert len({row["case"] for row in read_rows(output, results)}) == 32
    (output / "fold1" / "results.json").unlink()
    notes = Notes()
    again = modelsgenesis.finetune(class_folders, output, config=config, resume=True, reporter=notes, **SHORT)
    assert again == (output, measured)
    assert any("fold0: the run is finished" in note for note in notes.notes)
    assert "fold 1, 2 of 2: resuming" in notes.notes
    rows = output / "fold1" / "test.csv"
    rows.write_text(rows.read_text().replace("0.", "1.", 1))
    with pytest.raises(DataError, match=r"fold1/test\.csv: is not what results\.json was made of"):
        modelsgenesis.finetune(class_folders, output, config=config, resume=True, **SHORT)
    for content in ("", "[]", '{"test": []}', '{"test": {"auc": 1}}', "[" * 100_000):
        (output / "fold1" / "results.json").write_text(content)
        with pytest.raises(DataError, match=r"results\.json: "):
            modelsgenesis.finetune(class_folders, output, config=config, resume=True, **SHORT)


def test_a_case_that_cannot_be_measured_is_trained_on_in_the_next_fold(class_folders, tmp_path, monkeypatch):
    def measure(*arguments, **options):
        rows, skipped = measure_cases(*arguments, **options)
        return rows[1:], [*skipped, SkippedScan(source=rows[0]["case"], reason="does not fit into memory")]

    monkeypatch.setattr("modelsgenesis.finetuning.measure_cases", measure)
    config = CLASSIFY.override(steps=2, folds=2, validation_fraction=0.0)
    output, _ = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **SHORT)
    remarks = read_test_results(output)["remarks"]
    assert [one for one in remarks if "case" in one and "could not" in one] == [
        f"fold {fold}: 1 of 16 test cases could not be measured" for fold in range(2)
    ]


def test_a_signal_in_a_fold_says_how_to_resume_all_of_them(class_folders, tmp_path):
    class Stopped(Notes):
        def step(self, step, *_):
            if step == 2 and any(note.startswith("fold 1") for note in self.notes):
                signal.raise_signal(signal.SIGTERM)

    options = {"config": CLASSIFY.override(steps=4, folds=2), **SHORT}
    with pytest.raises(Interrupted, match=r"fold 1 of 2, .* --resume --output .*run$") as stopped:
        modelsgenesis.finetune(class_folders, tmp_path / "run", reporter=Stopped(), **options)
    assert stopped.value.signum == signal.SIGTERM
    alone = {**options, "config": CLASSIFY.override(steps=4, folds=2, fold=1)}  # on another machine
    run, _ = modelsgenesis.finetune(class_folders, tmp_path / "run", resume=True, **alone)
    assert run == tmp_path / "run" / "fold1"
    _, measured = modelsgenesis.finetune(class_folders, tmp_path / "run", resume=True, **options)
    _, whole = modelsgenesis.finetune(class_folders, tmp_path / "whole", **options)
    assert measured == whole


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (DataError, "no such folder", {"source": "nowhere"}),
        (ConfigurationError, "task: received 'det'", {"task": "det"}),
        (DataError, "labels are for classification; segmentation was asked for", {"task": "seg"}),
        (ConfigurationError, "received a SegmentationConfig, expected a Class", {"config": SegmentationConfig()}),
        (DataError, "no patient is left for training", {"config": CLASSIFY.override(test_fraction=1.0)}),
        (DataError, "no training example of", {"labels": "1"}),
        (ConfigurationError, "folds: received 2 and a split", {"config": CLASSIFY.override(folds=2), "split": "x"}),
        (TrainingError, "holds no fold", {"config": CLASSIFY.override(folds=2), "resume": True}),
        (TrainingError, "holds no run to resume", {"resume": True}),
        (TrainingError, "is not empty", {"output": "pictures"}),
    ],
)
def test_refuses_what_cannot_be_trained(class_folders, tmp_path, error, message, options):
    given = {"config": CLASSIFY, "output": tmp_path / "run", "source": class_folders, **SHORT, **options}
    given |= {"output": class_folders} if given["output"] == "pictures" else {}
    with pytest.raises(error, match=message):
        modelsgenesis.finetune(given.pop("source"), given.pop("output"), **given)
    assert not (tmp_path / "run" / "run.json").exists()


def test_refuses_to_be_one_of_several_processes(decathlon, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="one process: start it without torchrun"):
        modelsgenesis.finetune(decathlon, tmp_path / "run")


def test_a_damaged_card_is_put_aside_and_the_training_continues(class_folders, tmp_path):
    class Damage(Notes):
        def validation(self, *_):
            (tmp_path / "run" / "README.md").write_bytes(b"---\n- &a [*a, *b]\n---\n")

    notes, config = Damage(), CLASSIFY.override(steps=4, validate_every=2)
    modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, reporter=notes, **{**SHORT, "draw": True})
    assert "On the test patients" in load_bundle(tmp_path / "run").card
    assert any("a new card was written" in note for note in notes.notes)
