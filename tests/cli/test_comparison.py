import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

TINY = [
    *("--set", "network.widths=4,8", "--set", "network.norm=instance", "--set", "patch_size=16,16,12"),
    *("--set", "batch_size=1", "--set", "validate_every=2", "--set", "samples_per_scan=1", "--set", "overlap=0"),
    *("--set", "augment=false", "--device", "cpu"),
]


def test_prints_the_table_and_goes_on(command, decathlon, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["compare", decathlon, "--init", "scratch", "--init", "other=scratch"]
    arguments += ["--labels", "2", "--runs", 1, "--steps", 2, *TINY]
    result = command(*arguments)
    assert result.status == 0, result.err
    assert result.out.startswith("# Balls: Dice by initialisation")
    assert "none with fewer than 3 runs" in result.out
    assert "writing to runs/compare\ncomparing: 0/2" in result.err
    again = command(*arguments, "-o", "runs/compare", "--json", "--quiet")
    assert again.err == ""
    assert list(again.json()["arms"]) == ["scratch", "other"]
    assert "would write: runs/compare-2/," in command(*arguments, "--dry-run").err  # the first one is finished
    Path("runs/compare/results.json").unlink()
    assert "comparing: 2/2" in command(*arguments).err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing option '--init'"),
        (["--init", "scratch", "--set", "dims=two"], 1, "dims: received 'two'"),
        (["--init", "scratch", "--set", "lr=1"], 1, "lr: no such setting; did you mean learning_rate"),
        (["--init", "no-such-model"], 1, "no-such-model"),
        (["--init", "scratch", "--config", "nowhere.json"], 1, "nowhere.json: "),
    ],
)
def test_errors_are_one_line_with_a_status(command, decathlon, tmp_path, arguments, status, message):
    result = command("compare", decathlon, "-o", tmp_path / "run", *arguments)
    assert result.status == status, result.err
    assert message in result.err, result.err
    assert "Traceback" not in result.err


def finished(folder):
    return {path: path.read_bytes() for path in folder.glob("runs/scratch/labels-2/seed-*.json")}


def wait_for(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def alive(session):
    """Processes of a session that are no zombies."""
    found = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True).stdout
    return [state for state in found.split() if not state.startswith("Z")]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_comparison_goes_on_with_what_is_missing(background, decathlon, tmp_path, signum):
    folder = tmp_path / "run"
    arguments = ["compare", decathlon, "--init", "scratch", "-o", folder, "--labels", "2", "--runs", 12, *TINY]
    arguments += ["--steps", 2, "--jobs", 2]
    process = background(*arguments)
    wait_for(lambda: len(finished(folder)) >= 2)
    # Ctrl-C of a terminal reaches the workers as well; kill only the parent.
    (os.killpg if signum == signal.SIGINT else os.kill)(process.pid, signum)
    err = process.communicate(timeout=100)[1]
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[signum], err
    wait_for(lambda: not alive(process.pid))
    before = finished(folder)
    assert 2 <= len(before) < 12
    if signum != signal.SIGKILL:
        assert err.strip().splitlines()[-1].startswith(f"interrupted with {len(before)} of 12 runs finished")
        assert "Traceback" not in err
        assert not list(folder.glob(".work-*"))
    process = background(*arguments)
    err = process.communicate(timeout=200)[1]
    assert process.returncode == 0, err
    after = finished(folder)
    assert len(after) == 12
    assert before.items() <= after.items()
    assert len(json.loads((folder / "results.json").read_text())["seeds"]) == 12
    assert not list(folder.glob(".work-*"))
