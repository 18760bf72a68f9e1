"""The progress of long work, for the command line to draw; the default reports nothing."""

from collections.abc import Mapping


class Reporter:
    """Receives the progress of a run; here it is not shown."""

    _file = ""

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

    def validating(self) -> None:
        """A validation begins, which may take minutes."""

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """The best validation of the run so far, at this step; empty before the first, and not when it is resumed."""

    def validation(self, step: int, metrics: Mapping[str, float], is_best: bool) -> None:
        """A validation ended; the first of the metrics is the one that counts, and the network of the best is kept."""

    def advance(self, done: int) -> None:
        """Counted work without a loss, such as preparing scans, is at `done`."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def end(self) -> None:
        """The work that began has ended."""

    def download(self, file: str, done: int, total: int | None) -> None:
        """Of a download `done` of `total` bytes are here; a file of less than a MB is not worth a line."""
        megabytes = (total or 0) // 10**6
        if megabytes and file != self._file:
            self.begin(f"downloading {file} (MB)", megabytes)
        if megabytes:
            self.advance(done // 10**6)
            self._file = file if done < (total or 0) else ""  # the next of this name has a line of its own
