"""What ends a run early, and that it goes on to the bit afterwards."""

import math
import os
import signal

import pytest
import torch
from torch import nn

import process_scenarios as scenarios
from fitted_numbers import CPU, Fit, Numbers, at, make, rows, terminate
from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    ExplodingLossError,
    Interrupted,
    NonFiniteLossError,
    ResumeError,
    TrainingError,
)
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.run import Run
from modelsgenesis.training.trainer import Trainer
from recorded_notes import Notes


def steps_of(run):
    return [int(row["step"]) for row in rows(run / "log.csv")]


@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_dropout_goes_on_where_it_was(tmp_path, cut):
    whole = make(tmp_path / "whole")
    whole.fit()
    part = make(tmp_path / "part", Fit(on_loss=at(cut, terminate)))
    with pytest.raises(Interrupted):
        part.fit()
    part.run.close()
    torch.rand(100)  # what else draws from the global generator in between
    resumed = make(tmp_path / "part", resume=True)
    resumed.fit()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_global_generator_of_the_caller_is_left_as_it_was(tmp_path):
    trainer = make(tmp_path / "run")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.fit()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("where", ["validation", "bundle"])
def test_a_signal_during_a_validation_or_while_the_bundle_is_written_loses_nothing(tmp_path, where):
    happen = at(1, terminate)
    objective = Fit(on_validate=happen if where == "validation" else None)
    trainer = make(
        tmp_path / "run", objective, keep=(lambda *_: happen(objective.validations)) if where == "bundle" else None
    )
    with pytest.raises(Interrupted, match="interrupted at step"):
        trainer.fit()
    state, _ = trainer.run.load_checkpoint()
    assert state["progress"]["step"] in (4, 5)  # one more step at most
    assert state["progress"]["best_step"] == 4


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    child = os.fork()
    if not child:
        trainer = make(tmp_path / "run", Fit(on_loss=at(2, lambda: [terminate(), terminate()])), steps=50)
        try:
            trainer.fit()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_checkpoints_are_written_as_often_as_asked(tmp_path):
    trainer = make(tmp_path / "run", Fit(on_loss=at(8, lambda: math.nan)), checkpoint_every=1)
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 8"):
        trainer.fit()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] == 7
    assert steps_of(tmp_path / "run") == list(range(1, 8))


def test_a_checkpoint_holds_what_it_should(tmp_path):
    trainer = make(tmp_path / "run")
    trainer.fit()
    state, _ = trainer.run.load_checkpoint()
    assert set(state) == {"network", "optimizer", "progress", "schedule", "data", "random", "config", "versions"}
    assert state["schedule"] == {"step": 9, "steps": 9, "steps_per_epoch": 4}
    assert state["data"] == {"size": 7, "epoch": 2, "position": 4}
    assert set(state["random"][0]) == {"torch", "cuda", "python", "numpy"}
    assert set(state["versions"]) == {"modelsgenesis", "python", "torch", "numpy", "device"}
    assert TrainingConfig.from_dict(state["config"]) == trainer.config


def test_a_step_that_is_skipped_moves_nothing_and_the_run_goes_on(tmp_path):
    notes = Notes()
    trainer = make(tmp_path / "run", Fit(on_loss=at(3, lambda: math.inf)), nonfinite="skip", reporter=notes)
    assert trainer.fit().step == 9
    assert notes.notes == ["step 3 skipped: loss is inf"]
    assert steps_of(tmp_path / "run") == list(range(1, 10))


def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is(tmp_path):
    class Root(Fit):
        def loss(self, network, batch):
            loss = super().loss(network, batch)
            return loss if self.losses < 5 else loss + torch.sqrt(network[0].weight.sum() * 0.0)

    with pytest.raises(NonFiniteLossError, match="the gradient is not finite at step 5"):
        make(tmp_path / "run", Root()).fit()


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(tmp_path):
    def ruin(number):
        if number == 2:
            with torch.no_grad():
                trainer.network[0].weight.fill_(math.inf)

    trainer = make(tmp_path / "run", Fit(on_validate=ruin))
    with pytest.raises(NonFiniteLossError, match="weights are not finite after step 8; lower"):
        trainer.fit()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] == 4


def test_an_exploding_loss_ends_the_run(tmp_path):
    trainer = make(tmp_path / "run", Fit(on_loss=at(25, lambda: 1e6)), steps=40)
    with pytest.raises(ExplodingLossError, match="at step 25, the first 20 losses had a median of"):
        trainer.fit()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] == 24


def test_a_full_disk_ends_the_run_with_the_checkpoint_before(tmp_path, monkeypatch):
    trainer = make(tmp_path / "run")

    def full(_descriptor):
        raise OSError(28, os.strerror(28))

    def fill(number):
        if number == 2:
            monkeypatch.setattr(os, "fsync", full)

    trainer.objective.on_validate = fill
    with pytest.raises(
        (CheckpointError, TrainingError), match=r"cannot be written: No space left on device; the .* intact"
    ):
        trainer.fit()
    monkeypatch.undo()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanishes_is_one_line(tmp_path, workers):
    def vanish():
        raise DataError("volumes/ab/abc.npy: a prepared volume is gone or damaged; build again")

    trainer = make(tmp_path / "run", Fit(Numbers(at=9, happen=vanish)), workers=workers, checkpoint_every=1)
    with pytest.raises((DataError, TrainingError), match=r"^volumes/ab/abc\.npy: a prepared volume is gone or damaged"):
        trainer.fit()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] >= 3


def test_a_loader_process_that_dies_is_one_line(tmp_path):
    trainer = make(
        tmp_path / "run", Fit(Numbers(at=23, happen=lambda: os.kill(os.getpid(), signal.SIGKILL))), workers=1, steps=20
    )
    with pytest.raises(TrainingError, match=r"a loader process died at step \d+: .*intact, resume with fewer workers"):
        trainer.fit()
    assert trainer.run.load_checkpoint()[0]["progress"]["step"] in (4, 8, 12)


def test_a_signal_to_the_loader_processes_costs_no_batch(tmp_path):
    def everyone():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)

    trainer = make(tmp_path / "run", Fit(Numbers(at=9, happen=everyone)), workers=1)
    assert trainer.fit().step == 9


def test_other_data_is_refused(tmp_path):
    first = make(tmp_path / "run")
    first.fit()
    first.run.close()
    with pytest.raises(ResumeError, match="an epoch had 7 samples, now 8; resume with the scans"):
        make(tmp_path / "run", Fit(Numbers(size=8)), resume=True)


def test_what_changes_the_last_bits_is_said(tmp_path):
    notes = Notes()
    first = make(tmp_path / "run")
    first.fit()
    state, _ = first.run.load_checkpoint()
    state["versions"] |= {"torch": "2.0", "device": "cuda"}
    first.run.save_checkpoint(state)
    first.run.close()
    make(tmp_path / "run", resume=True, reporter=notes, compile=True)
    assert notes.notes[0].startswith("going on, though perhaps not to the bit: compile was False, now True; device was")
    assert "torch was 2.0, now" in notes.notes[0]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(tmp_path):
    make(tmp_path / "run").run.close()
    notes = Notes()
    trainer = make(tmp_path / "run", resume=True, reporter=notes)
    assert notes.notes == ["no checkpoint was written yet: starting from the beginning"]
    assert trainer.fit().step == 9


def test_the_batch_must_divide_by_the_processes(tmp_path):
    with pytest.raises(ConfigurationError, match="batch_size: received 3 for 2 processes, which share it"):
        Trainer(
            network=nn.Linear(3, 1),
            objective=Fit(),
            config=TrainingConfig(batch_size=3),
            run=Run(tmp_path),
            hardware=CPU,
            reporter=Reporter(),
            keep=lambda *_: None,
            processes=scenarios.Processes(world_size=2),
        )
