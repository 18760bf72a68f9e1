"""Scenarios of two processes that train together; `tests/training/test_distributed.py` starts this file as a program.

    python process_scenarios.py FOLDER SCENARIO …

Each scenario is run by two forked processes over gloo. A JSON of their exit status and of what rank 0 and rank 1 said
is printed, by scenario. Forking here, where torch has been imported and nothing computed, costs no import a process.
"""

# ruff: noqa: T201 - what is printed is what the test reads

import json
import math
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel imports it: before the fork, not in every process

from fitted_numbers import CPU, Fit, Numbers, at, make, terminate
from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import DataError, GenesisError, Interrupted
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import connected, rank

NORMS = {
    "instance": {"norm": "instance"},
    "batch": {"norm": "batch", "statistics": "batch"},
    "running": {"norm": "batch", "statistics": "running"},
}


def unreadable():
    raise DataError("volumes/ab/abc.npy: a prepared volume is gone")


TROUBLE = {
    "signalled": {"on_loss": at(3, terminate)},
    "poisoned": {"on_loss": at(3, lambda: math.nan)},
    "signalled late": {"on_loss": at(3, terminate)},
    "poisoned late": {"on_loss": at(3, lambda: math.nan)},
    "crashed": {"on_loss": at(3, lambda: "no number")},
    "killed": {"on_loss": at(3, lambda: os.kill(os.getpid(), signal.SIGKILL))},
    "unreadable": {"dataset": Numbers(10, unreadable, size=12, shape=(1, 8, 8))},
    "indivisible": {},
}
"""What befalls rank 1 in its third step, or an item that it cannot read; `late` where every fourth step is read."""


class Printed(Reporter):
    """Prints notes, as the command line does."""

    def note(self, text):
        print(text, flush=True)


def train(folder, objective=None, *, norm="instance", every=1, **options):
    """Train a tiny network on images and return it."""
    settings = {"steps": 20, "batch_size": 4, "validate_every": 10, "learning_rate": 1e-2, "reporter": Printed()}
    objective = objective or Fit(Numbers(size=12, shape=(1, 8, 8)))
    config = GenesisUNetConfig(dims=2, widths=(4, 8), **NORMS[norm])
    trainer = make(folder, objective, network=lambda: GenesisUNet(config), **settings | options)
    trainer.readings.every = every
    try:
        trainer.fit()
    finally:
        trainer.run.close()
    return trainer.network


def play(name, folder):
    """Train as a scenario has it; what comes out whole is in `weights.pt` beside the log."""
    networks = {}
    if name == "curves":  # of each kind of normalisation
        networks = {norm: train(folder / name / norm, norm=norm) for norm in NORMS}
    elif name == "resumed":  # the run that the signal ended
        networks = {"instance": train(folder / "signalled", resume=True)}
    elif name == "occupied":  # the folder holds a run already: rank 0 finds out
        train(folder / "curves" / "instance")
    else:
        given = {"dataset": Numbers(size=12, shape=(1, 8, 8)), **(TROUBLE[name] if rank() == 1 else {})}
        options = {"batch_size": 5 if name == "indivisible" else 4, "every": 4 if name.endswith("late") else 1}
        train(folder / name, Fit(**given), **options)
    for norm, network in networks.items():
        if rank() == 0:
            (folder / name / norm).mkdir(parents=True, exist_ok=True)
            torch.save(network.state_dict(), folder / name / norm / "weights.pt")


def play_as_rank(name, folder, number, port):
    """Be one of the processes: play a scenario, say in a file how it went and exit as the command line would."""
    said = os.open(folder / f"{name}.{number}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "LOCAL_RANK": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        with connected(CPU.device):
            play(name, folder)
    except (GenesisError, Interrupted) as error:
        print(f"ended: {error}")
        sys.exit(128 + error.signum if isinstance(error, Interrupted) else 1)


def main(folder, names):
    """Play scenarios one after the other and print how they ended."""
    torch.set_num_threads(1)
    results, context = {}, multiprocessing.get_context("fork")
    for name in names:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [context.Process(target=play_as_rank, args=(name, folder, number, port)) for number in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        said = [(folder / f"{name}.{number}.txt").read_text() for number in range(2)]
        results[name] = {"status": [process.exitcode for process in ranks], "said": said}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
