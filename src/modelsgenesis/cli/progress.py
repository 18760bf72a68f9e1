"""The progress of a run on stderr."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from modelsgenesis.cli.console import BASELINES, describe_metrics, digits, note
from modelsgenesis.errors import printable
from modelsgenesis.reporting import Reporter

_LONGEST_SILENCE = 300.0  # seconds between two lines, however long the run
_NEWEST = 0.05  # weight of the last step's loss in the average that people see: single batches scatter


class Display(Reporter):
    """Shows a run: on a terminal a bar with the newest figures under it, elsewhere a line now and then."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.console = Console(stderr=True, highlight=False)
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.is_live = is_terminal and not self.console.is_dumb_terminal  # a dumb one cannot move its cursor
        self.bar, self.live = Progress(), Live()
        self.baseline_text = ""
        self.rows: dict[str, str] = {}

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Show an empty bar, or say what begins."""
        self.live.stop()
        self.title, self.total, self.start, self.shown = title, total, start, start
        self.begun = self.spoke = time.monotonic()
        self.average: float | None = None
        self.rows = {}
        if self.folder and self.folder.exists():  # not before: a run that cannot begin writes nothing
            self.note(f"writing to {self.folder}")
            self.folder = None
        if not self.is_live:
            self.note(f"{title}: {start}/{total}")
            return
        self.bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            *(BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn(), TimeElapsedColumn()),
            expand=True,
            speed_estimate_period=3600,  # seconds; a step may take a minute
        )
        self.bar.add_task(printable(title), total=total, completed=start)
        self.live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4)
        self.live.start()

    def _draw(self) -> Group:
        """Return the bar, and under it the rows; what is written to stderr scrolls above."""
        table = Table.grid(padding=(0, 2))
        for name, shown in self.rows.items():
            table.add_row(Text(name, style="dim"), Text(printable(shown)))
        return Group(self.bar, table)

    def baselines(self, losses: Mapping[str, float]) -> None:
        """Say them once, and keep them beside every loss."""
        named = {name: losses[f"{name}_loss"] for name in BASELINES if f"{name}_loss" in losses}
        self.baseline_text = ", ".join(f"{name.replace('_', ' ')} {digits(loss)}" for name, loss in named.items())
        if not self.is_live:
            self.note(f"baselines: {self.baseline_text}")

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Move the bar and renew the rows, or say where the run is."""
        self.average = loss if self.average is None else self.average + _NEWEST * (loss - self.average)
        average, speed = digits(self.average), f"{samples_per_second:.1f} samples/s, {waiting:.0%} waiting for data"
        self.rows["loss"] = average
        if self.baseline_text:
            self.rows["baselines"] = self.baseline_text
        self.rows["speed"] = speed
        if self._move(step):
            beside = f" (baselines: {self.baseline_text})" if self.baseline_text else ""
            pace = (time.monotonic() - self.begun) / max(step - self.start, 1)
            left = timedelta(seconds=round(pace * (self.total - step)))
            self.note(f"step {step}/{self.total}  loss {average}{beside}  {speed}  {left} left")

    def advance(self, done: int) -> None:
        """Move the bar, or say where the work is."""
        if self._move(done):
            self.note(f"{self.title}: {done}/{self.total}")

    def validating(self) -> None:
        """Say why the bar stands."""
        self.rows["now"] = "validating"

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the best before a resume in view."""
        if not metrics:
            return
        self.rows["best"] = f"step {step}: {describe_metrics(metrics, brief=True)}"
        if not self.is_live:
            self.note(f"best so far: {self.rows['best']}")

    def validation(self, step: int, metrics: Mapping[str, float], is_best: bool) -> None:
        """Say the metrics, and the best before them."""
        self.rows.pop("now", None)
        if not metrics:  # a fine-tuning without validation patients
            return
        shown = f"step {step}: {describe_metrics(metrics, brief=True)}"
        before = f"; best before: {self.rows['best']}" if "best" in self.rows else ""
        self.rows |= {"validation": shown} | ({"best": shown} if is_best else {})
        self.note(f"step {step}/{self.total}  validation: {describe_metrics(metrics)}{before}")

    def note(self, text: str) -> None:
        """Print a line."""
        self.spoke = time.monotonic()
        note(text)

    def end(self) -> None:
        """Leave the bar as it is, and say the best validation; the baselines were those of what ended."""
        self.live.stop()
        if best := self.rows.pop("best", None):
            self.note(f"best validation: {best}")
        self.baseline_text = ""

    def _move(self, done: int) -> bool:
        """Move the bar; without one return whether a line is due: ten in all, and one every five minutes."""
        if self.is_live:
            self.bar.update(self.bar.task_ids[0], completed=done)
            return False
        silent = time.monotonic() - self.spoke > _LONGEST_SILENCE
        if done < self.total and done - self.shown < self.total / 10 and not silent:
            return False
        self.shown = done
        return True
