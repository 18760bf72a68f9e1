"""The folder of a run: held by one, whole after a crash, and nothing damaged in it is taken for whole."""

import os
import random
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from modelsgenesis.errors import CheckpointError, TrainingError
from modelsgenesis.training.run import Run, hold_folder

ASKED = {
    "config": {"seed": 0, "workers": 0, "network": {"widths": [4, 8]}, "data": {"source": ["/scans"], "cache": None}},
    "split": {"training": ["a", "b"]},
    "digests": {"training": ["0a", "0b"]},
    "init": None,
}


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run", ASKED)
    yield run
    run.close()


def changed(**settings):
    return {**ASKED, "config": {**ASKED["config"], **settings}}


def resume(run, asked):
    Run.open(run.folder, asked, resume=True).close()


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
    assert run.load_checkpoint() == ({"step": 1}, "")


@pytest.mark.parametrize(("error", "seen"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, CheckpointError)])
def test_a_kill_or_a_full_disk_while_the_checkpoint_is_written_leaves_both_before(run, monkeypatch, error, seen):
    run.save_checkpoint({"step": 1})
    run.save_checkpoint({"step": 2})
    monkeypatch.setattr(os, "fsync", Mock(side_effect=error))
    with pytest.raises(seen):
        run.save_checkpoint({"step": 3})
    monkeypatch.undo()
    assert run.load_checkpoint() == ({"step": 2}, "")
    assert torch.load(run.folder / "checkpoints" / "before.pt") == {"step": 1}
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == [".lock", "before.pt", "last.pt"]


def test_one_flipped_bit_anywhere_in_a_checkpoint_is_noticed(run):
    assert run.load_checkpoint() == (None, "no checkpoint was written yet: starting from the beginning")
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


@pytest.mark.parametrize("content", [b"", b"\0" * 500])
def test_checkpoints_of_which_none_is_whole_are_one_line(run, content):
    (run.folder / "checkpoints" / "last.pt").write_bytes(content)
    torch.save({"step": 1}, run.folder / "checkpoints" / "before.pt")  # as version 0.1.0 wrote it
    with pytest.raises(TrainingError, match=r"no whole checkpoint to resume from \(.*last\.pt.*; start again .*--init"):
        run.load_checkpoint()


ROWS = "".join(f"{step},0.5,0.1\n" for step in range(1, 6))


@pytest.mark.parametrize(
    ("content", "kept", "note"),
    [
        (f'step,loss,"dice a, b"\n{ROWS}', [1, 2, 3, 4], ""),
        (f"step,loss,dice\n{ROWS[:-13]}", [1, 2, 3], "1 of 4 steps"),  # cut in the middle of a number
        (f"step,loss,dice\n{ROWS}".replace("2,0.5", "2,\0.5"), [1, 3, 4], "1 of 4 steps"),
        (f"step,loss,dice\n{ROWS}".replace("2,0.5", '2,"0.5'), [1, 3, 4], "1 of 4 steps"),
        ("", [], "4 of 4 steps"),
        ("\udcff\udcfe,1\n", [], "4 of 4 steps"),
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
    assert [int(line.split(",")[0]) for line in lines[1:]] == [*kept, 5]


def test_a_log_that_another_version_began_keeps_its_columns(run):
    log = run.folder / "validation.csv"
    log.write_text('step,dice,"dice a, b",older\n1,0.5,0.25,7\n')
    run.log_step({"step": 2, "dice": 1.0, "dice a, b": 0.75, "loss": 0.1}, log.name)
    assert log.read_text().splitlines()[1:] == ["1,0.5,0.25,7", "2,1.0,0.75,"]


def test_what_a_killed_process_left_is_swept_up_by_a_start_and_by_a_resume(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/.lock", ".run.json.abc"):
        (tmp_path / "run" / name).touch()
    run = Run.open(tmp_path / "run", ASKED)
    assert run.description() == ASKED
    run.finish()
    assert run.description() == {**ASKED, "finished": True}
    run.close()
    left = [run.folder / name for name in ("checkpoints/.last.pt.x1", ".model.safetensors.y2", ".log.csv.z3")]
    for path in (*left, run.folder / "mine.txt"):
        path.touch()
    resume(run, ASKED)
    assert not any(path.exists() for path in left)
    assert (run.folder / "mine.txt").exists()


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (ASKED, ""),
        (changed(workers=4, data={"source": ["/scans"], "cache": "/elsewhere"}), ""),
        ({**ASKED, "split": {"training": ("a", "b")}}, ""),
        (changed(workers=4, seed=1), r"another configuration: seed was 0, now 1$"),
        (changed(network={"widths": [4]}), r"network\.widths was \[4, 8\], now \[4\]$"),
        ({**ASKED, "init": "x"}, r"init was None, now x$"),
        ({**ASKED, "split": {"training": ["a"]}, "digests": {"training": ["0a"]}}, r"other scans .* see .*run\.json"),
        ({**ASKED, "digests": {"training": ["0a", "ff"]}}, r"1 scans or their labels have changed .* such as b;"),
    ],
)
def test_only_what_changes_no_result_may_differ(run, now, words):
    run.close()
    with pytest.raises(TrainingError, match=words) if words else nullcontext():
        resume(run, now)


def test_a_run_of_version_0_1_0_and_a_log_that_cannot_be_written_are_one_line(run):
    (run.folder / "log.csv").mkdir()
    with pytest.raises(TrainingError, match=r"log\.csv: cannot be written: Is a directory"):
        run.log_step({"step": 1})
    (run.folder / "run.json").write_text('{"config": {}, "split": {}}')
    with pytest.raises(TrainingError, match=r"version 0\.1\.0.*start again in another folder, with --init"):
        resume(run, ASKED)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"config": []}', "\0" * 90, "\udcff"])
def test_a_damaged_description_is_one_line(run, content):
    run.close()
    (run.folder / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"run\.json: "):
        resume(run, ASKED)
    with pytest.raises(TrainingError, match="holds a run already"):
        Run.check(run.folder)


def test_a_folder_is_held_by_one_until_it_is_released(tmp_path):
    folder = tmp_path / "new" / "run"
    first = hold_folder(folder, "checkpoints/.lock", "trains")
    with pytest.raises(TrainingError, match=r"run: another process trains in this folder; wait or choose another$"):
        hold_folder(folder, "checkpoints/.lock", "trains")
    first.release()
    hold_folder(folder, "checkpoints/.lock", "trains").release()
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match=r"file/run: cannot be written: .*; choose another folder"):
        hold_folder(tmp_path / "file" / "run", ".lock", "trains")
