"""Scenarios of two processes that train together; `tests/training/test_distributed.py` starts this file as a program.

    python process_scenarios.py FOLDER SCENARIO …

Each scenario is run by two forked processes over gloo. A JSON of their exit status and of what rank 0 and rank 1 said
is printed, by scenario. Forking here, where torch has been imported and nothing computed, costs no import a process.
"""

# ruff: noqa: T201 - what is printed is what the test reads

import json
import math
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
    """Restore images from blurred ones; `at` calls `happen` before the loss of that call."""

    def __init__(self, dataset=None, at=None, happen=None):
        self.dataset = dataset or Images()
        self.at, self.happen, self.calls = at, happen, 0

    def loss(self, network, batch):
        self.calls += 1
        factor = self.happen() if self.calls == self.at else 1.0
        blurred = functional.avg_pool2d(batch, 3, 1, 1)
        return functional.mse_loss(network(blurred), batch) * (1.0 if factor is None else factor)

    def validate(self, network):
        batch = torch.stack([Images()[100 + item] for item in range(4)])
        return {"loss": functional.mse_loss(network(batch), batch).item()}

    def score(self, metrics):
        return metrics["loss"]


class Notes(Reporter):
    """Prints notes, as the command line does."""

    def note(self, text):
        print(text, flush=True)


def train(folder, *, objective=None, norm="instance", resume=False, kept=None, **changes):
    """Train a tiny network and return its trainer."""
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
        keep=lambda _network, progress: kept.append(progress.step) if kept is not None else None,
    )
    try:
        if resume:
            trainer.resume()
        trainer.fit()
    finally:
        run.close()
    return trainer


def curves(folder):
    """Train each kind of normalisation, write the final weights beside the log."""
    for norm in NORMS:
        trainer = train(folder / norm, norm=norm)
        if rank() == 0:
            torch.save(trainer.network.state_dict(), folder / norm / "weights.pt")


def on_rank_1(happen):
    """Return an objective in which something happens on rank 1 at its third step."""
    return Blurred(at=3 if rank() == 1 else None, happen=happen)


def signalled(folder):
    """A signal reaches one process."""
    train(folder, objective=on_rank_1(lambda: signal.raise_signal(signal.SIGTERM)))


def resumed(folder):
    """The run that the signal ended goes on."""
    trainer = train(folder.parent / "signalled", resume=True)
    if rank() == 0:
        folder.mkdir()
        torch.save(trainer.network.state_dict(), folder / "weights.pt")


def poisoned(folder):
    """The loss of one process becomes NaN."""
    train(folder, objective=on_rank_1(lambda: math.nan))


def skipped(folder):
    """The same, and the step is passed over."""
    train(folder, objective=on_rank_1(lambda: math.nan), nonfinite="skip")


def unreadable(folder):
    """One process cannot read an item of its share."""
    train(folder, objective=Blurred(Images(broken=10 if rank() == 1 else None)))


def crashed(folder):
    """One process fails in the middle of a step."""
    train(folder, objective=on_rank_1(lambda: "no number"))


def killed(folder):
    """One process is killed in the middle of a step."""
    train(folder, objective=on_rank_1(lambda: os.kill(os.getpid(), signal.SIGKILL)))


def indivisible(folder):
    """The batch cannot be shared evenly."""
    train(folder, batch_size=5)


def occupied(folder):
    """The folder holds a run already: rank 0 finds out, all end."""
    train(folder.parent / "curves" / "instance")


def run_rank(scenario, folder, rank, port):
    """Be one of the processes: run a scenario and return the exit status, as the command line would."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        with connected(HARDWARE.device):
            scenario(folder)
    except SystemExit as error:
        return error.code
    except GenesisError as error:
        print(f"error: {error}")
        return 1
    except Interrupted as error:
        print(error)
        return 128 + error.signum
    return 0


def fork(scenario, folder, rank, port):
    """Start a process that runs a scenario with its output in a file; return its number."""
    child = os.fork()
    if child:
        return child
    said = os.open(folder.parent / f"{scenario.__name__}.{rank}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = 70
    try:
        status = run_rank(scenario, folder, rank, port)
    except BaseException as error:
        print(f"traceback: {type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(status)


def main(folder, names):
    """Run scenarios one after the other and print how they ended."""
    torch.set_num_threads(1)
    results = {}
    for name in names:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start = time.monotonic()
        children = [fork(globals()[name], folder / name, rank, port) for rank in range(2)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        said = [(folder / f"{name}.{rank}.txt").read_text() for rank in range(2)]
        results[name] = {"status": statuses, "said": said, "seconds": time.monotonic() - start}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
