"""SIGINT and SIGTERM end a run between two steps, not in the middle of a file."""

import signal
from types import FrameType
from typing import Self


class GracefulStop:
    """Within this context the first signal is remembered and the second ends the process at once.

    Outside the main thread of a program signals cannot be caught; then nothing is remembered.

    Attributes:
        received: The signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, signal.Handlers | int | None] = {}

    def _remember(self, signum: int, _frame: FrameType | None) -> None:
        self.received = signum
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._remember)  # pyright: ignore[reportArgumentType]
            except ValueError:  # not the main thread: the program that called us handles its signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
