"""Trainings that learn nothing, for tests of what runs them; worker processes import this."""

import os
import time

from modelsgenesis.errors import DataError, Interrupted, TrainingError
from modelsgenesis.training.trainer import DivergenceError


def train(trial, folder=None):
    """Do what the arm's name says."""
    if trial.arm == "die":
        os._exit(9)
    if trial.arm == "error":
        raise DataError("no such patient")
    if trial.arm == "memory":
        import torch

        raise TrainingError("start again with batch_size=2") from torch.OutOfMemoryError("CUDA out of memory")
    if trial.arm == "lost":
        raise RuntimeError("CUDA error: device lost")
    if trial.arm == "interrupted":
        raise Interrupted(15, "interrupted")
    if trial.arm == "diverge":
        raise DivergenceError("loss is nan")
    if trial.arm == "sleep":
        (folder / f"{os.getpid()}").touch()
        time.sleep(120)
    import torch

    return {"seed": trial.seed, "process": os.getpid(), "threads": torch.get_num_threads()}
