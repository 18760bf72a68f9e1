"""Processes that train together, as `torchrun` starts them."""

import os
from dataclasses import dataclass
from typing import Self


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

    @classmethod
    def from_environment(cls) -> Self:
        """Return what `torchrun` set in the environment; one process alone without it.

        Example:
            >>> Processes.from_environment()
            Processes(rank=0, world_size=1, local_rank=0)
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        defaults = ("0", "1", "0")
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, defaults, strict=True)))

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0
