import csv
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
from modelsgenesis.configs import ClassificationConfig, GenesisUNetConfig
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, ResumeError, ScanError, TrainingError
from modelsgenesis.finetuning import SAMPLE_CONFIG, read_measurements
from modelsgenesis.training import Split
from modelsgenesis.training.supervised import read_rows
from recorded_notes import Notes


def test_learns_to_segment_held_out_patients(finetuned):
    run, measured = finetuned
    assert measured["dice"] > 0.7
    metrics = ("dice", "iou", "hausdorff95")
    assert set(measured) == {f"{metric}{row}" for metric in metrics for row in ("", " bright", " dark")}
    with (run / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert measured["dice bright"] == pytest.approx(np.mean([float(row["dice bright"]) for row in rows]))
    assert 0 <= measured["hausdorff95"] < 30
    results = read_measurements(run)
    assert results["test"]["dice"]["value"] == measured["dice"]
    assert results["split"]["training"]["patients"] == 4


def test_the_split_keeps_patients_apart_and_is_recorded(finetuned):
    split = json.loads((finetuned[0] / "run.json").read_text())["split"]
    names = [name for part in split.values() for name in part]
    assert len(names) == len(set(names)) == 6
    assert all(split.values())


def test_the_bundle_says_where_it_comes_from(finetuned):
    config = load_bundle(finetuned[0]).config
    assert (config.task, config.labels) == ("segmentation", ("background", "bright", "dark"))
    assert config.provenance.init == "run"
    assert config.provenance.results["test"]["patients"] == 1
    assert "ball_" not in (finetuned[0] / "README.md").read_text()


def test_the_control_has_the_shape_of_the_genesis_and_random_weights(genesis, decathlon, tmp_path, finetuning_config):
    notes = Notes()
    run, _ = modelsgenesis.finetune(
        decathlon,
        tmp_path / "run",
        init=genesis,
        from_scratch=True,
        config=finetuning_config.override(steps=2, network=GenesisUNetConfig()),
        device="cpu",
        reporter=notes,
    )
    config = load_bundle(run).config
    assert config.network.widths == finetuning_config.network.widths
    assert config.provenance.init is None
    assert any("random weights in the shape of run" in note for note in notes.notes)


@pytest.mark.parametrize("from_genesis", [True, False])
def test_a_network_of_two_dimensions_learns_the_slices_of_volumes(
    genesis, decathlon, tmp_path, finetuning_config, from_genesis
):
    config = finetuning_config.override(steps=2, patch_size=(16, 16), dims=2)
    init = genesis if from_genesis else None
    run, measured = modelsgenesis.finetune(decathlon, tmp_path / "run", init=init, config=config, device="cpu")
    bundle = load_bundle(run)
    assert (bundle.config.network.dims, bundle.config.input.dims, bundle.config.input.orientation) == (2, 2, "RAS")
    assert 0 <= measured["dice"] <= 1
    case = json.loads((run / "run.json").read_text())["split"]["test"][0]
    prediction = modelsgenesis.predict(
        run, decathlon / "imagesTr" / f"{case}.nii.gz", output=tmp_path / "labels.nii.gz", device="cpu"
    )
    assert prediction.labels.ndim == 3


def test_a_frozen_encoder_stays(genesis, decathlon, tmp_path, finetuning_config):
    run, _ = modelsgenesis.finetune(
        decathlon,
        tmp_path / "run",
        init=genesis,
        config=finetuning_config.override(steps=3, freeze_encoder=True),
        device="cpu",
    )
    before, after = (load_bundle(folder).network.state_dict() for folder in (genesis, run))
    for name in before:
        if name.startswith("encoder."):
            assert (before[name] == after[name]).all(), name
    assert any((before[name] != after[name]).any() for name in before if name.startswith("decoder."))


def test_the_encoder_alone_comes_from_the_weights(genesis, decathlon, tmp_path, finetuning_config):
    notes = Notes()
    run, _ = modelsgenesis.finetune(
        decathlon,
        tmp_path / "run",
        init=genesis,
        config=finetuning_config.override(steps=1, learning_rate=1e-9, encoder_only=True),
        device="cpu",
        reporter=notes,
    )
    before, after = (load_bundle(folder).network.state_dict() for folder in (genesis, run))
    near = {name: torch.allclose(before[name], after[name], atol=1e-6) for name in before if name in after}
    assert all(same for name, same in near.items() if name.startswith("encoder."))
    assert not any(near[name] for name in before if name.startswith("decoder.") and before[name].ndim == 5)
    assert any("100.00% of the encoder" in note for note in notes.notes)


def copied(decathlon, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(decathlon, folder)
    return folder


def finetune_short(config, folder, tmp_path, **options):
    config = config.override(steps=2, test_fraction=0.0, validation_fraction=0.0)
    return modelsgenesis.finetune(folder, tmp_path / "run", config=config, device="cpu", **options)


def test_a_label_that_does_not_match_is_left_out_and_said(decathlon, tmp_path, finetuning_config):
    folder = copied(decathlon, tmp_path)
    names = sorted(path.name for path in (folder / "labelsTr").iterdir())
    label = nib.load(folder / "labelsTr" / names[0])
    values = np.asanyarray(label.dataobj)
    nib.save(nib.Nifti1Image(values[:-1], label.affine), folder / "labelsTr" / names[0])
    nib.save(nib.Nifti1Image(values, label.affine + np.eye(4)), folder / "labelsTr" / names[1])
    nib.save(nib.Nifti1Image(values + 5, label.affine), folder / "labelsTr" / names[2])
    (folder / "imagesTr" / names[3]).write_bytes(b"junk")
    notes = Notes()
    run, _ = finetune_short(finetuning_config, folder, tmp_path, reporter=notes)
    said = [note for note in notes.notes if note.startswith("left out")]
    assert len(said) == 4
    assert "ball_000" in said[0]
    assert "is not the (28, 24, 20)" in said[0]
    assert "its affine is up to" in said[1]
    assert "label values [5, 6, 7] are not among [0, 1, 2]" in said[2]
    assert load_bundle(run).config.provenance.data["training_patients"] == 2
    with pytest.raises(ScanError, match="ball_000"):
        modelsgenesis.finetune(
            folder,
            tmp_path / "strict",
            config=finetuning_config.override(test_fraction=0.0, split_seed=1),
            device="cpu",
            strict=True,
        )


def test_refuses_what_cannot_be_trained(decathlon, tmp_path, finetuning_config):
    with pytest.raises(DataError, match="no such folder"):
        modelsgenesis.finetune(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(DataError, match="no known layout"):
        modelsgenesis.finetune(tmp_path, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="task: received 'det'"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", task="det")
    with pytest.raises(DataError, match="6 labelled patients leave none to train on"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", config=finetuning_config.override(test_fraction=1.0))
    twice = Split(training=("ball_000", "ball_001"), validation=(), test=("ball_001",))
    with pytest.raises(DataError, match="'ball_001' in two parts"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", config=finetuning_config, split=twice)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(TrainingError, match="is not empty"):
        modelsgenesis.finetune(decathlon, tmp_path / "full")


def test_without_data_the_embedded_sample_is_used_and_that_is_said_first(tmp_path, finetuning_config):
    notes = Notes()
    config = SAMPLE_CONFIG.override(steps=1, batch_size=1, network=finetuning_config.network, overlap=0.0, workers=0)
    run, measured = modelsgenesis.finetune(None, tmp_path / "run", config=config, device="cpu", reporter=notes)
    assert notes.notes[0] == (
        "no data given: fine-tuning on the embedded sample of two CT patients, which proves nothing"
    )
    assert {"dice", "dice liver", "dice spleen", "dice back muscles"} <= set(measured)
    assert load_bundle(run).config.labels == ("background", "liver", "spleen", "back muscles")


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    """Two classes of small pictures, two of each patient: pale and dark."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for label, brightness in (("dark", 40), ("pale", 180)):
        (folder / label).mkdir()
        for index in range(16):
            pixels = random.integers(0, 40, (20, 24)).astype(np.uint8) + np.uint8(10)
            pixels[5:15, 5:15] = brightness
            Image.fromarray(pixels).save(folder / label / f"{label}{index // 2:02d}_{index % 2:03d}.png")
    return folder


CLASSIFY = ClassificationConfig(
    network=GenesisUNetConfig(dims=3, widths=(4, 8), norm="instance"),
    steps=30,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    validate_every=15,
    hidden=0,
    levels=(0, 1),
    workers=0,
    precision="float32",
    validation_fraction=0.2,
    bootstrap=50,
)


def test_learns_to_classify_from_folders_and_finds_the_task(class_folders, tmp_path):
    run, measured = modelsgenesis.finetune(
        class_folders, tmp_path / "run", config=CLASSIFY, modality="xray", device="cpu", labels="8"
    )
    results = read_measurements(run)
    assert measured["auc"] > 0.9
    assert (results["task"], results["labels"]) == ("classification", ["dark", "pale"])
    assert results["split"]["training"]["patients"] == 8
    assert results["split"]["training"]["cases"] == 16
    assert load_bundle(run).config.network.encoder.dims == 2  # as the images, whatever the configuration's network
    again, _ = modelsgenesis.finetune(
        class_folders,
        tmp_path / "again",
        config=CLASSIFY.override(steps=1, split_seed=5),
        split=run / "split.json",
        modality="xray",
        device="cpu",
        draw=False,
    )
    assert read_measurements(again)["split"] == results["split"]


def test_prediction_brings_images_to_the_size_as_training_did(class_folders, number_format, tmp_path):
    """Whatever training computed in: results are measured and predicted in float32."""
    config = CLASSIFY.override(steps=1, fit="crop", patch_size=(12, 12), precision="auto")
    run, _ = modelsgenesis.finetune(
        class_folders, tmp_path / "run", config=config, modality="xray", device="cpu", draw=False
    )
    row = read_rows(run / "test.csv")[0]
    case = class_folders / row["class"] / f"{row['case']}.png"
    scores = modelsgenesis.predict(run, case, output=tmp_path / "answer.csv", device="cpu").scores
    assert scores == pytest.approx({name: row[f"probability {name}"] for name in ("dark", "pale")}, abs=1e-6)
    assert number_format in load_bundle(run).config.provenance.environment["hardware"]
    assert read_measurements(run)["precision"] == "float32"


def test_trains_every_fold_puts_them_together_and_goes_on(class_folders, tmp_path):
    config = CLASSIFY.override(steps=2, folds=2)
    options = {"modality": "xray", "device": "cpu", "draw": False}
    output, measured = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **options)
    assert output == tmp_path / "run"
    results = read_measurements(output)
    assert (results["patients"], results["cases"]) == (16, 32)
    assert results["test"]["accuracy"]["value"] == measured["accuracy"]
    names = [row["case"] for row in read_rows(output / "test.csv")]
    assert len(set(names)) == len(names) == 32
    (output / "fold1" / "results.json").unlink()
    notes = Notes()
    again = modelsgenesis.finetune(class_folders, output, config=config, resume=True, reporter=notes, **options)
    assert again == (output, measured)
    assert any("fold0: the run is finished" in note for note in notes.notes)
    assert "fold 1, 2 of 2: going on" in notes.notes


def test_trains_one_fold_alone(class_folders, tmp_path):
    config = CLASSIFY.override(steps=1, folds=2, fold=1)
    options = {"modality": "xray", "device": "cpu", "draw": False}
    run, _ = modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **options)
    assert run == tmp_path / "run" / "fold1"
    assert not (tmp_path / "run" / "results.json").exists()
    with pytest.raises(TrainingError, match=r"fold1: holds a run already"):
        modelsgenesis.finetune(class_folders, tmp_path / "run", config=config, **options)
    modelsgenesis.finetune(class_folders, tmp_path / "run", config=config.override(fold=0), **options)
    modelsgenesis.finetune(class_folders, tmp_path / "run", config=config.override(fold=None), resume=True, **options)
    assert read_measurements(tmp_path / "run")["cases"] == 32


def test_a_signal_in_a_fold_says_how_to_go_on_with_all_of_them(class_folders, tmp_path):
    class Stopped(Notes):
        def step(self, step, *_):
            if step == 2 and any(note.startswith("fold 1") for note in self.notes):
                signal.raise_signal(signal.SIGTERM)

    config = CLASSIFY.override(steps=4, folds=2)
    options = {"config": config, "modality": "xray", "device": "cpu", "draw": False}
    with pytest.raises(Interrupted, match=r"interrupted in fold 1 of 2, .* --resume --output .*run$") as stopped:
        modelsgenesis.finetune(class_folders, tmp_path / "run", reporter=Stopped(), **options)
    assert stopped.value.signum == signal.SIGTERM
    _, measured = modelsgenesis.finetune(class_folders, tmp_path / "run", resume=True, **options)
    _, whole = modelsgenesis.finetune(class_folders, tmp_path / "whole", **options)
    assert measured == whole


def test_refuses_to_be_one_of_several_processes(decathlon, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="finetune runs in one process: start it without torchrun"):
        modelsgenesis.finetune(decathlon, tmp_path / "run")


def test_refuses_folds_that_cannot_be(class_folders, tmp_path):
    config = CLASSIFY.override(folds=2)
    with pytest.raises(ConfigurationError, match="folds: received 2 beside a split; each fold is a test part"):
        modelsgenesis.finetune(
            class_folders, tmp_path / "run", config=config, split=Split((), (), ()), modality="xray", device="cpu"
        )
    with pytest.raises(ResumeError, match="holds no fold to resume"):
        modelsgenesis.finetune(
            class_folders, tmp_path / "run", config=config, resume=True, modality="xray", device="cpu"
        )
    with pytest.raises(ConfigurationError, match="folds: received 99, expected at most the 16 patients"):
        modelsgenesis.finetune(
            class_folders, tmp_path / "run", config=config.override(folds=99), modality="xray", device="cpu"
        )


def test_refuses_labels_and_tasks_that_the_data_has_not(class_folders, decathlon, tmp_path):
    with pytest.raises(ConfigurationError, match=r"labels: received 99, expected 1 to the .* training patients"):
        modelsgenesis.finetune(
            class_folders, tmp_path / "run", config=CLASSIFY, labels="99", modality="xray", device="cpu"
        )
    with pytest.raises(DataError, match="labels are for segmentation; classification was asked for"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", task="cls")
    with pytest.raises(ConfigurationError, match="received a ClassificationConfig, expected a SegmentationConfig"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", config=CLASSIFY, device="cpu")
    with pytest.raises(DataError, match="no training example of"):
        modelsgenesis.finetune(
            class_folders, tmp_path / "run", config=CLASSIFY, labels="1", modality="xray", device="cpu"
        )
