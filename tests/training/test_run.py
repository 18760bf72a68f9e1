import errno
import os
from pathlib import Path

import pytest
import torch

from modelsgenesis.errors import CheckpointError, ResumeError, TrainingError
from modelsgenesis.training.run import FREE_SETTINGS, Run, compare

ASKED = {"config": {"seed": 0, "workers": 0, "network": {"widths": [4, 8]}}, "split": {"training": ["a", "b"]}}


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", ASKED)
    yield run
    run.close()


def changed(**settings):
    return {**ASKED, "config": {**ASKED["config"], **settings}}


def test_a_kill_between_the_two_renames_leaves_the_checkpoint_before(run, monkeypatch):
    run.save_checkpoint({"step": 1})
    replace = Path.replace

    def killed(path, target):
        if Path(target).name == "last.pt":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint({"step": 2})
    monkeypatch.undo()
    assert not (run.folder / "checkpoints" / "last.pt").exists()
    assert run.load_checkpoint() == ({"step": 1}, "")


def test_a_kill_while_the_checkpoint_is_written_leaves_both_before(run, monkeypatch):
    run.save_checkpoint({"step": 1})
    run.save_checkpoint({"step": 2})

    def killed(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint({"step": 3})
    monkeypatch.undo()
    assert run.load_checkpoint() == ({"step": 2}, "")
    assert torch.load(run.folder / "checkpoints" / "before.pt") == {"step": 1}


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(run, monkeypatch):
    run.save_checkpoint({"step": 1})

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be written: No space left on device; the file before"):
        run.save_checkpoint({"step": 2})
    monkeypatch.undo()
    assert run.load_checkpoint() == ({"step": 1}, "")
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == [".lock", "last.pt"]


def test_a_log_that_cannot_be_written_is_one_line(run):
    (run.folder / "log.csv").mkdir()
    with pytest.raises(
        TrainingError, match=r"log\.csv: cannot be written: Is a directory; the last checkpoint is intact"
    ):
        run.log_step({"step": 1})


def test_nothing_written_yet_is_no_error(run):
    assert run.load_checkpoint() == (None, "no checkpoint was written yet: starting from the beginning")


def test_a_start_that_was_killed_at_once_can_be_repeated(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (tmp_path / "run" / ".run.json.abc").touch()
    Run.create(tmp_path / "run", ASKED).close()
    assert Run(tmp_path / "run").description() == ASKED


def test_a_resume_sweeps_up_what_a_killed_process_left(run):
    run.close()
    left = [
        run.folder / "checkpoints" / ".last.pt.x1",
        run.folder / ".model.safetensors.y2",
        run.folder / ".log.csv.z3",
    ]
    for path in (*left, run.folder / "mine.txt"):
        path.touch()
    Run.resume(run.folder, ASKED).close()
    assert not any(path.exists() for path in left)
    assert (run.folder / "mine.txt").exists()


def test_only_what_changes_no_result_may_differ(run):
    run.close()
    assert "workers" in FREE_SETTINGS
    Run.resume(run.folder, changed(workers=4)).close()
    with pytest.raises(ResumeError, match=r"another configuration: seed was 0, now 1$"):
        Run.resume(run.folder, changed(workers=4, seed=1))
    Run.resume(run.folder, changed(setting_of_a_later_version=1)).close()


def test_other_scans_are_refused(run):
    run.close()
    with pytest.raises(ResumeError, match=r"other scans or another split, see .*run\.json"):
        Run.resume(run.folder, {**ASKED, "split": {"training": ["a"]}})
    Run.resume(run.folder, {**ASKED, "split": {"training": ("a", "b")}}).close()


def test_a_finished_run_says_so(run):
    assert "finished" not in run.description()
    run.finish()
    assert run.description() == {**ASKED, "finished": True}


def test_differences_are_named_by_their_place():
    before = {"seed": 0, "network": {"widths": [4, 8], "norm": "batch"}}
    now = {"seed": 1, "network": {"widths": [4], "norm": "batch"}, "later": 3}
    assert compare(before, now) == ["network.widths was [4, 8], now [4]", "seed was 0, now 1"]
