"""A run of a second: a small network fits the sum of three numbers, and something may happen on the way."""

import csv
import signal

import torch
from torch import nn
from torch.utils.data import Dataset

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import rank
from modelsgenesis.training.run import Run
from modelsgenesis.training.trainer import Objective, Trainer

CPU = choose_hardware("cpu", "float32")


class Numbers(Dataset):
    """Arrays of numbers that follow from the item; `happen` is called for the item `at`."""

    def __init__(self, at=None, happen=None, size=7, shape=(3,)):
        self.at, self.happen, self.size, self.shape = at, happen, size, shape

    def __len__(self):
        return self.size

    def __getitem__(self, item):
        if item == self.at:
            self.happen()
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(item))


class Fit(Objective):
    """Fit the sum over axis 1; `on_loss` and `on_validate` get the number of the call, `scores` it validates as."""

    def __init__(self, dataset=None, on_loss=None, on_validate=None, scores=()):
        self.dataset, self.scores = dataset or Numbers(), list(scores)
        self.on_loss, self.on_validate = on_loss, on_validate
        self.losses = self.validations = 0

    def loss(self, network, batch, items):
        self.losses += 1
        factor = self.on_loss(self.losses) if self.on_loss else None
        loss = (network(batch) - batch.sum(dim=1, keepdim=True)).square().mean()
        return loss if factor is None else loss * factor

    def validate(self, network):
        self.validations += 1
        if self.on_validate:
            self.on_validate(self.validations)
        value = self.scores.pop(0) if self.scores else sum(p.sum().item() for p in network.parameters())
        return value, {"value": value}


def make(
    folder, objective=None, *, network=None, hardware=CPU, resume=False, reporter=None, on_validation=None, **changes
):
    """Return a trainer of nine steps in a folder; `network` makes another than the small one of numbers."""
    settings = {"steps": 9, "batch_size": 2, "validate_every": 4, "warmup_steps": 2, "workers": 0, **changes}
    config = TrainingConfig(**settings)
    run = Run.open(folder, {"config": config.to_dict()}, resume=resume)
    torch.manual_seed(rank())  # what rank 0 starts from is what counts
    trainer = Trainer(
        network=network() if network else nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
        objective=objective or Fit(),
        config=config,
        run=run,
        hardware=hardware,
        reporter=reporter or Reporter(),
        on_validation=on_validation or (lambda *_: None),
    )
    if resume:
        trainer.resume()
    return trainer


def at(number, happen):
    """Return a callback that lets something happen at its nth call."""
    return lambda call: happen() if call == number else None


def terminate():
    """Ask this process to end."""
    signal.raise_signal(signal.SIGTERM)


def rows(path):
    """Return the rows of a log."""
    with path.open() as file:
        return list(csv.DictReader(file))
