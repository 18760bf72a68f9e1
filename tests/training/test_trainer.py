import math
import os

import pytest
import torch

from fitted_numbers import Fit, at, make, rows, terminate
from modelsgenesis.errors import Interrupted, NonFiniteLossError, ResumeError, TrainingError
from recorded_notes import Notes


def test_logs_every_step_unrounded_and_every_validation(tmp_path):
    trainer = make(tmp_path / "run")
    progress = trainer.fit()
    steps = rows(tmp_path / "run" / "log.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 10))
    assert any(len(row["loss"]) > 12 for row in steps)
    assert [int(row["step"]) for row in rows(tmp_path / "run" / "validation.csv")] == [4, 8, 9]
    assert progress.step == 9


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("cut", [1, 4, 5, 8])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, optimizer, cut):
    whole = make(tmp_path / "whole", optimizer=optimizer)
    whole.fit()
    part = make(tmp_path / "part", Fit(on_loss=at(cut, terminate)), optimizer=optimizer)
    with pytest.raises(Interrupted, match=rf"interrupted at step {cut} of 9, nothing is lost; .*--resume --output"):
        part.fit()
    part.run.close()
    resumed = make(tmp_path / "part", resume=True, optimizer=optimizer)
    assert resumed.progress.step == cut
    resumed.fit()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    losses = [[row["loss"] for row in rows(tmp_path / name / "log.csv")] for name in ("whole", "part")]
    assert losses[0] == losses[1]


def test_keeps_the_best_and_stops_early(tmp_path):
    kept, reporter = [], Notes()
    trainer = make(
        tmp_path / "run",
        Fit(scores=[3, 1, 2, 2, 2, 0]),
        steps=100,
        patience=3,
        validate_every=2,
        keep=lambda _network, progress: kept.append(progress.step),
        reporter=reporter,
    )
    progress = trainer.fit()
    assert kept == [2, 4]
    assert (progress.step, progress.best_step, progress.metrics) == (10, 4, {"value": 1})
    assert reporter.notes == ["stopped early: no better validation since step 4"]


def test_a_loss_that_is_not_a_number_ends_the_run_with_the_checkpoint_from_before(tmp_path):
    trainer = make(tmp_path / "run", Fit(on_loss=at(6, lambda: math.nan)))
    with pytest.raises(NonFiniteLossError, match=r"loss is nan at step 6 with learning rate .*: lower"):
        trainer.fit()
    state, _ = trainer.run.load_checkpoint()
    assert state["progress"]["step"] == 4


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    first = make(tmp_path / "run")
    first.fit()
    first.run.close()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:100])
    reporter = Notes()
    trainer = make(tmp_path / "run", resume=True, reporter=reporter)
    assert trainer.progress.step == 8
    assert "last.pt is damaged" in reporter.notes[0]
    (tmp_path / "run" / "checkpoints" / "before.pt").write_bytes(b"")
    trainer.run.close()
    with pytest.raises(ResumeError, match="no whole checkpoint"):
        make(tmp_path / "run", resume=True)


def test_refuses_a_folder_in_use_by_another_process(tmp_path):
    first = make(tmp_path / "run")
    with pytest.raises(TrainingError, match="another process trains in this folder"):
        make(tmp_path / "run", resume=True)
    first.run.close()


def test_refuses_to_start_over_a_run_or_in_a_folder_with_files(tmp_path):
    make(tmp_path / "run").run.close()
    with pytest.raises(TrainingError, match="holds a run already; add --resume"):
        make(tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep me")
    with pytest.raises(TrainingError, match="is not empty"):
        make(tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match="is a file"):
        make(tmp_path / "file")


def test_refuses_a_place_where_no_folder_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match=r"cannot be written in .*file; choose another folder"):
        make(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(TrainingError, match="cannot be written in"):
        make(tmp_path / "run")


def test_refuses_to_resume_another_configuration_and_lists_the_differences(tmp_path):
    make(tmp_path / "run").run.close()
    with pytest.raises(ResumeError, match="another configuration: batch_size was 2, now 3; seed was 0, now 1"):
        make(tmp_path / "run", resume=True, batch_size=3, seed=1)
    with pytest.raises(ResumeError, match="holds no run to resume"):
        make(tmp_path / "empty", resume=True)
