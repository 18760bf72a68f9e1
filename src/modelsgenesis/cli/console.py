"""How the commands speak: results on stdout, progress and notes on stderr."""

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelsgenesis.reporting import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


def error_console() -> "Console":
    """Return the console of stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line, four digits each.

    Example:
        >>> describe_metrics({"restoration_loss": 0.0123456, "dice": 0.9})
        'restoration loss 0.01235, dice 0.9000'
    """
    return ", ".join(f"{name.replace('_', ' ')} {_digits(value)}" for name, value in metrics.items())


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"


def make_reporter(*, quiet: bool = False) -> Reporter:
    """Return a live display on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        return Reporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()


class PlainReporter(Reporter):
    """One line about every tenth of the work, for logs."""

    def __init__(self) -> None:
        self.title, self.total, self.shown, self.started = "", 0, 0, 0.0

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Say what begins."""
        self.title, self.total, self.shown, self.started = title, total, start, time.monotonic()
        self.note(f"{title}: {total} steps" + (f", from step {start}" if start else ""))

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Say where the work is, ten times in all."""
        if step - self.shown >= self.total / 10:
            self.shown = step
            self.note(
                f"step {step}/{self.total}  loss {_digits(loss)}  {samples_per_second:.1f} samples/s  "
                f"waiting for data {waiting:.0%}"
            )

    def advance(self, done: int) -> None:
        """Say where the work is, ten times in all."""
        if done - self.shown >= max(self.total / 10, 1) or done == self.total:
            self.shown = done
            self.note(f"{self.title}: {done}/{self.total}")

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the metrics."""
        if metrics:
            self.note(f"step {step}/{self.total}  validation: {describe_metrics(metrics)}")

    def note(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class LiveReporter(Reporter):
    """A bar with loss, speed, waiting and time left; notes and validations scroll above it."""

    def __init__(self) -> None:
        self.console = error_console()
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Show the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.end()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[details]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.progress.start()
        self.task = self.progress.add_task(title, total=total, completed=start, details="")

    def _update(self, done: int, details: str) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, details=details)

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Move the bar."""
        self._update(step, f"loss {_digits(loss)}  {samples_per_second:.1f} samples/s  waiting {waiting:.0%}")

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._update(done, "")

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the metrics above the bar."""
        if metrics:
            self.note(f"step {step}  {describe_metrics(metrics)}")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
