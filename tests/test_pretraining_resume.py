import json
import os
import signal

import pytest

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError, Interrupted, ResumeError
from modelsgenesis.pretraining import Request, complete, read_recorded
from modelsgenesis.reporting import Reporter

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
    precision="float32",
)


class Stopping(Reporter):
    """Collects notes and sends a signal after a step."""

    def __init__(self, at=None):
        self.at, self.notes = at, []

    def step(self, step, loss, samples_per_second, waiting):
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def interrupted(ct_folder, tmp_path):
    """A run that was asked for a good deal, with a validation folder and a window, ended by a signal at step 3."""
    with pytest.raises(Interrupted):
        modelsgenesis.pretrain(
            ct_folder,
            tmp_path / "run",
            config=TINY,
            window=(-500, 500),
            validation_source=ct_folder / "patient2.nii.gz",
            device="cpu",
            cache=tmp_path / "cache",
            reporter=Stopping(at=3),
        )
    return tmp_path / "run"


def test_going_on_needs_nothing_but_the_folder(interrupted, ct_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = modelsgenesis.pretrain(None, "run", resume=True, device="cpu")
    config = load_bundle(run).config
    assert config.input.window == (-500, 500)
    assert config.provenance.results["step"] in (2, 4)
    split = json.loads((interrupted / "run.json").read_text())["split"]
    assert split["validation"] == [str(ct_folder / "patient2.nii.gz")]
    told = read_recorded(interrupted)
    assert (told.finished, told.config) == (True, TINY)
    assert told.request.source == (str(ct_folder),)


def test_a_resume_gives_what_was_never_interrupted_to_the_bit(interrupted, ct_folder, tmp_path):
    modelsgenesis.pretrain(None, interrupted, resume=True, device="cpu")
    whole = modelsgenesis.pretrain(
        ct_folder,
        tmp_path / "whole",
        config=TINY,
        window=(-500, 500),
        validation_source=ct_folder / "patient2.nii.gz",
        device="cpu",
        cache=tmp_path / "cache",
    )
    for name in ("model.safetensors", "validation.csv"):
        assert (whole / name).read_bytes() == (interrupted / name).read_bytes()


def test_a_finished_run_is_left_as_it_is_and_that_is_said(interrupted, tmp_path):
    modelsgenesis.pretrain(None, interrupted, resume=True, device="cpu")
    before = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*") if path.is_file()}
    notes = Stopping()
    assert modelsgenesis.pretrain(None, interrupted, resume=True, device="cpu", reporter=notes) == interrupted
    assert notes.notes == [f"{interrupted}: the run is finished, there is nothing left to resume"]
    assert {path: path.stat().st_mtime_ns for path in interrupted.rglob("*") if path.is_file()} == before


def test_another_request_or_configuration_is_refused_with_its_differences(interrupted, ct_folder):
    again = {"resume": True, "device": "cpu"}
    with pytest.raises(
        ResumeError, match=r"another request: modality was auto, now mri; window was \(-500.0, 500.0\), now"
    ):
        modelsgenesis.pretrain(ct_folder, interrupted, modality="mri", window=(-1000, 1000), **again)
    with pytest.raises(ResumeError, match=r"another configuration: batch_size was 2, now 3; seed was 0, now 1$"):
        modelsgenesis.pretrain(None, interrupted, config=TINY.override(batch_size=3, seed=1), **again)
    modelsgenesis.pretrain(ct_folder, interrupted, config=TINY.override(checkpoint_every=1), **again)


def test_scans_that_came_or_went_are_refused(ct_folder, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for path in sorted(ct_folder.iterdir())[:3]:
        os.link(path, folder / path.name)
    with pytest.raises(Interrupted):
        modelsgenesis.pretrain(folder, tmp_path / "run", config=TINY, device="cpu", reporter=Stopping(at=1))
    os.link(ct_folder / "patient3.nii.gz", folder / "patient3.nii.gz")
    with pytest.raises(ResumeError, match="other scans or another split"):
        modelsgenesis.pretrain(None, tmp_path / "run", resume=True, device="cpu")


def test_a_run_that_went_on_from_weights_goes_on_without_them(ct_folder, tmp_path):
    first = modelsgenesis.pretrain(ct_folder, tmp_path / "first", config=TINY, device="cpu")
    other = TINY.override(network=GenesisUNetConfig(widths=(8, 16)))
    with pytest.raises(Interrupted):
        modelsgenesis.pretrain(
            ct_folder, tmp_path / "run", config=other, init=first, device="cpu", reporter=Stopping(at=1)
        )
    first.rename(tmp_path / "elsewhere")
    run = modelsgenesis.pretrain(None, tmp_path / "run", config=other, resume=True, device="cpu")
    config = load_bundle(run).config
    assert (config.network.widths, config.provenance.init) == ((4, 8), "first")


def test_a_batch_that_fills_the_memory_is_recorded_and_kept(ct_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("modelsgenesis.pretraining.available_memory", lambda _: 2**29)
    notes = Stopping(at=1)
    with pytest.raises(Interrupted):
        modelsgenesis.pretrain(
            ct_folder, tmp_path / "run", config=TINY, device="cpu", fit_batch=True, fit_patch=True, reporter=notes
        )
    told = read_recorded(tmp_path / "run").config
    assert f"patch_size={','.join(map(str, told.patch_size))} is what 0.4 GiB hold" in notes.notes
    assert any(note.startswith(f"batch_size={told.batch_size}: ") for note in notes.notes)
    assert all(side % 2 == 0 for side in told.patch_size)
    modelsgenesis.pretrain(
        None, tmp_path / "run", config=TINY, device="cpu", fit_batch=True, fit_patch=True, resume=True
    )


def test_without_scans_there_is_nothing_to_start():
    with pytest.raises(ConfigurationError, match="source: received nothing, expected the scans to pretrain on"):
        complete(Request(), None, "run")
