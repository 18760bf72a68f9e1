"""Processes that train together, as `torchrun` starts them: who writes, what all agree on, how all end.

Within `connected` the functions here speak to the other processes; everywhere else a process is alone, rank 0 of one,
and they do the work at once. The gradients go through `DistributedDataParallel`, over NCCL or gloo.
"""

import gc
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from modelsgenesis.errors import ConfigurationError, TrainingError, gpu_trouble
from modelsgenesis.files import reason_of

Value = TypeVar("Value")

# Rank 0 may prepare scans or validate for hours while the others wait in a collective, so the default of half an hour
# is too short. A process that is gone closes its connections, which gloo notices at once whatever the timeout.
_PATIENCE = timedelta(days=30)

# What is not a gradient goes over a group of its own: NCCL would put every Python object on the GPU, and its timeout,
# which has to be short to notice a lost GPU, would end the wait for rank 0.
_group: Any = None


def torchrun_ranks() -> tuple[int, int, int]:
    """Return rank, number of processes and rank on this machine, as `torchrun` set them; 0, 1, 0 without it.

    Raises:
        ConfigurationError: The variables are not numbers that fit together.

    Example:
        >>> torchrun_ranks()
        (0, 1, 0)
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [os.environ.get(name, default) for name, default in zip(names, "010", strict=True)]
    if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
        received = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
        raise ConfigurationError(f"{received}: expected what torchrun sets; start with torchrun or unset them")
    number, count, local = map(int, texts)
    return number, count, local


def rank() -> int:
    """Return the number of this process; 0 alone writes and prints."""
    return 0 if _group is None else dist.get_rank()


def world_size() -> int:
    """Return how many processes train together."""
    return 1 if _group is None else dist.get_world_size()


@contextmanager
def connected(device: torch.device) -> Iterator[None]:
    """Connect the processes that `torchrun` started while the block runs; there is nothing to do for one alone.

    What ends one process ends all. Rank 0 raises what went wrong, its own error first; a process that only learns of
    the trouble of another ends quietly with `SystemExit`, so that it is reported once.

    Raises:
        TrainingError: The others cannot be reached, or one of them is gone.
    """
    global _group
    number, count, _ = torchrun_ranks()
    if count == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        _group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {number} of {count} cannot reach the others: {reason_of(error)}; start with torchrun"
        ) from error
    try:
        yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:  # their frames hold the parallel network with its threads
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        # Collectives tell of a lost process by RuntimeErrors of many texts, NCCL by one of its own.
        if isinstance(error, RuntimeError) and re.search("gloo|connection|nccl", str(error), re.IGNORECASE):
            if number:
                raise SystemExit(1) from error
            ended = f"another of the {count} processes has ended: see its output; the last checkpoint is intact"
            raise TrainingError(gpu_trouble(error) or ended) from error
        if isinstance(error, Exception) and number:
            get_error_handler().record_exception(error)  # as @record does: torchrun's summary names the first error
            error.add_note(f"process {number}")  # the command line then prints it, though this is not rank 0
        raise
    finally:
        # Gloo's threads abort the interpreter at its end if a parallel network still holds them then.
        gc.collect()
        _group = None
        dist.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """Return everyone's value, by rank."""
    if _group is None:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_group)
    return values


def mean(value: Tensor) -> Tensor:
    """Return the mean of everyone's number, where it lies; a GPU is not waited for."""
    if _group is None:
        return value
    total = value.double()  # for as many floats a sum without rounding
    dist.all_reduce(total)
    return total / world_size()


@contextmanager
def raise_if_any_failed() -> Iterator[None]:
    """Raise in every process when the block fails in one of them; each has to come to its end.

    Without it the others would wait in their next collective for a process that has left.

    Raises:
        Exception: On rank 0, what happened here.
        TrainingError: On rank 0, what happened elsewhere.
        SystemExit: In the other processes, about which rank 0 speaks.
    """
    problem = None
    try:
        yield
    except Exception as error:
        problem = error
    problems = gather(problem and f"{type(problem).__name__}: {reason_of(problem)}")
    number, text = next(((number, text) for number, text in enumerate(problems) if text), (0, None))
    if text and rank():
        raise SystemExit(1) from problem
    if text:
        raise problem or TrainingError(f"process {number} failed: {text}")


def on_rank_zero(work: Callable[[], Value], *, each_machine: bool = False) -> Value:
    """Do something on rank 0 alone and return its result everywhere; the others wait. Errors end all.

    Args:
        work: What to do.
        each_machine: Afterwards do it once on every other machine too, for what must be on its own disk. On a shared
            disk these find everything done.
    """
    if _group is None:
        return work()
    result: list[Any] = [None]
    with raise_if_any_failed():
        if rank() == 0:
            result = [work()]
    dist.broadcast_object_list(result, src=0, group=_group)
    if each_machine:
        with raise_if_any_failed():
            if rank() > 0 and torchrun_ranks()[2] == 0:
                work()
    return result[0]
