"""Processes that train together, as `torchrun` starts them: who writes, what all agree on, how all end.

The gradients go through `DistributedDataParallel`, over NCCL or gloo. Everything else that processes tell each
other, the group of this module carries: gloo on the CPU, without a limit on how long rank 0 may prepare or
validate, while a process that is gone is noticed at once.
"""

import gc
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from modelsgenesis.errors import ConfigurationError, PeerError, TrainingError

Value = TypeVar("Value")

_PATIENCE = timedelta(days=30)  # for rank 0 to prepare scans or to validate


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number; 0 alone writes and prints.
        world_size: How many there are.
        local_rank: Its number on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    _group: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def from_environment(cls) -> Self:
        """Return what `torchrun` set in the environment; one process alone without it.

        Raises:
            ConfigurationError: The variables are no numbers that fit together.

        Example:
            >>> Processes.from_environment()
            Processes(rank=0, world_size=1, local_rank=0)
        """
        names, defaults = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("0", "1", "0")
        texts = [os.environ.get(name, default) for name, default in zip(names, defaults, strict=True)]
        if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
            told = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
            raise ConfigurationError(f"{told}: expected what torchrun sets; start with torchrun or unset them")
        return cls(*map(int, texts))

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[Self]:
        """Connect the processes while the block runs; a process alone has nothing to connect.

        Raises:
            TrainingError: The others cannot be reached.
        """
        if self.is_alone:
            yield self
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"process {self.rank} of {self.world_size} cannot reach the others: {_line(error)}; start with torchrun"
            ) from error
        try:
            yield replace(self, _group=group)
        except BaseException as error:
            _forget_frames(error)
            if not self.is_main and not isinstance(error, PeerError):
                error.add_note(f"process {self.rank}")  # the command line then prints it, though this is not rank 0
            raise
        finally:
            # What still holds a network with gloo's threads when the interpreter ends makes it abort.
            gc.collect()
            dist.destroy_process_group()

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network as a loss should call it: gradients become the mean over the processes."""
        if self.is_alone:
            return network
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def gather(self, value: Value) -> list[Value]:
        """Return everyone's value, by rank."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.watching():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return everyone's numbers, by rank; as many from each."""
        if self.is_alone:
            return [list(numbers)]
        mine = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        with self.watching():
            dist.all_gather(rows, mine, group=self._group)
        return [row.tolist() for row in rows]

    def agree(self, problem: Exception | None = None) -> None:
        """Raise in every process when something went wrong in one of them.

        Args:
            problem: What went wrong here, if anything.

        Raises:
            Exception: `problem` itself, where it happened and this is rank 0.
            TrainingError: On rank 0, what happened elsewhere.
            PeerError: In the other processes, about which rank 0 speaks.
        """
        if not any(failed for (failed,) in self.gather_numbers([problem is not None])):
            return
        if self.is_alone and problem is not None:
            raise problem
        told = self.gather(None if problem is None else f"{type(problem).__name__}: {_line(problem)}")
        rank, text = next((rank, text) for rank, text in enumerate(told) if text is not None)
        if not self.is_main:
            raise PeerError(text) from problem
        raise problem or TrainingError(f"process {rank} failed: {text}")

    def first(self, work: Callable[[], Value]) -> Value:
        """Do something on rank 0 alone and return its result everywhere; the others wait.

        Raises:
            Exception: On rank 0, what `work` raised.
            PeerError: In the other processes, when it raised.
        """
        result: list[Any] = [self._where(self.is_main, work)]
        if not self.is_alone:
            with self.watching():
                dist.broadcast_object_list(result, src=0, group=self._group)
        return result[0]

    def in_turn(self, work: Callable[[], Value]) -> Value:
        """Do something on rank 0, then on all others at once, and return each its own result.

        For what leaves a file behind that the others then find, such as a download.
        """
        first, later = self._where(self.is_main, work), self._where(not self.is_main, work)
        return cast("Value", first if self.is_main else later)

    def first_on_each_machine(self, work: Callable[[], Value]) -> Value:
        """Like `first`, but once on every machine too, for what must be on its own disk.

        Rank 0 comes first, so that on a shared disk the others find everything done; its result is returned.
        """
        result = self.first(work)
        self._where(self.local_rank == 0 and not self.is_main, work)
        return result

    def _where(self, here: bool, work: Callable[[], Value]) -> Value | None:
        """Do something in the processes where `here` holds while the others wait; what one raises ends all."""
        result = problem = None
        if here:
            try:
                result = work()
            except Exception as error:
                problem = error
        self.agree(problem)
        return result

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Turn the loss of another process into one line.

        Raises:
            TrainingError: On rank 0, when another process is gone.
            PeerError: In the others.
        """
        try:
            yield
        except RuntimeError as error:
            if self.is_alone or not _is_lost(error):
                raise
            text = (
                f"another of the {self.world_size} processes is gone: see what it said; the last checkpoint is intact"
            )
            raise (TrainingError if self.is_main else PeerError)(text) from error


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistBackendError) or "gloo" in text or "connection" in text


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold: a parallel network among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
