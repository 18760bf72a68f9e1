import sys

import numpy as np
import pytest
import torch
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.watching import BEST, CURVE, Pictures, TensorBoard
from recorded_notes import Notes

BATCH = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
SHOWN = {"original": BATCH, "deformed": BATCH, "restored": BATCH}
METRICS = {"restoration_loss": 0.1, "mean_image_loss": 0.2, "identity_loss": 0.4}


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return events


def test_draws_each_validation_and_puts_the_best_and_the_curve_on_the_card(tmp_path):
    notes = Notes()
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n2,0.4\n")
    board = TensorBoard(tmp_path / "tensorboard", notes)
    pictures = Pictures(tmp_path, notes, board)
    pictures.draw_validation(200, **SHOWN, metrics=METRICS)
    pictures.keep_newest()
    best = (tmp_path / BEST).read_bytes()
    pictures.draw_validation(400, **SHOWN, metrics=METRICS)
    assert (tmp_path / "figures" / "restorations" / "step_000400.png").exists()
    assert (tmp_path / BEST).read_bytes() == best
    assert list(pictures.on_card().values()) == [BEST]
    pictures.draw_curve(400)
    assert list(pictures.on_card().values()) == [BEST, CURVE]
    board.close()
    assert [shown.step for shown in read_events(tmp_path / "tensorboard").Images("restorations")] == [200, 400]
    assert notes.notes == []


def test_what_cannot_be_drawn_is_said_once_and_ends_nothing(tmp_path, monkeypatch):
    notes = Notes()
    (tmp_path / "run").write_text("a file where the folder should be")
    pictures = Pictures(tmp_path / "run", notes)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pictures.draw_curve(1)
    pictures.draw_validation(1, **SHOWN, metrics=METRICS)
    pictures.keep_newest()
    assert len(notes.notes) == 1
    assert "a figure is missing: " in notes.text
    assert "pip install 'modelsgenesis[report]'" in notes.text
    assert pictures.on_card() == {}


def test_a_resumed_run_hides_the_steps_that_it_repeats(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "figure.png")
    for steps, loss in ((range(1, 4), 0.5), (range(3, 5), 0.25)):
        board = TensorBoard(tmp_path / "events", Reporter())
        for step in steps:
            board.scalars("training", {"loss": loss}, step)
        board.picture("restorations", tmp_path / "figure.png", steps[-1])
        board.close()
    events = read_events(tmp_path / "events")
    losses = [(one.step, one.value) for one in events.Scalars("training/loss")]
    assert losses == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]
    assert [(one.step, one.width) for one in events.Images("restorations")] == [(4, 6)]


def test_a_disk_that_cannot_be_written_is_said_once(tmp_path):
    notes = Notes()
    (tmp_path / "events").write_text("a file")
    board = TensorBoard(tmp_path / "events", notes)
    for step in (1, 2):
        board.scalars("training", {"loss": 0.5}, step)
    board.close()
    assert len(notes.notes) == 1
    assert "TensorBoard lacks events: " in notes.text


def test_a_missing_extra_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        TensorBoard(tmp_path, Reporter())
