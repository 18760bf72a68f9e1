"""Pictures and TensorBoard: how a run is watched besides its logs. What cannot be written never ends the run."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_curve, draw_restorations
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.run import LOG_NAME, VALIDATION_NAME

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BEST, CURVE = "figures/restorations.png", "figures/curve.png"
_TITLES = {
    BEST: "Original, deformed and restored validation patches",
    CURVE: "Loss in training and validation, beside the trivial baselines",
}


class TensorBoard:
    """Writes scalars and pictures into a folder that `tensorboard --logdir` shows.

    A full disk is said once and ends the writing, not the run.

    Args:
        folder: Folder of the event files; made with the first of them.
        reporter: Receives a note when nothing can be written any more.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("writing for TensorBoard", "report") from error
        # Events of a killed run may be ahead of its last checkpoint: a resumed run hides those that it repeats.
        self._open: Callable[[int], SummaryWriter] = lambda step: SummaryWriter(str(folder), purge_step=step)
        self._writer: SummaryWriter | None = None
        self._failed = False
        self.folder, self.reporter = folder, reporter

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers by their names."""
        for name, value in values.items():
            self._write(step, lambda writer, name=name, value=value: writer.add_scalar(f"{group}/{name}", value, step))

    def picture(self, name: str, path: Path, step: int) -> None:
        """Write a picture that was drawn."""
        shown = np.asarray(Image.open(path).convert("RGB"))
        self._write(step, lambda writer: writer.add_image(name, shown, step, dataformats="HWC"))

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._write(0, lambda writer: writer.close())

    def _write(self, step: int, write: "Callable[[SummaryWriter], None]") -> None:
        if self._failed:
            return
        try:
            self._writer = self._writer or self._open(step)
            write(self._writer)
        except OSError as error:
            self._failed = True
            self.reporter.note(f"{self.folder}: nothing more is written for TensorBoard: {error.strerror}")


class Pictures:
    """Draws into `figures/` of a run; what cannot be drawn is said once and never ends the run.

    `figures/restorations/step_000200.png` shows validation at that step, `figures/restorations.png` the best so far.

    Args:
        folder: Folder of the run.
        reporter: Receives a note of what could not be drawn.
        tensorboard: Receives what was drawn.
    """

    def __init__(self, folder: Path, reporter: Reporter, tensorboard: TensorBoard | None = None) -> None:
        self.folder, self.reporter, self.tensorboard = folder, reporter, tensorboard
        self._newest: Path | None = None
        self._said = False

    def draw_validation(
        self, step: int, *, original: Tensor, deformed: Tensor, restored: Tensor, metrics: Mapping[str, float]
    ) -> None:
        """Draw the restorations of a validation, each [n, c, *patch]."""
        loss, baseline = metrics["restoration_loss"], metrics["mean_image_loss"]
        self._newest = self._draw(
            step,
            "restorations",
            lambda: draw_restorations(
                original.numpy(),
                deformed.numpy(),
                restored.numpy(),
                self.folder / "figures" / "restorations" / f"step_{step:06d}.png",
                title=f"step {step}: loss {loss:.4g} = {loss / max(baseline, 1e-12):.2f}× the mean-image baseline",
            ),
        )

    def keep_newest(self) -> None:
        """Put the restorations that were just drawn on the card."""
        try:
            if self._newest is not None:
                shutil.copyfile(self._newest, self.folder / BEST)
        except OSError as error:
            self._note(error)

    def draw_curve(self, step: int) -> None:
        """Draw the losses of the whole run."""
        files = (self.folder / LOG_NAME, self.folder / VALIDATION_NAME, self.folder / CURVE)
        self._draw(step, "curve", lambda: draw_curve(*files))

    def on_card(self) -> dict[str, str]:
        """Return the path of each picture that there is by its title."""
        return {title: path for path, title in _TITLES.items() if (self.folder / path).is_file()}

    def _draw(self, step: int, name: str, draw: Callable[[], Path]) -> Path | None:
        try:
            path = draw()
        except (MissingExtraError, OSError) as error:
            self._note(error)
            return None
        if self.tensorboard is not None:
            self.tensorboard.picture(name, path, step)
        return path

    def _note(self, problem: Exception) -> None:
        if not self._said:
            self.reporter.note(f"a figure is missing: {problem}")
        self._said = True
