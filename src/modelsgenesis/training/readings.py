"""What steps came to, on its way from the device: read late, so that a GPU is never waited for."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Row = tuple[int, float, float]
"""A step, its learning rate, and the seconds that were waited for its batch."""

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
        self._steps: list[tuple[Row, Tensor]] = []
        self._sent: list[tuple[tuple[Row, ...], Tensor, Any]] = []
        self._since: Any = None

    @property
    def pending(self) -> int:
        """How many steps have not been returned."""
        return len(self._steps) + sum(len(rows) for rows, _, _ in self._sent)

    def add(self, row: Row, numbers: Tensor) -> None:
        """Take up a step: what is known of it, and its numbers [n] on the device."""
        self._steps.append((row, numbers))

    def begin(self) -> None:
        """Count the time of the next steps from here on."""
        self._since = self._mark()

    def _mark(self) -> Any:
        """Return the time, of CUDA as an event: only there is it known when a step is done."""
        if self._device.type != "cuda":
            return time.perf_counter()
        return torch.cuda.current_stream(self._device).record_event(torch.cuda.Event(enable_timing=True))

    def take(self, *, everything: bool = False) -> Iterator[tuple[Row, float, list[float]]]:
        """Yield the steps that are due, in order: those sent at the reading before, or everything there is.

        With the seconds that each took, the mean of those that were sent together.
        """
        if not everything and len(self._steps) < self.every:
            return
        kept = 0 if everything or self.every == 1 else 1
        if self._steps:
            rows, numbers = zip(*self._steps, strict=True)
            # From CUDA it goes into pinned memory, and nobody waits for it.
            sent = torch.stack(numbers).to("cpu", non_blocking=self._device.type == "cuda")
            self._sent.append((rows, sent, self._mark()))
            self._steps = []
        while len(self._sent) > kept:
            rows, sent, mark = self._sent.pop(0)
            if self._device.type == "cuda":
                mark.synchronize()  # no wait for what was sent so long ago
                seconds = self._since.elapsed_time(mark) / 1000
            else:
                seconds = mark - self._since
            self._since = mark
            yield from ((row, seconds / len(rows), each) for row, each in zip(rows, sent.tolist(), strict=True))
