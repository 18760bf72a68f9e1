"""What steps came to, on its way from the device: read late, so that a GPU is never waited for."""

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
        every: Steps between readings; 1 waits for each, None chooses by the device.
    """

    def __init__(self, device: torch.device, every: int | None = None) -> None:
        self.every = every or (READ_EVERY if device.type == "cuda" else 1)
        self._device = device
        self._waiting: list[tuple[Row, Tensor]] = []
        self._sent: list[tuple[list[tuple[Row, Tensor]], Tensor, torch.cuda.Event | None]] = []

    @property
    def pending(self) -> int:
        """How many steps have not been returned."""
        return len(self._waiting) + sum(len(steps) for steps, _, _ in self._sent)

    def add(self, row: Row, numbers: Tensor) -> None:
        """Take up a step: what is known of it, and its numbers [n] on the device."""
        self._waiting.append((row, numbers))

    def take(self, *, everything: bool = False) -> list[tuple[Row, list[float]]]:
        """Return the steps that are due, in order: those sent at the reading before, or everything there is."""
        if not everything and len(self._waiting) < self.every:
            return []
        arrived, self._sent = self._sent, [self._send()] if self._waiting else []
        if everything or self.every == 1:
            arrived, self._sent = arrived + self._sent, []
        taken: list[tuple[Row, list[float]]] = []
        for steps, numbers, event in arrived:
            if event:
                event.synchronize()  # no wait for what was sent so long ago
            taken += [(row, values) for (row, _), values in zip(steps, numbers.tolist(), strict=True)]
        return taken

    def _send(self) -> tuple[list[tuple[Row, Tensor]], Tensor, torch.cuda.Event | None]:
        steps, self._waiting = self._waiting, []
        # From a GPU it goes into pinned memory, and nobody waits for it.
        numbers = torch.stack([numbers for _, numbers in steps]).to("cpu", non_blocking=True)
        if self._device.type != "cuda":
            return steps, numbers, None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return steps, numbers, event
