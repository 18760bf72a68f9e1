"""Scalars and figures for TensorBoard; needs the extra `report`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.reporting import Reporter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER_NAME = "tensorboard"


class TensorBoardReporter(Reporter):
    """Writes what a run tells into a folder that `tensorboard --logdir` shows.

    A resumed run hides what the one before wrote after the step that it goes on from. A full disk is said once and
    ends the writing, not the run.

    Args:
        folder: Of the event files; made with the first of them.
        reporter: Is told when nothing can be written any more.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("writing for TensorBoard", "report") from error
        self._make: Callable[[int | None], SummaryWriter] = lambda purge: SummaryWriter(str(folder), purge_step=purge)
        self._writer: SummaryWriter | None = None
        self.folder, self.reporter = folder, reporter
        self._purge: int | None = None
        self._failed = False

    def begin(self, title: str, total: int, start: int = 0) -> None:
        """Remember where the run goes on."""
        self._purge = start + 1 if start else None

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Write a step."""
        shown = {"loss": loss, "samples_per_second": samples_per_second, "waiting_for_data": waiting}
        self._scalars("training", shown, step)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a validation."""
        self._scalars("validation", metrics, step)

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        def write(writer: "SummaryWriter") -> None:
            for name, value in values.items():
                writer.add_scalar(f"{group}/{name}", value, step)

        self._write(write)

    def figure(self, step: int, name: str, path: Path) -> None:
        """Write a picture."""
        picture = np.asarray(Image.open(path).convert("RGB"))
        self._write(lambda writer: writer.add_image(name, picture, step, dataformats="HWC"))

    def end(self) -> None:
        """Write what is still in memory; the next event opens a new file."""
        if self._writer is not None:
            self._write(lambda writer: writer.close())
            self._writer = None

    def _write(self, write: "Callable[[SummaryWriter], None]") -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = self._make(self._purge)
                self._purge = None
            write(self._writer)
        except OSError as error:
            self._failed = True
            self.reporter.note(f"{self.folder}: nothing more is written for TensorBoard: {error.strerror}")
