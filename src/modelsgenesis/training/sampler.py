"""The samples of a step: a function of seed and step alone, whatever the number of workers and processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import GenesisError, TrainingError
from modelsgenesis.training import distributed


def step_batches(
    size: int, batch_size: int, *, start: int, steps: int, seed: int, rank: int = 0, world_size: int = 1
) -> Iterator[list[int]]:
    """Yield the items of each step, from `start` to the end.

    An epoch is every sample once, in an order drawn from seed and epoch. A batch may reach over the end of an epoch,
    so no sample is dropped. Item `epoch * size + index` lets a data set draw anew each epoch.

    Args:
        size: Samples of an epoch.
        batch_size: Samples per step, over all processes.
        start: First step.
        steps: Steps of the whole run.
        seed: Seed of the order.
        rank: This process.
        world_size: Processes; each takes its share of every batch.

    Example:
        >>> list(step_batches(3, 2, start=0, steps=3, seed=0))
        [[2, 0], [1, 4], [5, 3]]
    """
    share = batch_size // world_size
    for step in range(start, steps):
        first = step * batch_size + rank * share
        places = [divmod(position, size) for position in range(first, first + share)]
        yield [epoch * size + int(_order(size, seed, epoch)[place]) for epoch, place in places]


@lru_cache(maxsize=2)  # a batch may reach over the end of an epoch
def _order(size: int, seed: int, epoch: int) -> torch.Tensor:
    # A prime above any number of epochs: no epoch of one seed has the order of an epoch of the next seed.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(size, generator=generator)


def choose_workers(workers: int) -> int:
    """Return the loader processes of this process: as asked, or for -1 its share of half of the cores, at most 8."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return workers if workers >= 0 else min((os.cpu_count() or 1) // 2 // beside, 8)


@contextmanager
def start_loader(dataset: Dataset[Any], config: TrainingConfig, *, start: int, steps: int) -> Iterator[Iterator[Any]]:
    """Give an iterator over this process's batches of the steps from `start`; the worker processes end with the block.

    Each worker prefetches two batches.
    """
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    share = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    loader = DataLoader(
        dataset,
        batch_sampler=step_batches(size, config.batch_size, start=start, steps=steps, seed=config.seed, **share),
        num_workers=choose_workers(config.workers),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(config.seed),  # the loader would draw from the global one
        worker_init_fn=_begin_worker,
    )
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # Starting workers installs a handler of SIGCHLD that raises as soon as one dies: in the midst of a step or of
        # the writing of a file. `next_batch` tells of it too, at a place where nothing is half done.
        is_its_own = getattr(before, "__module__", "").startswith("torch.")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or is_its_own else before)
    try:
        yield iterator
    finally:
        # The traceback of an error can keep the iterator alive until the process exits, and that would wait for
        # workers that ignore SIGTERM.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _begin_worker(_: int) -> None:
    # Ctrl-C and a queue's SIGTERM reach every process of the group. It is the trainer that ends the workers, after its
    # step; one that died at once would cost it a batch.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process at once when the one that started it is gone, also by `kill -9`.

    PyTorch's loader processes compare their parent, every five seconds, with the one that they found as they began:
    of one that was killed before that they never notice, and wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def next_batch(loader: Iterator[Any], step: int) -> Any:
    """Return the next batch of a loader.

    Args:
        loader: Iterator of `start_loader`.
        step: Steps done, for the message.

    Raises:
        GenesisError: What the data set raised, in one line also from a worker process.
        TrainingError: A loader process died.
    """
    try:
        return next(loader)
    except GenesisError as error:
        lines = str(error.args[0]).strip().splitlines() if error.args else []
        if len(lines) < 2:
            raise
        # A worker sends its traceback as the message; the error itself is the last line, after the type's name.
        line = lines[-1].partition(": ")[2]
        raise TrainingError(f"{line}; the last checkpoint is intact") from error
    except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: it died while it sent a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        text = " ".join(str(error).split())
        raise TrainingError(
            f"a loader process died at step {step}: {text}; the last checkpoint is intact, resume with fewer workers"
        ) from error
