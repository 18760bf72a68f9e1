"""What ends a training early: a signal, or a loss that becomes NaN or diverges."""

import math
import signal
import statistics
from pathlib import Path
from types import FrameType
from typing import Self

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ExplodingLossError, NonFiniteLossError
from modelsgenesis.reporting import Reporter

FIRST_LOSSES = 20
SKIPS = 10


class GracefulStop:
    """Let SIGINT and SIGTERM end a run between two steps, not in the middle of a file.

    Within this context the first signal is remembered and the second ends the process at once. Outside the main
    thread of a program signals cannot be caught; then nothing is remembered.

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


class DivergenceCheck:
    """Stops a run when the loss becomes NaN or diverges, before the weights follow it.

    Args:
        config: `nonfinite` and `divergence_factor`.
        folder: Folder of the run, for the messages.
        reporter: Receives a note of each skipped step.
        losses: First losses of the run, which this extends; a checkpoint carries them on.
    """

    def __init__(self, config: TrainingConfig, folder: Path, reporter: Reporter, losses: list[float]) -> None:
        self.config, self.folder, self.reporter, self.losses = config, folder, reporter, losses
        self.skipped = 0

    def accept(self, loss: float, step: int, rate: float) -> bool:
        """Return whether to learn from a loss.

        Args:
            loss: Mean of the whole batch.
            step: Counted from 1.
            rate: Learning rate, for the message.

        Raises:
            NonFiniteLossError: It is NaN or infinite; with `nonfinite="skip"`, the tenth time in a row.
            ExplodingLossError: It is above `divergence_factor` times the median of the first losses.
        """
        if not math.isfinite(loss):
            self.refuse(f"loss is {loss}", step, rate)
            return False
        if len(self.losses) < FIRST_LOSSES:
            self.losses.append(loss)
            return True
        usual = statistics.median(self.losses)
        if self.config.divergence_factor and usual and loss > self.config.divergence_factor * usual:
            raise ExplodingLossError(
                f"loss is {loss:g} at step {step}, the first {FIRST_LOSSES} losses had a median of {usual:g}: "
                f"{self._remedy(rate)}, or a higher divergence_factor"
            )
        return True

    def refuse(self, what: str, step: int, rate: float) -> None:
        """Skip a step, or end the run.

        Raises:
            NonFiniteLossError: `nonfinite="stop"`, or this is the tenth step in a row.
        """
        self.skipped += 1
        if self.config.nonfinite == "stop" or self.skipped >= SKIPS:
            often = f", {SKIPS} times in a row" if self.config.nonfinite == "skip" else ""
            raise NonFiniteLossError(f"{what} at step {step} with learning rate {rate:g}{often}: {self._remedy(rate)}")
        self.reporter.note(f"step {step} skipped: {what}")

    def _remedy(self, rate: float) -> str:
        return (
            f"lower the learning rate (now {rate:g}) or set clip_norm in a new run; the best network so far and the "
            f"last checkpoint are in {self.folder}, and --init goes on from it"
        )
