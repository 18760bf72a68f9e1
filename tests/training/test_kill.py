"""`kill -9`: no process stays behind; every resume works, and the end is that of a run that was never interrupted."""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
SETTINGS = ["--steps", "400", "--modality", "ct", "--device", "cpu", "--quiet"]
for setting in (
    *("network.widths=4,8", "patch_size=8,8,8", "batch_size=2", "samples_per_scan=3", "validate_every=40"),
    *("validation_samples=2", "checkpoint_every=1", "workers=1", "precision=float32"),
):
    SETTINGS += ["--set", setting]

LOADER = """
import multiprocessing, os, signal, sys, threading, time
from pathlib import Path
from fitted_numbers import Numbers
from modelsgenesis.configs import TrainingConfig
from modelsgenesis.training.steps import load_batches

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    loader = load_batches(Numbers(), TrainingConfig(batch_size=2, workers=2), start=0, steps=99)
    threading.Thread(target=lambda: next(loader), daemon=True).start()
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    for process in multiprocessing.active_children():
        (Path(sys.argv[1]) / str(process.pid)).touch()
    signal.pause()
"""
COMPARISON = """
import sys
from functools import partial
from pathlib import Path
from fake_trainings import train
from modelsgenesis.training.splits import Split
from modelsgenesis.training.trials import Trial, run_trials

if __name__ == "__main__":
    trials = [Trial(arm="sleep", labels=5, seed=seed, split=Split((), (), ("a",))) for seed in range(2)]
    list(run_trials(trials, partial(train, folder=Path(sys.argv[1])), 2))
"""


def is_there(process):
    try:
        os.kill(process, 0)
        status = Path(f"/proc/{process}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("program", [LOADER, COMPARISON], ids=["loader", "comparison"])
def test_a_parent_that_is_killed_leaves_no_process(tmp_path, program):
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "workers").mkdir()
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "workers")]
    with subprocess.Popen(command, env=ENVIRONMENT) as parent:
        try:
            wait_for(lambda: len(list((tmp_path / "workers").iterdir())) == 2, parent)
            workers = [int(path.name) for path in (tmp_path / "workers").iterdir()]
            assert [is_there(worker) for worker in workers] == [True, True]
        finally:
            parent.kill()  # while the loader processes still begin
    deadline = time.monotonic() + 60  # of a busy machine; it takes a fraction of a second, or the rest of the beginning
    while any(map(is_there, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_there, workers))


def start(*arguments):
    command = [sys.executable, "-m", "modelsgenesis", "pretrain", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def finish(*arguments):
    process = start(*arguments)
    assert (process.communicate(timeout=1200)[1], process.returncode) == ("", 0)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)


def size(path):
    return path.stat().st_size if path.exists() else 0


def kill(process, run, moment, chance):
    """Kill at a random moment of the start, of the training, of a write of a checkpoint, or of a bundle."""
    log, before = run / "log.csv", size(run / "log.csv")
    if moment == "start":
        time.sleep(chance.uniform(0, 6))
    else:
        wait_for(lambda: size(log) > before, process)
        time.sleep(chance.uniform(0, 0.5))
    if moment == "checkpoint":
        wait_for(lambda: any((run / "checkpoints").glob(".last.pt.*")), process)
    if moment == "bundle":
        wait_for(lambda: any(run.glob(".model.safetensors.*")) or any(run.glob(".README.md.*")), process, 20)
    process.kill()
    err = process.communicate()[1]
    assert process.returncode in (-9, 0), err


def rows(run):
    if not (run / "log.csv").exists():
        return []
    with (run / "log.csv").open() as file:
        return [(row["step"], row["learning_rate"], row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_and_the_same_end_to_the_bit(ct_folder, tmp_path):
    asked = [ct_folder, *SETTINGS, "--cache", tmp_path / "cache"]
    whole, run = tmp_path / "whole", tmp_path / "killed"
    finish(*asked, "-o", whole)
    chance = random.Random(0)
    moments = ["start"] * 3 + ["training"] * 8 + ["checkpoint"] * 6 + ["bundle"] * 3
    chance.shuffle(moments)
    steps, torn = [], 0
    for moment in moments:
        process = start("--resume", run) if (run / "run.json").exists() else start(*asked, "-o", run)
        kill(process, run, moment, chance)
        torn += any((run / "checkpoints").glob(".last.pt.*")) or any(run.glob(".model.safetensors.*"))
        steps.append(len(rows(run)))
    print(f"killed after steps {steps}; {torn} writes were cut short")  # noqa: T201 - the report of a long test
    finish("--resume", run, "--quiet")
    assert rows(run) == rows(whole)
    for name in ("model.safetensors", "validation.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert not any(run.rglob(".*.pt.*"))
