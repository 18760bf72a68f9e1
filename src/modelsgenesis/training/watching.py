"""Pictures and TensorBoard beside the logs of a run. What cannot be written is said once and ends no run."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_curve, draw_restorations
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.run import LOG_NAME, VALIDATION_NAME

BEST, CURVE = "figures/restorations.png", "figures/curve.png"
_TITLES = {
    BEST: "Original, deformed and restored validation patches",
    CURVE: "Loss in training and validation, beside the trivial baselines",
}


class _Extra:
    """Something that a run can do without, such as pictures on a full disk."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder, self.reporter = folder, reporter
        self._said = False

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MissingExtraError, OSError) as error:
            if not self._said:
                self.reporter.note(f"{what}: {error}")
            self._said = True


class TensorBoard(_Extra):
    """Writes scalars and pictures into a folder that `tensorboard --logdir` shows.

    Args:
        folder: Folder of the event files; made with the first of them.
        reporter: Receives a note when it cannot be written.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        super().__init__(folder, reporter)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("writing for TensorBoard", "report") from error
        self._open, self._opened = SummaryWriter, None

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers by their names."""
        with self._trying("TensorBoard lacks events"):
            for name, value in values.items():
                self._writer(step).add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Write a picture that was drawn."""
        with self._trying("TensorBoard lacks events"):
            shown = np.asarray(Image.open(path).convert("RGB"))
            self._writer(step).add_image(name, shown, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        with self._trying("TensorBoard lacks events"):
            if self._opened is not None:
                self._opened.close()

    def _writer(self, step: int) -> Any:
        if self._opened is None:
            # Events of a killed run may be ahead of its last checkpoint: a resumed run hides those that it repeats.
            self._opened = self._open(str(self.folder), purge_step=step)
        return self._opened


class Pictures(_Extra):
    """Draws into `figures/` of a run.

    `figures/restorations/step_000200.png` shows validation at that step, `figures/restorations.png` the best so far.

    Args:
        folder: Folder of the run.
        reporter: Receives a note of what could not be drawn.
        tensorboard: Receives what was drawn.
    """

    def __init__(self, folder: Path, reporter: Reporter, tensorboard: TensorBoard | None = None) -> None:
        super().__init__(folder, reporter)
        self.tensorboard = tensorboard
        self._newest: Path | None = None

    def draw_validation(
        self, step: int, *, original: Tensor, deformed: Tensor, restored: Tensor, metrics: Mapping[str, float]
    ) -> None:
        """Draw the restorations of a validation, each [n, c, *patch]."""
        loss, baseline = metrics["restoration_loss"], metrics["mean_image_loss"]
        title = f"step {step}: loss {loss:.4g} = {loss / max(baseline, 1e-12):.2f}× the mean-image baseline"
        path = self.folder / "figures" / "restorations" / f"step_{step:06d}.png"
        self._newest = None
        with self._trying("a figure is missing"):
            self._newest = draw_restorations(original.numpy(), deformed.numpy(), restored.numpy(), path, title=title)
            self._show("restorations", path, step)

    def keep_newest(self) -> None:
        """Put the restorations that were just drawn on the card."""
        with self._trying("a figure is missing"):
            if self._newest is not None:
                shutil.copyfile(self._newest, self.folder / BEST)

    def draw_curve(self, step: int) -> None:
        """Draw the losses of the whole run."""
        with self._trying("a figure is missing"):
            draw_curve(self.folder / LOG_NAME, self.folder / VALIDATION_NAME, self.folder / CURVE)
            self._show("curve", self.folder / CURVE, step)

    def _show(self, name: str, path: Path, step: int) -> None:
        if self.tensorboard is not None:
            self.tensorboard.picture(name, path, step)

    def on_card(self) -> dict[str, str]:
        """Return the path of each picture that there is by its title."""
        return {title: path for path, title in _TITLES.items() if (self.folder / path).is_file()}
