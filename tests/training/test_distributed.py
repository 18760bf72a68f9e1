import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import process_scenarios as scenarios
from modelsgenesis.errors import ConfigurationError, TrainingError
from modelsgenesis.training import distributed

pytestmark = pytest.mark.timeout(900)  # two processes beside everything else that a busy machine does
TESTS = Path(__file__).parents[1]
ENDS = {  # how each of the two processes ends, and what rank 0 says
    "curves": ([0, 0], ""),
    "signalled": ([143, 143], "interrupted at step 3 of 20"),
    "resumed": ([0, 0], ""),
    "poisoned": ([1, 1], "ended: loss is nan at step 3 with learning rate"),
    "signalled late": ([143, 143], "interrupted at step 4 of 20"),
    "poisoned late": ([1, 1], "ended: loss is nan at step 3 with learning rate"),
    "unreadable": ([1, 1], "ended: process 1 failed: DataError: volumes/ab/abc.npy: a prepared volume is gone"),
    "crashed": ([1, 1], "ended: another of the 2 processes has ended"),
    "killed": ([1, -9], "ended: another of the 2 processes has ended"),
    "indivisible": ([1, 1], "ended: batch_size: received 5 for 2 processes, which share it"),
    "occupied": ([1, 1], "holds a run already; add --resume"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def ended(folder):
    """How two processes ended each scenario, and what they said."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "process_scenarios.py"), str(folder), *ENDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def losses(path):
    with path.open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ENDS)
def test_what_happens_to_one_ends_all_and_rank_0_tells(ended, name):
    end, (statuses, words) = ended[name], ENDS[name]
    assert end["status"] == statuses, end
    assert words in end["said"][0]
    assert "Traceback" not in end["said"][0]


@pytest.mark.parametrize("norm", list(scenarios.NORMS))
def test_two_processes_learn_what_one_learns(ended, folder, tmp_path, norm):
    alone = scenarios.train(tmp_path / norm, norm=norm)
    curve, together = losses(tmp_path / norm / "log.csv"), losses(folder / "curves" / norm / "log.csv")
    assert len(together) == 20
    assert together == pytest.approx(curve, abs=1e-5)
    assert curve[-1] < curve[0]
    weights = torch.load(folder / "curves" / norm / "weights.pt")
    # A bias before a normalisation has no gradient but rounding, which Adam makes steps of; averages follow it.
    compared = [name for name, value in weights.items() if value.ndim != 1 or "running_var" in name]
    for name in compared:
        torch.testing.assert_close(weights[name], alone.state_dict()[name], atol=1e-3, rtol=1e-2)
    assert any("running_var" in name for name in compared) is (norm != "instance")


def test_a_resumed_run_of_two_processes_equals_the_uninterrupted_one_to_the_bit(ended, folder):
    state = torch.load(folder / "signalled" / "checkpoints" / "last.pt", weights_only=True)
    assert (state["progress"]["step"], len(state["random"])) == (20, 2)
    whole, resumed = (torch.load(folder / name / "weights.pt") for name in ("curves/instance", "resumed/instance"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(folder / "signalled" / "log.csv") == losses(folder / "curves" / "instance" / "log.csv")


def test_reads_what_torchrun_sets(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.torchrun_ranks() == (3, 4, 1)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ConfigurationError, match="RANK=4, WORLD_SIZE=4, LOCAL_RANK=1: expected what torchrun sets"):
        distributed.torchrun_ranks()


def test_says_that_the_others_cannot_be_reached(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    unreachable = pytest.raises(TrainingError, match=r"process 0 of 2 cannot reach the others: .*start with torchrun")
    with unreachable, distributed.connected(torch.device("cpu")):
        pass
