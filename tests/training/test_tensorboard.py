import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.tensorboard import TensorBoardReporter
from recorded_notes import Notes


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return events


def test_writes_scalars_and_figures_and_a_resume_hides_the_steps_that_are_done_again(tmp_path):
    folder = tmp_path / "tensorboard"
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "figure.png")
    first = TensorBoardReporter(folder, Reporter())
    first.begin("preparing scans", 3)
    first.end()
    assert not folder.exists()
    first.begin("training", 4)
    for step in (1, 2, 3):
        first.step(step, 0.5, 10.0, 0.1)
    first.validation(2, {"restoration_loss": 0.4, "mean_image_loss": 0.6})
    first.figure(2, "restorations", tmp_path / "figure.png")
    first.end()
    second = TensorBoardReporter(folder, Reporter())
    second.begin("training", 4, start=2)
    for step in (3, 4):
        second.step(step, 0.25, 10.0, 0.1)
    second.end()
    events = read(folder)
    assert [(one.step, one.value) for one in events.Scalars("training/loss")] == [
        (1, 0.5),
        (2, 0.5),
        (3, 0.25),
        (4, 0.25),
    ]
    assert [one.step for one in events.Scalars("validation/restoration_loss")] == [2]
    assert [(one.step, one.width) for one in events.Images("restorations")] == [(2, 6)]


def test_a_disk_that_cannot_be_written_is_said_once(tmp_path):
    notes = Notes()
    (tmp_path / "tensorboard").write_text("a file")
    reporter = TensorBoardReporter(tmp_path / "tensorboard", notes)
    reporter.begin("training", 2)
    reporter.step(1, 0.5, 1.0, 0.0)
    reporter.step(2, 0.5, 1.0, 0.0)
    reporter.end()
    assert len(notes.notes) == 1
    assert "nothing more is written for TensorBoard" in notes.notes[0]


def test_a_missing_extra_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"TensorBoard needs .*pip install 'modelsgenesis\[report\]'"):
        TensorBoardReporter(tmp_path, Reporter())
