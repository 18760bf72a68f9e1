import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import SCHEMES, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, DataError, ScanError, TrainingError
from modelsgenesis.training import Run
from recorded_notes import Notes

TINY = PretrainingConfig(
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
    patch_size=(16, 16, 12),
    steps=4,
    batch_size=2,
    samples_per_scan=3,
    validate_every=2,
    validation_samples=3,
    warmup_steps=1,
    workers=0,
)


def test_a_folder_of_scans_becomes_a_bundle_that_loads(ct_folder, tmp_path):
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu")
    network = modelsgenesis.from_pretrained(run)
    assert network(torch.rand(1, 1, 16, 16, 12)).shape == (1, 1, 16, 16, 12)
    config = network.bundle
    assert (config.task, config.input.modality, config.patch_size) == ("restoration", "ct", (16, 16, 12))
    assert config.provenance.data["training_scans"] == 3
    assert config.provenance.data["validation_scans"] == 1
    results = config.provenance.results
    losses = {"restoration_loss", "identity_loss", "mean_image_loss"}
    assert set(results) == {*losses, "step", "samples", "seed", "collapsed"}
    assert (run / "figures" / "restorations.png").stat().st_size > 10_000
    assert (run / "figures" / "curve.png").exists()
    assert "figures/restorations.png" in (run / "README.md").read_text()


def test_validates_on_the_scans_that_are_named_and_trains_on_the_others(ct_folder, tmp_path):
    named = ct_folder / "patient2.nii.gz"
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, validation_source=named, device="cpu")
    split = json.loads((run / "run.json").read_text())["split"]
    assert [name.endswith("patient2.nii.gz") for name in split["validation"]] == [True]
    assert len(split["training"]) == 3
    assert not any(name.endswith("patient2.nii.gz") for name in split["training"])


def test_no_name_of_a_scan_leaves_the_run(ct_folder, tmp_path):
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu")
    for name in ("config.json", "README.md"):
        text = (run / name).read_text()
        assert not re.search(r"patient\d", text)
        assert str(ct_folder) not in text
    split = json.loads((run / "run.json").read_text())["split"]
    assert len(split["training"]) == 3
    assert not set(split["training"]) & set(split["validation"])


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(ct_folder, tmp_path):
    config = TINY.override(precision="float32")
    first = modelsgenesis.pretrain(ct_folder, tmp_path / "first", config=config, device="cpu")
    second = modelsgenesis.pretrain(ct_folder, tmp_path / "second", config=config.override(workers=2), device="cpu")
    other = modelsgenesis.pretrain(ct_folder, tmp_path / "other", config=config.override(seed=1), device="cpu")
    weights = [load_bundle(run).network.state_dict() for run in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_goes_on_from_a_run_with_its_shape_and_contract(ct_folder, tmp_path):
    first = modelsgenesis.pretrain(ct_folder, tmp_path / "first", config=TINY, window=(-500, 500), device="cpu")
    config = TINY.override(network=GenesisUNetConfig(widths=(8, 16)))
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "second", config=config, init=first, device="cpu")
    bundle = load_bundle(run).config
    assert bundle.network.widths == (4, 8)
    assert bundle.input.window == (-500, 500)
    assert bundle.provenance.init == "first"


def test_pretrains_on_images_in_two_dimensions(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "xrays").mkdir()
    for index in range(3):
        smooth = np.kron(random.integers(20, 250, (8, 8)), np.ones((8, 8)))
        Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "xrays" / f"x{index}.png")
    config = TINY.override(network=GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"), patch_size=(32, 32))
    run = modelsgenesis.pretrain(tmp_path / "xrays", tmp_path / "run", config=config, modality="xray", device="cpu")
    assert modelsgenesis.from_pretrained(run)(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)


def test_one_bad_scan_among_many_is_left_out_and_said(ct_folder, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(ct_folder, folder)
    whole = (folder / "patient0.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "junk.nii.gz").write_bytes(b"no image at all")
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), affine), folder / "constant.nii.gz")
    nan = np.random.default_rng(0).normal(0, 500, (20, 20, 20)).astype(np.float32)
    nan[3] = np.nan
    nib.save(nib.Nifti1Image(nan, affine), folder / "nan.nii.gz")
    small = nib.load(ct_folder / "patient1.nii.gz").slicer[4:12]
    nib.save(small, folder / "small.nii.gz")
    notes = Notes()
    asked = {"config": TINY, "device": "cpu"}
    run = modelsgenesis.pretrain(folder, tmp_path / "run", **asked, reporter=notes)
    said = "\n".join(note for note in notes.notes if note.startswith("left out"))
    for name in ("truncated", "junk", "constant", "nan", "small"):
        assert said.count(f"{name}.nii.gz") == 1, said
    assert "8×24×20 voxels do not hold a patch of 16×16×12" in said
    assert "patch_size=8,16,12 would fit all 5 scans" in notes.notes
    assert load_bundle(run).config.provenance.data["training_scans"] == 3
    with pytest.raises(ScanError, match=r"\.nii\.gz"):
        modelsgenesis.pretrain(folder, tmp_path / "strict", **asked, strict=True)


def test_refuses_a_full_output_before_any_work(ct_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty; choose a new folder"):
        modelsgenesis.pretrain(ct_folder, tmp_path, config=TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_refuses_folders_without_scans(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        modelsgenesis.pretrain(tmp_path / "nowhere", tmp_path / "run", config=TINY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable scan"):
        modelsgenesis.pretrain(tmp_path / "empty", tmp_path / "run", config=TINY)
    assert not (tmp_path / "run").exists()


def test_refuses_a_patch_larger_than_every_scan_and_says_what_would_fit(ct_folder, tmp_path):
    message = r"no scan holds a sub-volume of \(64, 16, 64\): patch_size=28,16,20 would fit all 4 scans"
    with pytest.raises(DataError, match=message):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY.override(patch_size=(64, 16, 64)))


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_of_the_poster_runs_and_is_named_on_the_card(ct_folder, tmp_path, name):
    notes = Notes()
    # Shuffling needs a side of 20, and half of the samples are not shuffled.
    config = TINY.override(pretext=SCHEMES[name], steps=1, patch_size=(20, 20, 12), validation_samples=8)
    asked = {"config": config, "modality": "ct", "device": "cpu", "reporter": notes}
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", **asked)
    provenance = load_bundle(run).config.provenance
    assert PretrainingConfig.from_dict(provenance.recipe) == config
    assert f"Scheme {name}: " in (run / "README.md").read_text()
    assert (provenance.results["identity_loss"] == 0) is (name == "identity")
    assert any("this trains an autoencoder" in note for note in notes.notes) is (name == "identity")


def test_a_batch_larger_than_the_data_works_and_that_is_said(ct_folder, tmp_path):
    notes = Notes()
    config = TINY.override(batch_size=12, steps=1)
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config, device="cpu", reporter=notes)
    assert any("a batch of 12 is more than the 9 sub-volumes of an epoch" in note for note in notes.notes)
    assert (run / "model.safetensors").exists()


def test_without_validation_scans_it_says_that_nobody_is_held_out(ct_folder, tmp_path):
    notes = Notes()
    config = TINY.override(validation_fraction=0.0, steps=1)
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config, device="cpu", reporter=notes)
    assert any("nobody is held out" in note for note in notes.notes)
    assert load_bundle(run).config.provenance.data["held_out"] is False
    assert "Nobody was held out" in (run / "README.md").read_text()


def test_refuses_validation_scans_of_which_none_is_usable(ct_folder, tmp_path):
    junk = tmp_path / "junk.nii.gz"
    junk.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"junk\.nii\.gz: no usable scan"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, validation_source=junk, device="cpu")
    small = nib.load(ct_folder / "patient1.nii.gz").slicer[4:12]
    nib.save(small, tmp_path / "small.nii.gz")
    with pytest.raises(DataError, match="no usable scan is left to validate on among 4"):
        modelsgenesis.pretrain(
            ct_folder, tmp_path / "run", config=TINY, validation_source=tmp_path / "small.nii.gz", device="cpu"
        )


def test_refuses_an_output_that_cannot_be_a_folder_before_any_work(ct_folder, tmp_path):
    (tmp_path / "file").write_text("")
    notes = Notes()
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TrainingError, match=r"choose a.* folder for the output"):
            modelsgenesis.pretrain(ct_folder, output, config=TINY, reporter=notes)
    assert notes.notes == []


def test_a_full_disk_ends_the_run_with_its_bundle_intact(ct_folder, tmp_path, monkeypatch):
    config = TINY.override(steps=4)
    real, calls = Run.save_checkpoint, []

    def full(self, state):
        calls.append(state)
        if len(calls) == 2:
            raise CheckpointError(f"{self.folder}: cannot be written: No space left on device")
        real(self, state)

    monkeypatch.setattr(Run, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config, device="cpu")
    monkeypatch.undo()
    assert load_bundle(tmp_path / "run").config.provenance.results["step"] in (2, 4)
    modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config, device="cpu", resume=True)


def test_a_picture_that_cannot_be_drawn_never_ends_the_run(ct_folder, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modelsgenesis.training.watching.draw_restorations", full)
    monkeypatch.setattr("modelsgenesis.training.watching.draw_curve", full)
    notes = Notes()
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu", reporter=notes)
    assert sum(note.startswith("a figure is missing") for note in notes.notes) == 1
    assert "figures/" not in (run / "README.md").read_text()


def test_a_person_s_words_stay_when_the_run_goes_on(ct_folder, tmp_path):
    run = tmp_path / "run"
    modelsgenesis.pretrain(ct_folder, run, config=TINY.override(steps=2), device="cpu")
    card = run / "README.md"
    card.write_text(card.read_text().replace("FILL IN the data set or hospital", "Our hospital"))
    modelsgenesis.pretrain(ct_folder, tmp_path / "again", config=TINY, init=run, device="cpu")
    shutil.copy(card, tmp_path / "again" / "README.md")
    modelsgenesis.pretrain(ct_folder, tmp_path / "again", config=TINY, init=run, device="cpu", resume=True)
    assert "Our hospital" in (tmp_path / "again" / "README.md").read_text()


def test_every_validation_is_drawn_and_the_cost_is_on_the_card(ct_folder, tmp_path):
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu", tensorboard=True)
    drawn = sorted(path.name for path in (run / "figures" / "restorations").iterdir())
    assert drawn == ["step_000002.png", "step_000004.png"]
    environment = load_bundle(run).config.provenance.environment
    assert environment["wall_hours"] > 0
    assert {"cpu_hours", "hardware", "python", "torch"} <= set(environment)
    assert list((run / "tensorboard").glob("events.*"))
    header = (run / "validation.csv").read_text().splitlines()[0]
    assert header == "step,restoration_loss,identity_loss,mean_image_loss,output_spread,collapsed"


def test_one_patient_is_validated_on_other_sub_volumes_and_that_is_said(ct_folder, tmp_path):
    notes = Notes()
    modelsgenesis.pretrain(ct_folder / "patient0.nii.gz", tmp_path / "run", config=TINY, device="cpu", reporter=notes)
    assert any("nobody is held out" in note for note in notes.notes)


def test_refuses_a_device_that_is_not_there(ct_folder, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigurationError, match="there is no CUDA device; use --device cpu"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cuda")
