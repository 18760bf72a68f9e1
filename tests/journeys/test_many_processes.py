"""A group with many scans: pretraining in several processes, killed half-way, and resumed."""

import csv
import subprocess
import time

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file

from conftest import make_ct

TRAIN = "torchrun --nproc-per-node 2 -m modelsgenesis pretrain"
TINY = (
    "--steps 200 --set network.widths=8,16 --set patch_size=16,16,12 --set batch_size=4 --set workers=0 "
    "--set validate_every=50 --set checkpoint_every=10"
)


@pytest.fixture(scope="module", autouse=True)
def _scans(user):
    (user.home / "scans").mkdir()
    for index in range(6):
        scan = nib.Nifti1Image(make_ct(index), np.diag([2.0, 2.0, 2.5, 1.0]))
        nib.save(scan, user.home / f"scans/patient{index}.nii.gz")
    user.environment.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")


def test_a_run_of_two_processes_is_killed_and_resumed(user):
    run = user.home / "runs/group"  # in full, for `pkill` to find these processes alone
    killed = user.starts(f"{TRAIN} scans -o {run} {TINY}")
    log, deadline = run / "log.csv", time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 12):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    subprocess.run(["pkill", "-KILL", "-f", run], check=True)  # torchrun and its workers
    killed.communicate()
    output = user.types(f"{TRAIN} --resume runs/group")
    assert "2 processes over gloo" in output.stderr
    assert output.stdout.count("restoration loss") == 1  # one of the processes speaks
    with log.open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 201))


def test_its_weights_open_and_go_on_in_one_process(user):
    weights = load_file(user.home / "runs/group/model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in weights.values())
    output = user.types(f"modelsgenesis pretrain scans --init runs/group -o runs/more {TINY} --steps 2 -q")
    assert "model of step 2" in output.stdout
