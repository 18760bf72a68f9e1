"""The command itself under torchrun: two nodes on the loopback interface, one process each."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def start_nodes(*arguments):
    """Start the command on two nodes; return how each ended, what it said on stdout and on stderr."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for node in range(2):
        torchrun = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", node),
            *("--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", port),
            *("-m", "modelsgenesis", "pretrain", *arguments),
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(list(map(str, torchrun)), env=ENVIRONMENT, **pipes))
    ends = [process.communicate(timeout=500) for process in started]
    return [(process.returncode, *said) for process, said in zip(started, ends, strict=True)]


def losses(run):
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_nodes_train_as_one_process_and_rank_0_alone_speaks(command, ct_folder, tmp_path, tiny_pretraining):
    exact = ("--set", "network.norm=instance", "--set", "precision=float32", "--cache", tmp_path / "cache")
    asked = [ct_folder, "--steps", 4, *tiny_pretraining, *exact]
    (status, out, err), other = start_nodes(*asked, "-o", tmp_path / "two")
    assert status == 0, err
    assert other == (0, "", "")
    assert "restoration loss" in out
    assert "2 processes over gloo" in err
    assert command("pretrain", *asked, "-o", tmp_path / "one", "-q").status == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
