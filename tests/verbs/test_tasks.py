import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, TrainingError, UnreadableScanError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.verbs.tasks import SAMPLE_CONFIG

NETWORK = GenesisUNetConfig(widths=(16, 32), norm="instance")
TINY = SegmentationConfig(
    network=NETWORK,
    patch_size=(16, 16, 12),
    steps=60,
    batch_size=8,
    learning_rate=3e-3,
    warmup_steps=5,
    validate_every=30,
    samples_per_scan=4,
    augment=False,
    overlap=0.25,
    workers=0,
    precision="float32",
)


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def genesis(ct_folder, tmp_path_factory):
    config = PretrainingConfig(
        network=NETWORK,
        patch_size=(16, 16, 12),
        steps=2,
        batch_size=2,
        samples_per_scan=2,
        validation_samples=2,
        workers=0,
    )
    return modelsgenesis.pretrain(
        ct_folder, tmp_path_factory.mktemp("genesis") / "run", config=config, modality="ct", device="cpu"
    )


@pytest.fixture(scope="module")
def finetuned(decathlon, genesis, tmp_path_factory):
    return modelsgenesis.finetune(
        decathlon, tmp_path_factory.mktemp("finetuned") / "run", init=genesis, config=TINY, device="cpu"
    )


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


def test_predicts_in_the_shape_and_affine_of_the_scan_bit_for_bit(finetuned, decathlon, tmp_path):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    prediction = modelsgenesis.predict(
        finetuned[0], path, output=tmp_path / "seg.nii.gz", probabilities=tmp_path / "soft.nii.gz", device="cpu"
    )
    scan, answer, soft = nib.load(path), nib.load(tmp_path / "seg.nii.gz"), nib.load(tmp_path / "soft.nii.gz")
    assert answer.shape == scan.shape
    assert answer.affine.tobytes() == scan.affine.tobytes()
    assert soft.shape == (*scan.shape, 3)
    labels = np.asanyarray(answer.dataobj)
    assert np.array_equal(labels, prediction.labels)
    assert np.array_equal(np.asanyarray(soft.dataobj).argmax(-1), labels)
    assert prediction.voxels == {"bright": int((labels == 1).sum()), "dark": int((labels == 2).sum())}
    truth = np.asanyarray(nib.load(decathlon / "labelsTr" / path.name).dataobj)
    assert 2 * ((labels == 1) & (truth == 1)).sum() / ((labels == 1).sum() + (truth == 1).sum()) > 0.6


@pytest.mark.parametrize("codes", ["LPS", "SPR", "ARI"])
def test_another_orientation_of_the_same_scan_gives_the_same_answer(finetuned, decathlon, tmp_path, codes):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    scan = nib.load(path)
    change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes))
    turned = scan.as_reoriented(change)
    nib.save(turned, tmp_path / "turned.nii.gz")
    straight = modelsgenesis.predict(finetuned[0], path, output=tmp_path / "a.nii.gz", device="cpu")
    modelsgenesis.predict(finetuned[0], tmp_path / "turned.nii.gz", output=tmp_path / "b.nii.gz", device="cpu")
    answer = nib.load(tmp_path / "b.nii.gz")
    assert answer.shape == turned.shape
    np.testing.assert_allclose(answer.affine, turned.affine, atol=1e-4)
    back = np.asanyarray(
        nib.load(tmp_path / "b.nii.gz")
        .as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(answer.affine), nib.io_orientation(scan.affine))
        )
        .dataobj
    )
    assert np.array_equal(back, straight.labels)


def test_predicts_a_scan_smaller_than_the_patch(finetuned, decathlon, tmp_path):
    scan = nib.load(sorted((decathlon / "imagesTr").iterdir())[0])
    nib.save(scan.slicer[4:14, 5:20, 3:10], tmp_path / "small.nii.gz")
    prediction = modelsgenesis.predict(
        finetuned[0], tmp_path / "small.nii.gz", output=tmp_path / "seg.nii.gz", device="cpu"
    )
    assert prediction.labels.shape == (10, 15, 7)


def test_the_control_has_the_shape_of_the_genesis_and_random_weights(genesis, decathlon, tmp_path):
    notes = Notes()
    run, _ = modelsgenesis.finetune(
        decathlon,
        tmp_path / "run",
        init=genesis,
        from_scratch=True,
        config=TINY.override(steps=2, network=GenesisUNetConfig()),
        device="cpu",
        reporter=notes,
    )
    config = load_bundle(run).config
    assert config.network.widths == NETWORK.widths
    assert config.provenance.init is None
    assert any("random weights in the shape of run" in note for note in notes.notes)


def test_a_frozen_encoder_stays(genesis, decathlon, tmp_path):
    run, _ = modelsgenesis.finetune(
        decathlon, tmp_path / "run", init=genesis, config=TINY.override(steps=3, freeze_encoder=True), device="cpu"
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


def finetune_short(folder, tmp_path, **options):
    config = TINY.override(steps=2, test_fraction=0.0, validation_fraction=0.0)
    return modelsgenesis.finetune(folder, tmp_path / "run", config=config, device="cpu", **options)


def test_a_label_that_does_not_match_is_left_out_and_said(decathlon, tmp_path):
    folder = copied(decathlon, tmp_path)
    names = sorted(path.name for path in (folder / "labelsTr").iterdir())
    label = nib.load(folder / "labelsTr" / names[0])
    values = np.asanyarray(label.dataobj)
    nib.save(nib.Nifti1Image(values[:-1], label.affine), folder / "labelsTr" / names[0])
    nib.save(nib.Nifti1Image(values, label.affine + np.eye(4)), folder / "labelsTr" / names[1])
    nib.save(nib.Nifti1Image(values + 5, label.affine), folder / "labelsTr" / names[2])
    (folder / "imagesTr" / names[3]).write_bytes(b"junk")
    notes = Notes()
    run, _ = finetune_short(folder, tmp_path, reporter=notes)
    said = [note for note in notes.notes if note.startswith("left out")]
    assert len(said) == 4
    assert "ball_000" in said[0]
    assert "is not the (28, 24, 20)" in said[0]
    assert "its affine is up to" in said[1]
    assert "label values [5, 6, 7] are not among [0, 1, 2]" in said[2]
    assert load_bundle(run).config.provenance.data["training_patients"] == 2
    with pytest.raises(ScanError, match="ball_000"):
        modelsgenesis.finetune(
            folder, tmp_path / "strict", config=TINY.override(test_fraction=0.0, seed=1), device="cpu", strict=True
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


def test_refuses_what_cannot_be_trained(decathlon, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        modelsgenesis.finetune(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(DataError, match=r"no dataset\.json"):
        modelsgenesis.finetune(tmp_path, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="task: received 'det'"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", task="det")
    with pytest.raises(DataError, match="6 labelled patients leave none to train on"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", config=TINY.override(test_fraction=1.0))
    twice = Split(training=("ball_000", "ball_001"), validation=(), test=("ball_001",))
    with pytest.raises(DataError, match="'ball_001' in two parts"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", config=TINY, split=twice)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(TrainingError, match="is not empty"):
        modelsgenesis.finetune(decathlon, tmp_path / "full")


def test_prediction_refuses_the_wrong_model_and_bad_scans(genesis, finetuned, tmp_path):
    with pytest.raises(ConfigurationError, match=r"the model is for restoration: .*fine-tuned with --task seg"):
        modelsgenesis.predict(genesis, tmp_path / "scan.nii.gz")
    with pytest.raises(UnreadableScanError, match=r"scan\.nii\.gz: there is no such file"):
        modelsgenesis.predict(finetuned[0], tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigurationError, match="received 2 files, expected 1"):
        modelsgenesis.predict(finetuned[0], ["a.nii.gz", "b.nii.gz"])


def test_without_data_the_embedded_sample_is_used_and_that_is_said_first(tmp_path):
    notes = Notes()
    config = SAMPLE_CONFIG.override(steps=1, batch_size=1, network=NETWORK, overlap=0.0, workers=0)
    run, measured = modelsgenesis.finetune(None, tmp_path / "run", config=config, device="cpu", reporter=notes)
    assert notes.notes[0] == (
        "no data given: fine-tuning on the embedded sample of two CT patients, which proves nothing"
    )
    assert set(measured) == {"dice", "dice liver", "dice spleen", "dice back muscles"}
    assert load_bundle(run).config.labels == ("background", "liver", "spleen", "back muscles")


def test_a_4d_scan_is_refused_by_its_name(finetuned, decathlon, tmp_path):
    scan = nib.load(sorted((decathlon / "imagesTr").iterdir())[0])
    voxels = np.stack([np.asanyarray(scan.dataobj)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(voxels, scan.affine), tmp_path / "two_times.nii.gz")
    with pytest.raises(ScanError, match=r"two_times\.nii\.gz.*2 volumes"):
        modelsgenesis.predict(finetuned[0], tmp_path / "two_times.nii.gz", output=tmp_path / "seg.nii.gz")
