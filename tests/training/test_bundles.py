import sys
from types import SimpleNamespace

import pytest
import torch

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import BEST, CURVE, Visuals
from recorded_notes import Notes

BATCH = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
SHOWN = SimpleNamespace(original=BATCH, deformed=BATCH, restored=BATCH)
METRICS = {"restoration_loss": 0.1, "mean_image_loss": 0.2, "identity_loss": 0.4}


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    return events


def test_draws_each_validation_and_puts_the_best_and_the_curve_on_the_card(tmp_path):
    notes = Notes()
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n2,0.4\n")
    visuals = Visuals(tmp_path, notes, tensorboard=True)
    visuals.scalars("validation", METRICS, 200)
    visuals.draw_validation(SHOWN, 200, METRICS, True)
    best = (tmp_path / BEST).read_bytes()
    visuals.draw_validation(SHOWN, 400, METRICS, False)
    assert (tmp_path / "figures" / "restorations" / "step_000400.png").exists()
    assert (tmp_path / BEST).read_bytes() == best
    assert list(visuals.on_card().values()) == [BEST]
    visuals.draw_curve(400)
    assert list(visuals.on_card().values()) == [BEST, CURVE]
    visuals.close()
    assert [shown.step for shown in read_events(tmp_path).Images("restorations")] == [200, 400]
    assert notes.notes == []


@pytest.mark.parametrize("tensorboard", [False, True])
def test_what_cannot_be_written_is_said_once_and_ends_nothing(tmp_path, monkeypatch, tensorboard):
    notes = Notes()
    (tmp_path / "run").write_text("a file where the folder should be")
    visuals = Visuals(tmp_path / "run", notes, tensorboard=tensorboard)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    visuals.draw_curve(1)
    visuals.scalars("training", {"loss": 0.5}, 1)
    visuals.draw_validation(SHOWN, 1, METRICS, True)
    visuals.close()
    assert len(notes.notes) == 1
    assert "a figure is missing: " in notes.text
    assert "pip install 'modelsgenesis[report]'" in notes.text
    assert visuals.on_card() == {}


def test_a_resumed_run_hides_the_steps_that_it_repeats(tmp_path):
    for steps, loss in ((range(1, 4), 0.5), (range(3, 5), 0.25)):
        visuals = Visuals(tmp_path, Reporter(), tensorboard=True)
        for step in steps:
            visuals.scalars("training", {"loss": loss}, step)
        visuals.close()
    losses = [(one.step, one.value) for one in read_events(tmp_path).Scalars("training/loss")]
    assert losses == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]


def test_a_missing_extra_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        Visuals(tmp_path, Reporter(), tensorboard=True)
