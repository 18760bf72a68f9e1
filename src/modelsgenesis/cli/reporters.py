"""The two displays of a run on stderr: plain lines for logs, a live one for terminals."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelsgenesis.cli.console import BASELINES, describe_metrics, digits, duration, error_console, words
from modelsgenesis.reporting import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress, TaskID

_LONGEST_SILENCE = 300.0  # seconds between two plain lines, however long the run
_NEWEST = 0.05  # weight of the last step's loss in the average that people see


class Running:
    """What both displays keep of a run.

    Attributes:
        average: Of the losses of the last steps; None before the first.
        baselines: Losses of maps that learn nothing.
        best: Step and metrics of the best validation so far.
    """

    def __init__(self, total: int, start: int) -> None:
        self.total, self.start, self.started = total, start, time.monotonic()
        self.average: float | None = None
        self.baselines: Mapping[str, float] = {}
        self.best: tuple[int, Mapping[str, float]] | None = None

    def add(self, loss: float) -> float:
        """Return the average with one more loss."""
        self.average = loss if self.average is None else self.average + _NEWEST * (loss - self.average)
        return self.average

    def left(self, step: int) -> str:
        """Return how long the rest will take, at the pace so far."""
        pace = (time.monotonic() - self.started) / max(step - self.start, 1)
        return duration(pace * (self.total - step))

    def beside(self) -> str:
        """Return the baselines' losses, as they stand beside every loss."""
        return ", ".join(f"{words(name).removesuffix(' loss')} {digits(loss)}" for name, loss in self.baselines.items())


def headline(metrics: Mapping[str, float]) -> str:
    """Return the metric that counts, which is the first."""
    name = next(iter(metrics), None)
    return "" if name is None else f"{words(name)} {digits(metrics[name])}"


def ratios(metrics: Mapping[str, float]) -> str:
    """Return a restoration loss as a share of those of maps that learn nothing; "" for other metrics.

    Example:
        >>> ratios({"restoration_loss": 0.01, "mean_image_loss": 0.02, "identity_loss": 0.1, "collapsed": 1.0})
        ', 0.50 of the mean image, 0.10 of the identity, COLLAPSED'
    """
    loss = metrics.get("restoration_loss")
    if loss is None:
        return ""
    beside = [(words(name).removesuffix(" loss"), metrics[name]) for name in BASELINES if metrics.get(name)]
    shown = [f", {loss / value:.2f} of the {name}" for name, value in beside]
    return "".join([*shown, ", COLLAPSED" if metrics.get("collapsed") else ""])


class PlainReporter(Reporter):
    """A line about every tenth of the work, at least one every five minutes, and one a validation."""

    def __init__(self) -> None:
        self.title, self.run = "", Running(0, 0)
        self.shown, self.spoke = 0, time.monotonic()

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Say what begins."""
        baselines = self.run.baselines
        self.title, self.run, self.shown = title, Running(total, start), start
        self.run.baselines = baselines
        self.note(f"{title}: {total} steps" + (f", from step {start}" if start else ""))

    def baselines(self, losses: Mapping[str, float]) -> None:
        """Say what the losses have to be compared with."""
        self.run.baselines = losses
        self.note(f"losses of maps that learn nothing: {self.run.beside()}")

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Say where the work is, when it is time."""
        average = self.run.add(loss)
        if self._is_time(step):
            beside = f" ({self.run.beside()})" if self.run.baselines else ""
            self.note(
                f"step {step}/{self.run.total}  loss {digits(average)}{beside}  {samples_per_second:.1f} samples/s  "
                f"waiting for data {waiting:.0%}  {self.run.left(step)} left"
            )

    def advance(self, done: int) -> None:
        """Say where the work is, when it is time."""
        if self._is_time(done) or done == self.run.total:
            self.note(f"{self.title}: {done}/{self.run.total}")

    def _is_time(self, done: int) -> bool:
        silent = time.monotonic() - self.spoke > _LONGEST_SILENCE
        if done - self.shown < max(self.run.total / 10, 1) and not silent:
            return False
        self.shown = done
        return True

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the metrics, and the best before them."""
        if metrics:
            before = f"; best before: {headline(self.run.best[1])} at step {self.run.best[0]}" if self.run.best else ""
            self.note(f"step {step}/{self.run.total}  validation: {describe_metrics(metrics)}{before}")

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Remember it for the next validation's line."""
        self.run.best = step, dict(metrics)

    def end(self) -> None:
        """Forget the baselines, which were those of what ended."""
        self.run.baselines = {}

    def note(self, text: str) -> None:
        """Print a line."""
        self.spoke = time.monotonic()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class LiveReporter(Reporter):
    """A bar, and under it loss, baselines, validation, best, speed; notes and validations scroll above it."""

    def __init__(self) -> None:
        self.console = error_console()
        self.run = Running(0, 0)
        self.live: Live | None = None
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.rows: dict[str, str] = {}

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Show the bar."""
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._stop()
        baselines = self.run.baselines
        self.run, self.rows = Running(total, start), {}
        self.run.baselines = baselines
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=self.console,
            expand=True,
        )
        self.task = self.progress.add_task(title, total=total, completed=start, left="")
        self.live = Live(self._picture(), console=self.console, refresh_per_second=4, get_renderable=self._picture)
        self.live.start()

    def _picture(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, shown in self.rows.items():
            table.add_row(f"[dim]{name}", shown)
        return Group(*([self.progress] if self.progress else []), *([table] if self.rows else []))

    def _move(self, done: int) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, left=f"{self.run.left(done)} left")

    def baselines(self, losses: Mapping[str, float]) -> None:
        """Keep them beside every loss."""
        self.run.baselines = losses

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Move the bar and renew the rows."""
        first = "loss" not in self.rows
        self.rows["loss"] = f"[bold]{digits(self.run.add(loss))}[/]"
        if self.run.baselines:
            self.rows["baselines"] = self.run.beside()
        if first:
            self.rows |= {"validation": "none yet", "best": "none yet"}
        self.rows["speed"] = f"{samples_per_second:.1f} samples/s, {waiting:.0%} of the time waiting for data"
        self._move(step)

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._move(done)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the metrics above the bar and keep them under it."""
        if metrics:
            self.rows["validation"] = f"step {step}: {headline(metrics)}{ratios(metrics)}"
            self.note(f"step {step}  {describe_metrics(metrics)}")

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep it under the bar."""
        if metrics:
            self.rows["best"] = f"step {step}: {headline(metrics)}{ratios(metrics)}"

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)  # wrapped by rich, which has to know how high the display is

    def end(self) -> None:
        """Leave the display as it is; the baselines were those of what ended."""
        self._stop()
        self.run.baselines = {}

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = self.progress = None
