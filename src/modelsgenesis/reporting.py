"""What a loop tells while it runs. The command line draws it; the default says nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Reporter:
    """Receives the progress of a run; every method does nothing here."""

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Work of `total` steps begins at `start`."""

    def baselines(self, losses: Mapping[str, float]) -> None:
        """Losses of the trivial baselines, by name such as `mean_image_loss`; they hold for the whole run."""

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """A step ended.

        Args:
            step: Counted from 1.
            loss: Its loss.
            samples_per_second: Averaged over the last steps.
            waiting: Share of the time spent waiting for data, 0 to 1.
        """

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """A validation ended; the first of the metrics is the one that counts."""

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """The validation that just ended is the best so far, and its network is kept."""

    def figure(self, step: int, name: str, path: Path) -> None:
        """A picture of the network at a step was drawn."""

    def advance(self, done: int) -> None:
        """Counted work without a loss, such as preparing scans, is at `done`."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def end(self) -> None:
        """The work that began has ended."""


class Reporters(Reporter):
    """Tells several reporters the same, in their order.

    Args:
        reporters: Who listens.

    Example:
        >>> class Printer(Reporter):
        ...     def note(self, text):
        ...         print(text)
        >>> Reporters(Printer(), Reporter(), Printer()).note("twice")
        twice
        twice
    """

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters
        for name in vars(Reporter):
            if not name.startswith("_"):  # on the instance, where they hide the silent ones of the class
                setattr(self, name, self._all(name))

    def _all(self, name: str) -> Any:
        def tell(*told: Any, **more: Any) -> None:
            for reporter in self.reporters:
                getattr(reporter, name)(*told, **more)

        return tell
