"""The curve of a run."""

import csv
from pathlib import Path
from typing import Any

from modelsgenesis.figures.canvas import blank_figure, save_figure


def draw_curve(log: str | Path, validation: str | Path, path: str | Path) -> Path:
    """Draw a run's training loss and, in panels of their own, what its validations measured.

    Args:
        log: `log.csv` of the run.
        validation: `validation.csv` of the run.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    steps, measured = _columns(Path(log)), _columns(Path(validation))
    losses = {name: values for name, values in measured.items() if name.endswith("loss")}
    others = {name: values for name, values in measured.items() if name not in losses and name != "step"}
    figure = blank_figure(9 if others else 6, 3.6)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    axes[0].plot(steps["step"], steps["loss"], color="0.75", linewidth=0.8, label="training, each step")
    for name, values in losses.items():
        style = "-o" if name == "restoration_loss" else "--"
        axes[0].plot(measured["step"], values, style, markersize=3, label=name.replace("_", " "))
    if all(value > 0 for value in steps["loss"]):
        axes[0].set_yscale("log")
    for name, values in others.items():
        axes[-1].plot(measured["step"], values, "-o", markersize=3, label=name.replace("_", " "))
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return save_figure(figure, Path(path))


def _columns(path: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV of numbers; a file that is not there has none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}
