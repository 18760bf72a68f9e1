"""Ends a run whose loss is no number or explodes, before the weights follow it."""

import math
import statistics
from pathlib import Path

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ExplodingLossError, NonFiniteLossError
from modelsgenesis.reporting import Reporter

FIRST_LOSSES = 20
SKIPS = 10


class Guard:
    """Watches the losses of a run.

    Args:
        config: `nonfinite` and `explosion`.
        folder: Of the run, for the messages.
        reporter: Is told of skipped steps.
        losses: The first losses of the run, which this extends; a checkpoint carries them on.
    """

    def __init__(self, config: TrainingConfig, folder: Path, reporter: Reporter, losses: list[float]) -> None:
        self.config, self.folder, self.reporter, self.losses = config, folder, reporter, losses
        self.skipped = 0

    def accept(self, loss: float, step: int, rate: float) -> bool:
        """Tell whether to learn from a loss.

        Args:
            loss: Of the whole batch.
            step: Counted from 1.
            rate: Learning rate, for the message.

        Raises:
            NonFiniteLossError: It is NaN or infinite; with `nonfinite="skip"`, the tenth time in a row.
            ExplodingLossError: It is above `explosion` times the median of the first losses.
        """
        if not math.isfinite(loss):
            self.refuse(f"loss is {loss}", step, rate)
            return False
        if len(self.losses) < FIRST_LOSSES:
            self.losses.append(loss)
            return True
        usual = statistics.median(self.losses)
        if self.config.explosion and usual and loss > self.config.explosion * usual:
            raise ExplodingLossError(
                f"loss is {loss:g} at step {step}, the first {FIRST_LOSSES} losses had a median of {usual:g}: "
                f"{self._remedy(rate)}, or a higher explosion"
            )
        return True

    def refuse(self, what: str, step: int, rate: float) -> None:
        """Pass over a step, or end the run.

        Raises:
            NonFiniteLossError: `nonfinite="stop"`, or this is the tenth step in a row.
        """
        self.skipped += 1
        if self.config.nonfinite == "stop" or self.skipped >= SKIPS:
            often = f", {SKIPS} times in a row" if self.config.nonfinite == "skip" else ""
            raise NonFiniteLossError(f"{what} at step {step} with learning rate {rate:g}{often}: {self._remedy(rate)}")
        self.reporter.note(f"step {step} skipped: {what}")

    def moved(self) -> None:
        """Note that a step was learnt from."""
        self.skipped = 0

    def _remedy(self, rate: float) -> str:
        return (
            f"lower the learning rate (now {rate:g}) or set clip_norm in a new run; the best network so far and the "
            f"last checkpoint are in {self.folder}, and --init goes on from it"
        )
