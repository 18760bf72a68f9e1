"""Charts: the curve of a run, and the means and label efficiency of a comparison."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures.report import metric_title, subset_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHECKS = ("step", "output_spread", "collapsed")  # of validation.csv, no measure of how good a network is
_BASELINES = {"identity_loss": ("identity", "tab:red"), "mean_image_loss": ("mean image", "tab:orange")}

_LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def blank_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global state.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing a figure", "report") from error
    return Figure(figsize=(width, height), layout="constrained")


def draw_curve(log: str | Path, validation: str | Path, path: str | Path) -> Path:
    """Draw a run's training loss and, in a panel of their own, what else its validations measured.

    The trivial baselines are dashed lines; the best validation is ringed, and crosses mark those that found a collapse.

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
    losses = [name for name in measured if name.endswith("loss")]
    others = [name for name in measured if name not in (*losses, *_CHECKS)]
    figure = blank_figure(11 if others else 7.5, 4.2)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    axes[0].set_ylabel("loss")
    if steps:
        _draw_training(axes[0], steps["step"], steps["loss"])
    for name in losses:
        if name in _BASELINES:
            _draw_baseline(axes[0], *_BASELINES[name], measured[name][-1])
        else:
            _draw_validation(axes[0], measured["step"], measured[name], measured.get("collapsed"))
    for name in others:
        axes[-1].plot(measured["step"], measured[name], "-o", markersize=3, label=name.replace("_", " "))
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=4, frameon=False)
    return _save(figure, path)


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a CSV of numbers; a file that is not there has none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def _draw_training(axis: "Axes", step: np.ndarray, loss: np.ndarray) -> None:
    """Draw every step faintly and their running average over a fiftieth of the run."""
    axis.plot(step, loss, color="0.85", linewidth=0.6)
    window = max(len(loss) // 50, min(5, len(loss)))
    average = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    axis.plot(step[window - 1 :], average, color="0.45", linewidth=1.2, label="training")
    # Losses fall fast and then slowly; on a linear axis the second half of a run is one flat line.
    if (loss > 0).all():
        axis.set_yscale("log", subs=(2, 3, 5))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")


def _draw_baseline(axis: "Axes", name: str, colour: str, value: float) -> None:
    if value <= 0 and axis.get_yscale() == "log":  # the identity where nothing is deformed
        return
    axis.axhline(value, color=colour, linestyle="--")
    place = axis.get_yaxis_transform()  # x as a share of the panel, y in losses
    axis.text(0.99, value, f"{name} {value:.3g}", transform=place, fontsize=8, va="bottom", ha="right")


def _draw_validation(axis: "Axes", step: np.ndarray, loss: np.ndarray, collapsed: np.ndarray | None) -> None:
    best = int(np.argmin(loss))
    label = f"validation, best {loss[best]:.3g} at step {step[best]:.0f}"
    axis.plot(step, loss, "-o", color="tab:blue", markersize=3.5, label=label)
    axis.plot(step[best], loss[best], "o", markersize=9, fillstyle="none", color="tab:blue")
    if collapsed is not None and collapsed.any():
        axis.plot(step[collapsed > 0], loss[collapsed > 0], "x", color="tab:red", label="collapsed")


def draw_comparison(results: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the mean of each arm over the label counts, with standard deviations, the runs and significance marks.

    Args:
        results: The content of a comparison's `results.json`.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    counts, arms, metric = list(results["labels"]), results["arms"], results["metric"]
    figure = blank_figure(3.5 + len(counts) * max(1.5, 0.6 * len(arms)), 5)
    axis = figure.subplots()
    runs: list[float] = []
    for index, arm in enumerate(arms):
        found = [entry["arms"][arm].get(metric, {}) for entry in results["labels"].values()]
        means, spreads = (np.array([one.get(key) for one in found], float) for key in ("mean", "std"))
        places = np.arange(len(counts)) + 0.5 * ((index + 0.5) / len(arms) - 0.5)  # side by side, none hides another
        colour = "0.5" if arms[arm]["init"] is None else f"C{index}"  # random weights are grey
        style = {"color": colour, "marker": "osD^vP*X"[index % 8], "capsize": 4, "label": arm}
        axis.errorbar(places, means, np.nan_to_num(spreads), **style)
        for place, one in zip(places, found, strict=True):
            values = one.get("values", [])
            axis.plot(np.full(len(values), place + 0.06), values, ".", color=colour, alpha=0.5, markersize=4)
            runs += values
    highest, lowest = max(runs, default=1.0), min(runs, default=0.0)
    for place, entry in enumerate(results["labels"].values()):
        marks = [f"{one['arm']} − {one['reference']}: {stars(one['p_holm']['welch'])}" for one in entry["comparisons"]]
        axis.annotate("\n".join(marks), (place, highest), (0, 6), textcoords="offset points", ha="center", fontsize=7)
    # Room above for the marks; below it begins near the lowest run, where differences can be seen.
    axis.set_ylim(lowest - 0.1 * (highest - lowest), highest + 0.3 * (highest - lowest) + 1e-3)
    axis.set_xticks(range(len(counts)), counts)
    axis.set_xlabel("labelled patients")
    axis.set_ylabel(f"{metric_title(metric)}, {results['data']['patients']['test']} test patients")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    axis.set_title(results["data"]["name"], loc="left")
    rests_on = (
        f"{len(results['seeds'])} runs: means ± 1 standard deviation, points are runs; {subset_line(results)}\n"
        "Welch's t-test, Holm-corrected: * p < 0.05, ** p < 0.01, *** p < 0.001"
    )
    figure.supxlabel(rests_on, fontsize=7, color="0.3", x=0.01, ha="left")
    return _save(figure, path)


def stars(p: float | None) -> str:
    """Return the mark of a p-value.

    Example:
        >>> stars(0.0004), stars(0.03), stars(0.2), stars(None)
        ('***', '*', 'n.s.', 'no test')
    """
    if p is None:
        return "no test"
    return next((mark for level, mark in _LEVELS if p < level), "n.s.")


def _save(figure: "Figure", path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
