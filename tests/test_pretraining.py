"""From a folder of scans to a bundle: data, initial weights, exclusion of test cases, resuming."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from modelsgenesis import from_pretrained, load_bundle, pretrain, save_bundle
from modelsgenesis.configs import CONTRACTS, SCHEMES, ClassifierConfig, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, MissingExtraError, ScanError, TrainingError
from modelsgenesis.pretraining import read_run
from recorded_notes import Notes
from tiny_bundles import make_bundle

NETWORK = GenesisUNetConfig(widths=(4, 8), norm="instance")
TINY = PretrainingConfig(network=NETWORK, patch_size=(16, 16, 12), steps=4, batch_size=2, samples_per_scan=3).override(
    validate_every=2, validation_samples=3, warmup_steps=1, workers=0, precision="float32"
)
CPU = {"device": "cpu"}


class Stopping(Notes):
    """Collects notes and sends a signal after a step."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def step(self, step, loss, samples_per_second, waiting):
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)


def write_weights(folder, network=NETWORK, contract=CONTRACTS["ct"], task="restoration", labels=()):
    contract = contract.override(channels=("t1", "t2")[: network.unet.in_channels])
    return save_bundle(folder, make_bundle(network, input=contract, task=task, labels=labels))


def write_noise(folder, high):
    folder.mkdir()
    for index in range(2):
        values = np.random.default_rng(index).uniform(0, high, (24, 24, 16)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"m{index}.nii.gz")
    return folder


def test_a_folder_of_scans_becomes_a_bundle_that_loads(ct_folder, tmp_path):
    run = pretrain(ct_folder, tmp_path / "run", config=TINY, cache=tmp_path / "cache", **CPU)
    assert read_run(run).config == TINY.with_data(source=ct_folder, cache=tmp_path / "cache")
    network = from_pretrained(run)
    assert network(torch.rand(1, 1, 16, 16, 12)).shape == (1, 1, 16, 16, 12)
    config = network.config
    assert (config.task, config.input.modality, config.patch_size) == ("restoration", "ct", (16, 16, 12))
    provenance = config.provenance
    assert (provenance.data["training_scans"], provenance.data["validation_scans"]) == (3, 1)
    losses = {"restoration_loss", "identity_loss", "mean_image_loss"}
    assert set(provenance.results) == {*losses, "step", "samples", "seed", "collapsed", "remarks"}
    assert "that of always predicting the mean image" in provenance.results["remarks"][0]
    assert "- on validation patches the loss is" in (run / "README.md").read_text()
    assert provenance.environment["hours"] > 0
    assert {"hardware", "python", "torch"} <= set(provenance.environment)
    assert (run / "figures" / "restorations.png").stat().st_size > 10_000
    drawn = {path.name for path in (run / "figures").rglob("*.png")}
    assert drawn == {"step_000002.png", "step_000004.png", "restorations.png", "curve.png"}
    header = (run / "validation.csv").read_text().splitlines()[0]
    assert header == "step,restoration_loss,identity_loss,mean_image_loss,output_spread,collapsed"
    for name in ("config.json", "README.md"):  # no name of a scan, and no path, leaves the run
        text = (run / name).read_text()
        assert not re.search(rf"patient\d|{ct_folder}|{tmp_path}", text)
    assert "figures/restorations.png" in text


def test_tensorboard_that_is_not_installed_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[tensorboard\]'"):
        pretrain("nowhere", tmp_path / "other", tensorboard=True, **CPU)


@pytest.mark.parametrize("call", ["__init__", "add_scalar", "close"])
def test_a_full_disk_costs_pictures_and_events_but_not_the_run(ct_folder, tmp_path, monkeypatch, call):
    full, notes = Mock(side_effect=OSError(28, "No space left on device")), Notes()
    monkeypatch.setattr(SummaryWriter, call, full)
    monkeypatch.setattr(shutil, "copyfile", full)
    run = pretrain(ct_folder, tmp_path / "run", config=TINY, reporter=notes, tensorboard=True, **CPU)
    assert (notes.text.count("for TensorBoard: [Errno 28]"), "figure is missing: No space" in notes.text) == (1, True)
    assert len((run / "log.csv").read_text().splitlines()) == 5


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(ct_folder, tmp_path):
    configs = (TINY, TINY.override(workers=2), TINY.override(seed=1))
    runs = [pretrain(ct_folder, tmp_path / str(number), config=one, **CPU) for number, one in enumerate(configs)]
    first, second, other = ((run / "model.safetensors").read_bytes() for run in runs)
    assert first == second
    assert first != other


def test_one_bad_scan_among_many_is_left_out_and_said(ct_folder, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(ct_folder, folder)
    whole = (folder / "patient0.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), np.eye(4)), folder / "constant.nii.gz")
    nib.save(nib.load(ct_folder / "patient1.nii.gz").slicer[4:12], folder / "small.nii.gz")
    notes = Notes()
    run = pretrain(folder, tmp_path / "run", config=TINY, reporter=notes, **CPU)
    said = "\n".join(note for note in notes.notes if note.startswith("skipped"))
    for name in ("truncated", "constant", "small"):
        assert said.count(f"{name}.nii.gz") == 1, said
    assert "8×24×20 voxels do not hold a patch of 16×16×12" in said
    assert "patch_size=8,16,12 would fit all" in notes.text
    assert load_bundle(run).config.provenance.data["training_scans"] == 3
    with pytest.raises(ScanError, match=r"\.nii\.gz"):
        pretrain(folder, tmp_path / "strict", config=TINY, strict=True, **CPU)


@pytest.mark.parametrize(
    ("source", "output", "options", "error", "words"),
    [
        ("{ct}", "full", {}, TrainingError, "is not empty; choose a new folder"),
        ("{ct}", "full/notes.txt", {}, TrainingError, "choose another folder for the output"),
        ("nowhere", "run", {}, DataError, "nowhere"),
        ("full", "run", {}, DataError, "no usable scan"),
        (None, "run", {}, ConfigurationError, "source: received nothing, expected the scans"),
        ("{ct}", "run", {"modalty": "ct"}, ConfigurationError, "did you mean modality"),
        ("{ct}", "run", {"config": TINY.override(patch_size=(64, 16, 64))}, DataError, "patch_size=28,16,20 would fit"),
        ("{ct}", "run", {"config": TINY.override(patch_size=(17, 16, 12))}, ConfigurationError, "=16,16,12"),
        ("{ct}", "run", {"exclude_test_cases": "no.json"}, DataError, "no such file"),
    ],
)
def test_refuses_what_cannot_be_trained_on(ct_folder, tmp_path, monkeypatch, source, output, options, error, words):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    with pytest.raises(error, match=words):
        pretrain(source and source.format(ct=ct_folder), output, **{"config": TINY, **CPU, **options})
    assert Path("full/notes.txt").read_text() == "mine"
    assert not Path("run").exists()


def test_a_scheme_without_deformations_runs_and_that_is_said(ct_folder, tmp_path):
    notes = Notes()
    config = TINY.override(pretext=SCHEMES["identity"], steps=1)
    run = pretrain(ct_folder, tmp_path / "run", config=config, modality="ct", reporter=notes, **CPU)
    provenance = load_bundle(run).config.provenance
    assert PretrainingConfig.from_dict(provenance.recipe) == config
    assert provenance.results["identity_loss"] == 0
    assert "this trains an autoencoder" in notes.text


def test_a_batch_larger_than_the_data_and_no_held_out_patient_are_said(ct_folder, tmp_path):
    notes, config = Notes(), TINY.override(steps=1, batch_size=4)
    run = pretrain(ct_folder / "patient0.nii.gz", tmp_path / "run", config=config, reporter=notes, **CPU)
    assert "a batch of 4 is more than the" in notes.text
    assert "no patient is held out" in notes.text
    assert load_bundle(run).config.provenance.data["held_out"] is False


# Initial weights.


def test_initial_weights_bring_network_input_and_head_and_the_card_names_them(ct_folder, tmp_path):
    init = write_weights(tmp_path / "first", contract=CONTRACTS["ct"].override(window=(-500.0, 500.0)))
    config = TINY.override(network=GenesisUNetConfig(widths=(8, 16)), steps=2)
    run = pretrain(ct_folder, tmp_path / "run", config=config, init=init, **CPU)
    before, after = load_bundle(init), load_bundle(run)
    assert after.config.network == before.config.network
    assert after.config.input.window == (-500, 500)
    assert after.config.provenance.init == "first"
    assert " | first |" in (run / "README.md").read_text()
    weights = [bundle.network.state_dict()["head.weight"] for bundle in (before, after)]
    torch.testing.assert_close(*weights, atol=0.05, rtol=0)  # two steps away


@pytest.mark.parametrize(
    ("network", "task", "labels"),
    [
        (NETWORK.override(out_channels=3, output="linear", in_channels=2), "segmentation", ("background", "a", "b")),
        (ClassifierConfig(encoder=NETWORK, num_classes=2, hidden=4), "classification", ("a", "b")),
    ],
)
def test_weights_of_another_task_get_a_new_head_and_that_is_said(ct_folder, tmp_path, network, task, labels):
    notes = Notes()
    init = write_weights(tmp_path / "tuned", network, task=task, labels=labels)
    run = pretrain(ct_folder, tmp_path / "run", config=TINY.override(steps=1), init=init, reporter=notes, **CPU)
    assert load_bundle(run).config.network == NETWORK
    assert f"tuned was trained for {task}: its head is replaced" in notes.text
    pretrained = read_run(run).pretrained
    assert not any(name.startswith("head") for name in pretrained)
    assert any(name.startswith("encoder") for name in pretrained)


CT = CONTRACTS["ct"].override(window=(-200.0, 300.0), spacing=(2.0, 2.0, 2.0))
STANDARDIZED = CONTRACTS["ct"].override(intensity="standardize", window=None, mean=-700.0, deviation=250.0)


@pytest.mark.parametrize(
    ("scans", "contract", "options", "expected", "words"),
    [
        ("ct", CT, {}, {"window": (-200, 300), "spacing": (2, 2, 2)}, "prepared as for first"),
        ("ct", CT, {"spacing": (3, 3, 3)}, {"window": (-200, 300), "spacing": (3, 3, 3)}, "but for what was changed"),
        ("ct", CT, {"window": (-100, 100)}, {"window": (-100, 100), "intensity": "window"}, "but for what was changed"),
        ("ct", STANDARDIZED, {}, {"intensity": "window", "window": (-1000, 1000)}, "but for what was changed"),
        ("mri", CT, {}, {"modality": "mri"}, "warning: first was trained on ct, the scans are mri"),
        ("unclear", CONTRACTS["mri"], {}, {"modality": "mri"}, "taking mri, which first expects"),
    ],
)
def test_the_input_of_the_weights_is_kept_where_the_scans_are_alike(
    ct_folder, tmp_path, scans, contract, options, expected, words
):
    folder = ct_folder if scans == "ct" else write_noise(tmp_path / scans, 9000 if scans == "mri" else 200)
    notes, init = Notes(), write_weights(tmp_path / "first", contract=contract)
    config = TINY.override(steps=1, patch_size=(8, 8, 8))
    run = pretrain(folder, tmp_path / "run", config=config, init=init, reporter=notes, **options, **CPU)
    chosen = load_bundle(run).config.input
    assert {name: getattr(chosen, name) for name in expected} == expected
    assert words in notes.text


def test_images_of_two_dimensions_need_a_network_of_two(ct_folder, tmp_path):
    flat = write_weights(tmp_path / "flat", NETWORK.override(dims=2), CONTRACTS["xray"])
    with pytest.raises(ConfigurationError, match=r"flat is a network of 2 dimensions.*set patch_size=16,16"):
        pretrain(ct_folder, tmp_path / "run", config=TINY, init=flat, **CPU)
    planes, two = tmp_path / "xrays", TINY.override(network=NETWORK.override(dims=2), patch_size=(32, 32))
    planes.mkdir()
    for index in range(3):
        smooth = np.kron(np.random.default_rng(index).integers(20, 250, (8, 8)), np.ones((8, 8)))
        Image.fromarray(smooth.astype(np.uint8)).save(planes / f"x{index}.png")
    run = pretrain(planes, tmp_path / "run", config=two, modality="xray", **CPU)
    assert from_pretrained(run)(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    for init, words in ((None, "set network.dims=2"), (write_weights(tmp_path / "deep"), "deep has 3 dimensions")):
        with pytest.raises(ConfigurationError, match=words):
            pretrain(planes, tmp_path / "other", config=TINY, modality="xray", init=init, **CPU)


def test_a_pretraining_never_sees_the_test_cases_of_other_runs_and_counts_them(ct_folder, tmp_path):
    recorded = tmp_path / "split.json"
    recorded.write_text(json.dumps({"training": [], "validation": [], "test": ["patient1"]}))
    run = pretrain(ct_folder, tmp_path / "run", config=TINY.override(steps=1), exclude_test_cases=recorded, **CPU)
    seen = [name for names in read_run(run).split.values() for name in names]
    assert len(seen) == 3
    assert not any("patient1" in name for name in seen)
    assert load_bundle(run).config.provenance.data["left_out_test_scans"] == 1


# Resuming.


@pytest.fixture
def interrupted(ct_folder, tmp_path):
    """A run with options of its own, ended by a signal at step 3."""
    named = {"window": (-500, 500), "validation_source": ct_folder / "patient2.nii.gz", "cache": tmp_path / "cache"}
    with pytest.raises(Interrupted):
        pretrain(ct_folder, tmp_path / "run", config=TINY, reporter=Stopping(at=3), tensorboard=True, **named, **CPU)
    return tmp_path / "run"


def test_a_resume_needs_nothing_but_the_folder_and_is_exact_to_the_bit(interrupted, ct_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = interrupted / "README.md"
    card.write_text(card.read_text().replace("FILL IN the data set or hospital", "Our hospital"))
    pretrain(None, "run", resume=True, tensorboard=True, **CPU)
    assert "Our hospital" in card.read_text()  # a person's words stay
    record = read_run(interrupted)
    assert record.finished
    assert record.config.data.source == (str(ct_folder),)
    assert record.split["validation"] == (str(ct_folder / "patient2.nii.gz"),)
    whole = pretrain(None, tmp_path / "whole", config=record.config, **CPU)
    for name in ("model.safetensors", "validation.csv"):
        assert (whole / name).read_bytes() == (interrupted / name).read_bytes()
    assert load_bundle(whole).config.input.window == (-500, 500)
    events = EventAccumulator(str(interrupted / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("validation/restoration_loss")] == [2, 4]


def test_a_finished_run_is_left_as_it_is_and_another_configuration_refused(interrupted, ct_folder):
    with pytest.raises(TrainingError, match=r"modality was auto, now mri; data\.window was \[-500.0, 500.0\], now"):
        pretrain(ct_folder, interrupted, modality="mri", window=(-1000, 1000), resume=True, **CPU)
    pretrain(ct_folder, interrupted, config=TINY.override(checkpoint_every=1), resume=True, **CPU)
    before = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*") if path.is_file()}
    notes = Notes()
    assert pretrain(None, interrupted, resume=True, reporter=notes, **CPU) == interrupted
    assert notes.notes == [f"{interrupted}: the run is finished, there is nothing left to resume"]
    assert {path: path.stat().st_mtime_ns for path in interrupted.rglob("*") if path.is_file()} == before
    with pytest.raises(TrainingError, match=r"another configuration: batch_size was 2, now 3; seed was 0, now 1$"):
        pretrain(None, interrupted, config=TINY.override(batch_size=3, seed=1), resume=True, **CPU)
    path = interrupted / "run.json"
    path.write_text(path.read_text().replace('"workers"', '"nonfinite"'))
    with pytest.raises(TrainingError, match=r"nonfinite: no such setting: the run is of .* --init \S+run "):
        pretrain(None, interrupted, resume=True, **CPU)


def test_a_resume_refuses_scans_that_came_and_needs_no_initial_weights(ct_folder, tmp_path):
    folder, init = shutil.copytree(ct_folder, tmp_path / "scans"), write_weights(tmp_path / "first")
    other = TINY.override(network=GenesisUNetConfig(widths=(8, 16)))
    with pytest.raises(Interrupted):
        pretrain(folder, tmp_path / "run", config=other, init=init, reporter=Stopping(at=1), **CPU)
    init.rename(tmp_path / "elsewhere")
    added = shutil.copyfile(ct_folder / "patient3.nii.gz", folder / "patient9.nii.gz")
    with pytest.raises(TrainingError, match="other scans or another split"):
        pretrain(None, tmp_path / "run", resume=True, **CPU)
    added.unlink()
    config = load_bundle(pretrain(None, tmp_path / "run", config=other, resume=True, **CPU)).config
    assert (config.network.widths, config.provenance.init) == ((4, 8), "first")
