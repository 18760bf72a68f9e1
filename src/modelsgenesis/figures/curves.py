"""The curve of a run."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.figures.canvas import blank_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHECKS = ("step", "output_spread", "collapsed")  # of validation.csv, no measure of how good a network is
_BASELINES = {"identity_loss": "identity", "mean_image_loss": "mean image"}


def draw_curve(log: str | Path, validation: str | Path, path: str | Path) -> Path:
    """Draw a run's training loss and, in a panel of their own, what else its validations measured.

    The losses of maps that learn nothing are dashed lines; the best validation is ringed, and crosses mark those that
    found a collapse.

    Args:
        log: `log.csv` of the run.
        validation: `validation.csv` of the run.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    steps, measured = _columns(Path(log)), _columns(Path(validation))
    losses = {name: values for name, values in measured.items() if name.endswith("loss")}
    others = {name: values for name, values in measured.items() if name not in losses and name not in _CHECKS}
    figure = blank_figure(11 if others else 7.5, 4.2)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    if steps:
        _draw_training(axes[0], steps)
    _draw_losses(axes[0], measured, losses)
    axes[0].set_ylabel("loss")
    for name, values in others.items():
        axes[-1].plot(measured["step"], values, "-o", markersize=3, label=name.replace("_", " "))
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=4, frameon=False)
    return save_figure(figure, Path(path))


def _draw_training(axis: "Axes", steps: dict[str, list[float]]) -> None:
    """Draw every step faintly and their running average over a fiftieth of the run."""
    number, loss = np.array(steps["step"]), np.array(steps["loss"])
    axis.plot(number, loss, color="0.85", linewidth=0.6)
    window = max(len(loss) // 50, min(5, len(loss)))
    average = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    axis.plot(number[window - 1 :], average, color="0.45", linewidth=1.2, label="training")
    if (loss > 0).all():
        _use_log_scale(axis)


def _use_log_scale(axis: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_losses(axis: "Axes", measured: dict[str, list[float]], losses: dict[str, list[float]]) -> None:
    """Draw the validation losses, those of maps that learn nothing as lines across."""
    for name, values in losses.items():
        if name in _BASELINES:
            if values[-1] <= 0 and axis.get_yscale() == "log":  # the identity where nothing is deformed
                continue
            axis.axhline(values[-1], color="tab:red" if name == "identity_loss" else "tab:orange", linestyle="--")
            shown = f"{_BASELINES[name]} {values[-1]:.3g}"
            place = axis.get_yaxis_transform()  # x as a share of the panel, y in losses
            axis.text(0.99, values[-1], shown, transform=place, fontsize=8, va="bottom", ha="right")
            continue
        step, best = np.array(measured["step"]), int(np.argmin(values))
        label = f"validation, best {values[best]:.3g} at step {step[best]:.0f}"
        axis.plot(step, values, "-o", color="tab:blue", markersize=3.5, label=label)
        axis.plot(step[best], values[best], "o", markersize=9, fillstyle="none", color="tab:blue")
        collapsed = np.array(measured.get("collapsed", np.zeros(len(step)))) > 0
        if collapsed.any():
            axis.plot(step[collapsed], np.array(values)[collapsed], "x", color="tab:red", label="collapsed")


def _columns(path: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV of numbers; a file that is not there has none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}
