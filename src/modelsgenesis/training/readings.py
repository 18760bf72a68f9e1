"""What steps came to, on its way from the device: read late, so that a GPU is never waited for."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]

READ_EVERY = 8
"""Steps of a GPU between readings; each is of the steps before the last ones, which are still in its queue."""


class Readings:
    """Numbers of steps, which arrive in order, together with what is known of each step.

    Args:
        device: Where they are computed.

    Attributes:
        every: Steps between readings; 1 waits for each, as it does on everything but CUDA.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = READ_EVERY if device.type == "cuda" else 1
        self._device = device
        self._rows: list[Row] = []
        self._numbers: list[Tensor] = []
        self._sent: list[tuple[list[Row], Tensor, torch.cuda.Event | None]] = []

    @property
    def pending(self) -> int:
        """How many steps have not been returned."""
        return len(self._rows) + sum(len(rows) for rows, _, _ in self._sent)

    def add(self, row: Row, numbers: Tensor) -> None:
        """Take up a step: what is known of it, and its numbers [n] on the device."""
        self._rows.append(row)
        self._numbers.append(numbers)

    def take(self, *, everything: bool = False) -> Iterator[tuple[Row, list[float]]]:
        """Yield the steps that are due, in order: those sent at the reading before, or everything there is."""
        if not everything and len(self._rows) < self.every:
            return
        kept = 0 if everything or self.every == 1 else 1
        if self._rows:
            # From a GPU it goes into pinned memory, and nobody waits for it.
            numbers = torch.stack(self._numbers).to("cpu", non_blocking=True)
            event = torch.cuda.Event() if self._device.type == "cuda" else None
            if event:
                event.record(torch.cuda.current_stream(self._device))
            self._sent.append((self._rows, numbers, event))
            self._rows, self._numbers = [], []
        while len(self._sent) > kept:
            rows, numbers, event = self._sent.pop(0)
            if event:
                event.synchronize()  # no wait for what was sent so long ago
            yield from zip(rows, numbers.tolist(), strict=True)
