import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, TrainingError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.verbs.finetuning import SAMPLE_CONFIG


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_learns_to_segment_held_out_patients(finetuned):
    run, measured = finetuned
    assert measured["dice"] > 0.7
    assert set(measured) == {"dice", "dice bright", "dice dark"}
    with (run / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert measured["dice bright"] == pytest.approx(np.mean([float(row["dice bright"]) for row in rows]))


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


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "cannot be read as a dataset.json"),
        ("[]", "expected keys labels"),
        ('{"labels": {"0": "background"}, "training": []}', "its training list is empty"),
        ('{"labels": {"1": "organ"}, "training": []}', "labels has no value 0 for the background"),
        (
            '{"labels": {"0": "b"}, "training": [{"image": "a.nii", "label": "b.nii"}]}',
            "lists 2 files that are not there, such as .*a.nii",
        ),
    ],
)
def test_says_what_is_wrong_with_a_dataset_json(tmp_path, description, message):
    (tmp_path / "dataset.json").write_text(description)
    with pytest.raises(DataError, match=message):
        modelsgenesis.finetune(tmp_path, tmp_path / "run")


def test_refuses_what_cannot_be_trained(decathlon, tmp_path, finetuning_config):
    with pytest.raises(DataError, match="no such folder"):
        modelsgenesis.finetune(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(DataError, match=r"no dataset\.json"):
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
    assert set(measured) == {"dice", "dice liver", "dice spleen", "dice back muscles"}
    assert load_bundle(run).config.labels == ("background", "liver", "spleen", "back muscles")
