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
import time
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel imports it: before the fork, not in every process
from torch.nn import functional
from torch.utils.data import Dataset

from modelsgenesis.configs import GenesisUNetConfig, TrainingConfig
from modelsgenesis.errors import DataError, GenesisError, Interrupted
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import connected, rank
from modelsgenesis.training.run import Run
from modelsgenesis.training.trainer import Objective, Trainer

HARDWARE = Hardware(torch.device("cpu"))
NORMS = {
    "instance": {"norm": "instance"},
    "batch": {"norm": "batch", "statistics": "batch"},
    "running": {"norm": "batch", "statistics": "running"},
}
TRAINING = TrainingConfig(
    steps=20, batch_size=4, validate_every=10, warmup_steps=2, learning_rate=1e-2, workers=0, precision="float32"
)
TROUBLE = {
    "signalled": {"happen": lambda: signal.raise_signal(signal.SIGTERM)},
    "poisoned": {"happen": lambda: math.nan},
    "skipped": {"happen": lambda: math.nan},
    "crashed": {"happen": lambda: "no number"},
    "killed": {"happen": lambda: os.kill(os.getpid(), signal.SIGKILL)},
    "unreadable": {"broken": 10},
    "indivisible": {},
}
"""What befalls rank 1 in its third step, or an item that it cannot read."""
SETTINGS = {"skipped": {"nonfinite": "skip"}, "indivisible": {"batch_size": 5}}


class Images(Dataset):
    """Images that are a function of their number; `broken` is an item that cannot be read."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item == self.broken:
            raise DataError("volumes/ab/abc.npy: a prepared volume is gone")
        return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(item))


class Blurred(Objective):
    """Restore images from blurred ones; `happen` is called before the third loss, and may give a factor of it."""

    def __init__(self, broken=None, happen=None):
        self.dataset, self.happen, self.calls = Images(broken), happen, 0

    def loss(self, network, batch, items):
        self.calls += 1
        factor = self.happen() if self.happen and self.calls == 3 else None
        loss = functional.mse_loss(network(functional.avg_pool2d(batch, 3, 1, 1)), batch)
        return loss if factor is None else loss * factor

    def validate(self, network):
        batch = torch.stack([Images()[100 + item] for item in range(4)])
        return {"loss": functional.mse_loss(network(batch), batch).item()}

    def score(self, metrics):
        return metrics["loss"]


class Notes(Reporter):
    """Prints notes, as the command line does."""

    def note(self, text):
        print(text, flush=True)


def train(folder, *, objective=None, norm="instance", resume=False, **changes):
    """Train a tiny network and return it."""
    config = TRAINING.override(**changes)
    run = Run.open(folder, {"config": config.to_dict()}, resume=resume)
    torch.manual_seed(rank())  # what rank 0 starts from is what counts
    trainer = Trainer(
        network=GenesisUNet(GenesisUNetConfig(dims=2, widths=(4, 8), **NORMS[norm])),
        objective=objective or Blurred(),
        config=config,
        run=run,
        hardware=HARDWARE,
        reporter=Notes(),
        on_best=lambda _network, _progress: None,
    )
    try:
        if resume:
            trainer.resume()
        trainer.fit()
    finally:
        run.close()
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
        objective = Blurred(**(TROUBLE[name] if rank() == 1 else {}))
        train(folder / name, objective=objective, **SETTINGS.get(name, {}))
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
        with connected(HARDWARE.device):
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
        start = time.monotonic()
        ranks = [context.Process(target=play_as_rank, args=(name, folder, number, port)) for number in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        said = [(folder / f"{name}.{number}.txt").read_text() for number in range(2)]
        seconds = time.monotonic() - start
        results[name] = {"status": [process.exitcode for process in ranks], "said": said, "seconds": seconds}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
