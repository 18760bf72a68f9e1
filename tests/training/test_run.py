"""The folder of a run: held by one, whole after a crash, and nothing damaged in it is taken for whole."""

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modelsgenesis.errors import CheckpointError, ResumeError, TrainingError
from modelsgenesis.training.run import FREE_SETTINGS, Run, compare, hold_folder

ASKED = {"config": {"seed": 0, "workers": 0, "network": {"widths": [4, 8]}}, "split": {"training": ["a", "b"]}}
DIGESTS = {"digests": {"training": ["0a", "0b"]}}


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run", ASKED)
    yield run
    run.close()


def changed(**settings):
    return {**ASKED, "config": {**ASKED["config"], **settings}}


def resume(run, asked):
    return Run.open(run.folder, asked, resume=True)


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


def test_one_flipped_bit_anywhere_in_a_checkpoint_is_noticed(run):
    states = [{"network": {"w": torch.rand(64, generator=torch.Generator().manual_seed(seed))}} for seed in range(2)]
    for state in states:
        run.save_checkpoint(state)
    last = run.folder / "checkpoints" / "last.pt"
    whole, chance = last.read_bytes(), random.Random(0)
    for place in [0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(38))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        last.write_bytes(damaged)
        state, note = run.load_checkpoint()
        assert "last.pt is damaged" in note
        assert torch.equal(state["network"]["w"], states[0]["network"]["w"])
        assert not last.exists()  # the next checkpoint must not put it in the place of the good one


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"PK\x03\x04"])
def test_checkpoints_of_which_none_is_whole_are_one_line(run, content):
    (run.folder / "checkpoints" / "last.pt").write_bytes(content)
    torch.save({"step": 1}, run.folder / "checkpoints" / "before.pt")  # as version 0.1.0 wrote it
    with pytest.raises(ResumeError, match=r"no whole checkpoint to resume from \(.*last\.pt.*; start again .*--init"):
        run.load_checkpoint()


ROWS = "".join(f"{step},0.5,0.1\n" for step in range(1, 6))


@pytest.mark.parametrize(
    ("content", "kept", "note"),
    [
        (f"step,loss,dice\n{ROWS}", [1, 2, 3, 4], ""),
        (f'step,loss,"dice a, b"\n{ROWS}', [1, 2, 3, 4], ""),
        (f"step,loss,dice\n{ROWS[:-13]}", [1, 2, 3], "1 of 4 steps"),  # cut in the middle of a number
        (f"step,loss,dice\n{ROWS}".replace("2,0.5", "2,\0.5"), [1, 3, 4], "1 of 4 steps"),
        ("", None, "4 of 4 steps"),
        ("\0" * 300, None, "4 of 4 steps"),
        (f"st\0p,loss,dice\n{ROWS}", None, "4 of 4 steps"),
        ("\udcff\udcfe,1\n", None, "4 of 4 steps"),
        ("step,loss\n" + "[" * 100_000, [], "4 of 4 steps"),
    ],
)
def test_a_log_keeps_what_is_whole_and_goes_on(run, content, kept, note):
    log = run.folder / "log.csv"
    log.write_bytes(content.encode(errors="surrogateescape"))
    assert note in run.truncate_logs(4)
    run.log_step({"step": 5, "loss": 1.0, "dice": 0.3})
    lines = log.read_text().splitlines()
    assert lines[0].startswith("step,loss")
    assert [int(line.split(",")[0]) for line in lines[1:]] == [*(kept or []), 5]


def test_a_start_that_was_killed_at_once_can_be_repeated(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (tmp_path / "run" / ".run.json.abc").touch()
    Run.open(tmp_path / "run", ASKED).close()
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
    resume(run, ASKED).close()
    assert not any(path.exists() for path in left)
    assert (run.folder / "mine.txt").exists()


def test_only_what_changes_no_result_may_differ(run):
    run.close()
    assert "workers" in FREE_SETTINGS
    resume(run, changed(workers=4)).close()
    with pytest.raises(ResumeError, match=r"another configuration: seed was 0, now 1$"):
        resume(run, changed(workers=4, seed=1))
    resume(run, changed(setting_of_a_later_version=1)).close()


def test_other_scans_are_refused(run):
    run.close()
    with pytest.raises(ResumeError, match=r"other scans or another split, see .*run\.json"):
        resume(run, {**ASKED, "split": {"training": ["a"]}})
    resume(run, {**ASKED, "split": {"training": ("a", "b")}}).close()


def test_scans_whose_voxels_changed_are_refused_and_named(run):
    run.close()
    for before, now, words in (
        (DIGESTS, DIGESTS, ""),
        (DIGESTS, {"digests": {"training": ["0a", "ff"]}}, "1 scans or their labels have changed .* such as b;"),
        (DIGESTS, {"digests": {"training": ["0a"]}}, "cannot be read"),
        ({}, DIGESTS, r"has no digests of the scans, as version 0\.1\.0"),
        ({"digests": 5}, DIGESTS, "cannot be read"),
    ):
        (run.folder / "run.json").write_text(json.dumps({**ASKED, **before}))
        if words:
            with pytest.raises(ResumeError, match=words):
                resume(run, {**ASKED, **now})
        else:
            resume(run, {**ASKED, **now}).close()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "{}", '{"config": []}', "\0" * 90, "\udcff"])
def test_a_damaged_description_is_one_line(run, content):
    run.close()
    (run.folder / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ResumeError, match=r"run\.json: "):
        resume(run, ASKED)
    with pytest.raises(TrainingError, match="holds a run already"):
        Run.check(run.folder)


def test_a_finished_run_says_so(run):
    assert "finished" not in run.description()
    run.finish()
    assert run.description() == {**ASKED, "finished": True}


def test_differences_are_named_by_their_place():
    before = {"seed": 0, "network": {"widths": [4, 8], "norm": "batch"}}
    now = {"seed": 1, "network": {"widths": [4], "norm": "batch"}, "later": 3}
    assert compare(before, now) == ["network.widths was [4, 8], now [4]", "seed was 0, now 1"]


def test_a_folder_is_held_by_one_until_it_is_released(tmp_path):
    folder = tmp_path / "new" / "run"
    first = hold_folder(folder, "checkpoints/.lock", "trains")
    with pytest.raises(TrainingError, match=r"run: another process trains in this folder; wait or choose another$"):
        hold_folder(folder, "checkpoints/.lock", "trains")
    hold_folder(folder, ".lock", "compares").release()
    first.release()
    first.release()
    hold_folder(folder, "checkpoints/.lock", "trains").release()
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match=r"file/run: cannot be written: .*; choose another folder"):
        hold_folder(tmp_path / "file" / "run", ".lock", "trains")


def test_a_process_that_is_killed_lets_go(tmp_path):
    program = (
        "import signal, sys; from pathlib import Path; from modelsgenesis.training.run import hold_folder; "
        "lock = hold_folder(Path(sys.argv[1]), '.lock', 'trains'); print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process trains"):
            hold_folder(tmp_path, ".lock", "trains")
        holder.kill()
        holder.wait()
        hold_folder(tmp_path, ".lock", "trains").release()
