"""Pictures of a pretraining while it runs: the same restorations at each validation, the curve at the end."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_curve, draw_restorations
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.run import LOG_NAME, VALIDATION_NAME

BEST, CURVE = "figures/restorations.png", "figures/curve.png"
_TITLES = {
    BEST: "Original, deformed and restored sub-volumes of validation",
    CURVE: "Loss in training and validation, beside those of maps that learn nothing",
}


def draw_run_curve(folder: Path, reporter: Reporter) -> dict[str, str]:
    """Draw the curve of a run and return its path by its title; what cannot be drawn is a note."""
    try:
        draw_curve(folder / LOG_NAME, folder / VALIDATION_NAME, folder / CURVE)
    except (MissingExtraError, OSError) as error:
        reporter.note(f"no figures: {error}")
        return {}
    return {"Loss in training, and what the validations measured": CURVE}


class Pictures(Reporter):
    """Draws into a run's `figures/`; what cannot be drawn is said once and never ends the run.

    `figures/restorations/step_000200.png` shows validation at that step, `figures/restorations.png` the best so far.

    Args:
        folder: Of the run.
        objective: Has the restorations of the last validation.
        reporter: Is told what was drawn, and what could not be.
    """

    def __init__(self, folder: Path, objective: Restoration, reporter: Reporter) -> None:
        self.folder, self.objective, self.reporter = folder, objective, reporter
        self._newest: Path | None = None
        self._said = False

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Draw the restorations of the validation that just ended."""
        restored, pairs = self.objective.restored, self.objective.validation
        if restored is None:
            return
        loss, mean = metrics["restoration_loss"], metrics["mean_image_loss"]
        self._newest = self._draw(
            lambda: draw_restorations(
                pairs.original.numpy(),
                pairs.deformed.numpy(),
                restored.numpy(),
                self.folder / "figures" / "restorations" / f"step_{step:06d}.png",
                title=f"step {step}: loss {loss:.4g}, {loss / max(mean, 1e-12):.2f} of the mean image's",
            )
        )
        if self._newest is not None:
            self.reporter.figure(step, "restorations", self._newest)

    def best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put the restorations that were just drawn on the card."""
        newest = self._newest
        if newest is not None:
            self._draw(lambda: Path(shutil.copyfile(newest, self.folder / BEST)))

    def finish(self, step: int) -> None:
        """Draw the curve."""
        files = (self.folder / LOG_NAME, self.folder / VALIDATION_NAME, self.folder / CURVE)
        curve = self._draw(lambda: draw_curve(*files))
        if curve is not None:
            self.reporter.figure(step, "curve", curve)

    def on_card(self) -> dict[str, str]:
        """Return the path of each picture that there is by its title."""
        return {title: path for path, title in _TITLES.items() if (self.folder / path).is_file()}

    def _draw(self, draw: Callable[[], Path]) -> Path | None:
        try:
            return draw()
        except (MissingExtraError, OSError) as error:
            if not self._said:
                self.reporter.note(f"a figure is missing: {error}")
            self._said = True
            return None
