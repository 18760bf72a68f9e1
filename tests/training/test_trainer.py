"""The loop: what it writes, what it resumes to the bit, and how it ends when something goes wrong."""

import math
import os
import re
import shutil
import signal

import pytest
import torch

import process_scenarios as scenarios
from fitted_numbers import Fit, Numbers, at, make, rows, terminate
from modelsgenesis.configs import RECIPES, TrainingConfig
from modelsgenesis.errors import DataError, Interrupted, TrainingError
from modelsgenesis.training.trainer import DivergenceError
from recorded_notes import Notes


def steps_of(run):
    return [int(row["step"]) for row in rows(run / "log.csv")]


def last_step(trainer):
    return trainer.run.load_checkpoint()[0]["progress"]["step"]


def ended(folder, **options):
    """Return the folder of a run that is done."""
    trainer = make(folder, **options)
    trainer.fit()
    trainer.run.close()
    return trainer


@pytest.mark.parametrize(("optimizer", "cut"), [("sgd", 1), ("adam", 3), ("adamw", 4), ("adamw", 8)])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, optimizer, cut):
    whole = ended(tmp_path / "whole", optimizer=optimizer)
    assert 0 < whole.progress.seconds < 3600
    assert steps_of(tmp_path / "whole") == list(range(1, 10))
    assert [int(row["step"]) for row in rows(tmp_path / "whole" / "validation.csv")] == [4, 8, 9]
    part = make(tmp_path / "part", Fit(on_loss=at(cut, terminate)), optimizer=optimizer)
    with pytest.raises(Interrupted, match=rf"interrupted at step {cut} of 9, nothing is lost; .*--resume --output"):
        part.fit()
    part.run.close()
    resumed = make(tmp_path / "part", resume=True, optimizer=optimizer)
    assert resumed.progress.step == cut
    state = torch.get_rng_state()
    resumed.fit()
    assert torch.equal(torch.get_rng_state(), state)  # dropout leaves the caller's generator as it was
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    losses = [[row["loss"] for row in rows(tmp_path / name / "log.csv")] for name in ("whole", "part")]
    assert losses[0] == losses[1]


def test_keeps_the_best_and_stops_early(tmp_path):
    kept, notes = [], Notes()

    def keep(progress, _, is_best):
        kept.extend([progress.step] * is_best)

    options = {"steps": 100, "patience": 3, "validate_every": 2, "on_validation": keep, "reporter": notes}
    progress = make(tmp_path / "run", Fit(scores=[3, 1, 2, 2, 2, 0]), **options).fit()
    assert kept == [2, 4]
    assert (progress.step, progress.best_step, progress.metrics) == (10, 4, {"value": 1})
    assert notes.notes == ["stopped early: no better validation since step 4"]


def test_a_signal_while_the_bundle_is_written_loses_nothing(tmp_path):
    trainer = make(tmp_path / "run", on_validation=lambda *_: terminate())
    with pytest.raises(Interrupted, match="interrupted at step"):
        trainer.fit()
    assert last_step(trainer) in (4, 5)  # one more step at most
    assert trainer.progress.best_step == 4


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    child = os.fork()
    if not child:
        trainer = make(tmp_path / "run", Fit(on_loss=at(2, lambda: [terminate(), terminate()])), steps=50)
        try:
            trainer.fit()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


class RootOfZero(Fit):
    """Has a loss whose gradient is infinite at the fifth step."""

    def loss(self, network, batch, items):
        loss = super().loss(network, batch, items)
        return loss if self.losses < 5 else loss + torch.sqrt(network[0].weight.sum() * 0.0)


@pytest.mark.parametrize(
    ("objective", "settings", "message", "last"),
    [
        (Fit(on_loss=at(6, lambda: math.nan)), {}, r"loss is nan at step 6 with learning rate .*: lower .*--init", 4),
        (Fit(on_loss=at(8, lambda: math.inf)), {"checkpoint_every": 1}, "loss is inf at step 8", 7),
        (RootOfZero(), {}, "the gradient is not finite at step 5", 4),
        (Fit(on_loss=at(25, lambda: 1e6)), {"steps": 40}, "above .* divergence_factor times .* at step 25", 24),
    ],
)
def test_a_divergence_ends_the_run_with_the_checkpoint_from_before(tmp_path, objective, settings, message, last):
    trainer = make(tmp_path / "run", objective, **settings)
    with pytest.raises(DivergenceError, match=message):
        trainer.fit()
    assert last_step(trainer) == last


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(tmp_path):
    def ruin():
        with torch.no_grad():
            trainer.network[0].weight.fill_(math.inf)

    trainer = make(tmp_path / "run", Fit(on_validate=at(2, ruin)))
    with pytest.raises(DivergenceError, match="weights are not finite after step 8; lower"):
        trainer.fit()
    assert last_step(trainer) == 4


@pytest.mark.parametrize(
    ("first", "loss", "factor"),
    # A sigmoid answers in [0, 1], so the worst loss is 1; the first losses of that network are about 0.1.
    [(0.7, 3.0, 1000.0), (0.1, 1e9, 0.0), (0.02, 1.0, RECIPES["2019"].divergence_factor)],
)
def test_what_is_no_explosion(tmp_path, first, loss, factor):
    constant = Fit()
    constant.loss = lambda network, batch, _: network(batch).mean() * 0 + loss
    trainer = make(tmp_path / "run", constant, divergence_factor=factor)
    trainer.progress.first_losses = [first] * 20
    assert trainer.fit().step == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanishes_is_one_line(tmp_path, workers):
    def vanish():
        raise DataError("volumes/ab/abc.npy: a prepared volume is gone or damaged; build again")

    trainer = make(tmp_path / "run", Fit(Numbers(at=9, happen=vanish)), workers=workers, checkpoint_every=1)
    with pytest.raises((DataError, TrainingError), match=r"^volumes/ab/abc\.npy: a prepared volume is gone or damaged"):
        trainer.fit()
    assert last_step(trainer) >= 3


def test_a_loader_process_that_dies_is_one_line(tmp_path):
    dies = Numbers(at=23, happen=lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer = make(tmp_path / "run", Fit(dies), workers=1, steps=20)
    with pytest.raises(TrainingError, match=r"a loader process died at step \d+: .*intact, resume with fewer workers"):
        trainer.fit()
    assert last_step(trainer) in (4, 8, 12)


def test_refuses_to_resume_with_other_data(tmp_path):
    ended(tmp_path / "run")
    with pytest.raises(TrainingError, match="an epoch had 7 samples, now 8; resume with the scans"):
        make(tmp_path / "run", Fit(Numbers(size=8)), resume=True)


def test_what_changes_the_last_bits_is_said(tmp_path):
    notes = Notes()
    run = ended(tmp_path / "run").run
    state, _ = run.load_checkpoint()
    assert TrainingConfig.from_dict(state["config"]).steps == 9
    state["versions"] |= {"torch": "2.0"}
    run.save_checkpoint(state)
    make(tmp_path / "run", resume=True, reporter=notes, compile=True)
    assert re.search("perhaps not to the bit: hardware was .*adamw, now .*compiled; torch was 2.0, now", notes.notes[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of its own deprecations
@pytest.mark.parametrize("norm", ["instance", "running"])
def test_a_compiled_network_learns_the_same_under_the_same_names(tmp_path, norm):
    options = {"norm": norm, "steps": 6, "validate_every": 3}
    networks = [scenarios.train(tmp_path / str(it), **options, compile=it) for it in (False, True)]
    assert list(networks[0].state_dict()) == list(networks[1].state_dict())
    losses = [[float(row["loss"]) for row in rows(tmp_path / str(it) / "log.csv")] for it in (False, True)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
