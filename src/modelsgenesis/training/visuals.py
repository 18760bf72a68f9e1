"""Pictures and TensorBoard events of a run, beside its logs."""

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


class Visuals:
    """Draws into `figures/` of a run, and writes events into `tensorboard/` where these are asked for.

    `figures/restorations/step_000200.png` shows validation at that step, `figures/restorations.png` the best so far.
    What cannot be drawn or written is said once, and never ends a run.

    Args:
        folder: Folder of the run.
        reporter: Receives a note of what is missing.
        tensorboard: Write scalars and pictures for `tensorboard --logdir`, too.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, reporter: Reporter, *, tensorboard: bool = False) -> None:
        self.folder, self.reporter = folder, reporter
        self._newest: Path | None = None
        self._said = False
        self._open = self._events = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError("writing for TensorBoard", "report") from error
            self._open = SummaryWriter

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers by their names."""
        with self._trying():
            for name, value in values.items() if self._open else ():
                self._writer(step).add_scalar(f"{group}/{name}", value, step)

    def draw_validation(
        self, step: int, *, original: Tensor, deformed: Tensor, restored: Tensor, metrics: Mapping[str, float]
    ) -> None:
        """Draw the restorations of a validation, each [n, c, *patch]."""
        loss, baseline = metrics["restoration_loss"], metrics["mean_image_loss"]
        title = f"step {step}: loss {loss:.4g} = {loss / max(baseline, 1e-12):.2f}× the mean-image baseline"
        path = self.folder / "figures" / "restorations" / f"step_{step:06d}.png"
        self._newest = None  # or the card would show another step than the network that is kept
        with self._trying():
            self._newest = draw_restorations(original.numpy(), deformed.numpy(), restored.numpy(), path, title=title)
            self._show("restorations", path, step)

    def keep_newest(self) -> None:
        """Put the restorations that were just drawn on the card."""
        with self._trying():
            if self._newest is not None:
                shutil.copyfile(self._newest, self.folder / BEST)

    def draw_curve(self, step: int) -> None:
        """Draw the losses of the whole run."""
        with self._trying():
            draw_curve(self.folder / LOG_NAME, self.folder / VALIDATION_NAME, self.folder / CURVE)
            self._show("curve", self.folder / CURVE, step)

    def on_card(self) -> dict[str, str]:
        """Return the path of each picture that there is by its title."""
        return {title: path for path, title in _TITLES.items() if (self.folder / path).is_file()}

    def close(self) -> None:
        """Write what is still in memory."""
        with self._trying():
            if self._events is not None:
                self._events.close()

    def _show(self, name: str, path: Path, step: int) -> None:
        if self._open is not None:
            shown = np.asarray(Image.open(path).convert("RGB"))
            self._writer(step).add_image(name, shown, step, dataformats="HWC")

    def _writer(self, step: int) -> Any:
        if self._events is None and self._open is not None:
            # Events of a killed run may be ahead of its last checkpoint: a resumed run hides those that it repeats.
            self._events = self._open(str(self.folder / "tensorboard"), purge_step=step)
        return self._events

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except (MissingExtraError, OSError) as error:
            if not self._said:
                self.reporter.note(f"a figure is missing: {error}")
            self._said = True
