"""What all charts share, and the curve of a run. A chart is a function that returns a figure, beside its caption.

Drawn as wide as one or two columns of a paper, so that their letters stay readable there.
"""

import csv
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.metrics.measures import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Log = Mapping[str, np.ndarray]
"""Columns of `log.csv` or `validation.csv` by name, [rows]."""

COLUMN, PAGE = 3.5, 7.2
"""Inches: the width of a column and of a page of a journal."""

_STYLE: Any = {  # a type of its own in each version of matplotlib
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.75",
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
    "svg.hashsalt": "modelsgenesis",
}
_CHECKS = ("step", "output_spread", "collapsed")  # of validation.csv, no measure of how good a network is
_BASELINES = {"identity_loss": "identity", "mean_image_loss": "mean image"}
_LETTER = 4.4  # points that a letter of a legend takes
_FEW = 6  # curves that a reader can tell apart
MARKERS = "osD^vP*X"
"""Beside its colour each series has a shape."""
_number = itertools.count()


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of all charts; `@style()` of a function that draws one."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of these inches, which belongs to no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_chart(figure: "Figure", path: str | Path) -> Path:
    """Write a chart as PNG at 300 dots per inch, and as SVG beside it.

    Args:
        figure: The chart.
        path: The PNG to write; its folder is made.

    Returns:
        The path of the PNG.

    Raises:
        OSError: A file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_facecolor("white")
    _settle(figure)
    figure.savefig(path, dpi=300)
    path.with_suffix(".svg").write_text(_svg(figure))
    return path


def svg_of(figure: "Figure") -> str:
    """Return a chart as an SVG element for a page.

    Text and axes are in the page's own colour, `currentColor`, so that they are readable on light and on dark. It names
    nothing that another element of the page could be called, and styles nothing but itself.
    """
    figure.set_facecolor("none")
    text = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", "", _svg(figure), flags=re.S)
    text = re.sub(r"#000000|(?<=fill: )black", "currentColor", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    prefix = f"chart{next(_number)}-"  # of what is used by name: clips and markers
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = text.replace("stroke: #bfbfbf", "stroke: currentColor; stroke-opacity: 0.2")  # the grid, quiet on dark too
    width = f"{140 * figure.get_figwidth():.0f}px"  # letters as on the page, larger than on paper; no wider than it
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        rf'<svg \1 xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" fill="currentColor" '
        rf'stroke-linejoin="round" style="width: 100%; max-width: {width}; height: auto">',
        text,
        count=1,
    ).strip()


def _settle(figure: "Figure") -> None:
    """Lay a chart out once for all of its formats: that is the most of what drawing takes."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def _svg(figure: "Figure") -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a font that is not this machine's
        _settle(figure)
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})  # `savefig` would draw it twice
    return text.getvalue()


@style()
def curve_chart(log: str | Path, validation: str | Path) -> "Figure":
    """Draw a run's losses and, in a panel of their own, what else its validations measured.

    Args:
        log: `log.csv` of the run.
        validation: `validation.csv` of the run; either may be missing, and of a run that was cut off their last line
            may be incomplete.
    """
    steps, measured = read_log(log), read_log(validation)
    others = [name for name in measured if name not in _CHECKS and not name.endswith("loss")]
    figure = blank(PAGE if others else COLUMN, 2.6)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    _draw_losses(axes[0], steps, measured)
    if others:
        _draw_metrics(axes[-1], measured, others)
    for axis in axes:
        axis.set_xlabel("step")
        if measured:
            axis.axvline(measured["step"][kept(measured)], color="black", linestyle=":", linewidth=0.8, label="kept")
        legend_above(axis)
    return figure


def legend_above(axis: "Axes", width: float = COLUMN) -> None:
    """Name what is drawn, if anything is, above axes of this width in inches, where it hides nothing."""
    handles, names = axis.get_legend_handles_labels()
    room = int(width * 60 / _LETTER)  # letters in a line, beside what is left of the axes
    names = [name if len(name) <= room - 8 else f"{name[: room - 9]}…" for name in names]
    if names:
        ncols = max(1, room // (max(map(len, names)) + 8))
        style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "columnspacing": 1.2, "handlelength": 1.5}
        axis.legend(handles, names, ncols=ncols, **style)


def curve_caption(validation: str | Path) -> str:
    """Return what `curve_chart` shows of a run."""
    measured = read_log(validation)
    if not measured:
        return "Training loss of each step (pale) and its running average. No validation was completed."
    said = ["Training loss of each step (pale) and its running average"]
    said += ["validation loss"] if any(name.endswith("loss") and name not in _BASELINES for name in measured) else []
    text = ", ".join(said) + "."
    if named := [title for name, title in _BASELINES.items() if name in measured]:
        text += f" Dashed: the loss of trivial predictions, {' and '.join(named)}."
    if (measured.get("collapsed", np.zeros(1)) > 0).any():
        text += " Crosses: validations that found a collapse."
    decides, best = _decides(measured), kept(measured)
    text = f"{text} The dotted line is at step {measured['step'][best]:,.0f}, whose network was kept"
    if not decides:
        return f"{text}: the last, without validation patients to choose by."
    title = f"validation {decides.replace('_', ' ')}" if "loss" in decides else metric_title(decides)
    return f"{text}, for its {title} of {measured[decides][best]:.4g}."


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """Return the columns of `log.csv` or `validation.csv` by name, of complete rows; nothing where there are none.

    A run that was cut off may have no such file, or half of its last row.
    """
    path = Path(path)
    text = path.read_text(errors="replace") if path.exists() else ""
    header, *rows = csv.reader(text.rpartition("\n")[0].splitlines() or [""])
    columns: list[list[float]] = []
    for row in rows:
        try:
            columns.append([float(cell or "nan") for cell in row])
        except ValueError:  # half of a row that was lost when the disk was full
            continue
    whole = [row for row in columns if len(row) == len(header)]
    return (
        {name: np.array(column) for name, column in zip(header, zip(*whole, strict=True), strict=True)} if whole else {}
    )


def validation_curve(path: str | Path) -> dict[str, Any]:
    """Return what the validations of a run measured by what decides: `metric`, and its `values` at each `step`.

    Args:
        path: `validation.csv` of the run.

    Returns:
        JSON values; empty where nothing decides.
    """
    measured = read_log(path)
    if not (name := _decides(measured)):
        return {}
    values = [None if np.isnan(value) else float(value) for value in measured[name]]
    return {"metric": name, "step": measured["step"].astype(int).tolist(), "values": values}


def _decides(measured: Log) -> str:
    """Return what decides which network is kept: it comes first; "" where nothing does, and the newest is kept."""
    return next((name for name in measured if name != "step"), "")


def kept(measured: Log) -> int:
    """Return which validation the network was kept of: the best, and of several the newest."""
    name = _decides(measured)
    scores = measured[name] * (1 if "loss" in name else -1) if name else np.zeros(len(measured["step"]))
    # Where no validation patient has a structure the newest network is kept, and one whose loss is no number never.
    scores = np.where(np.isnan(scores), np.inf if "loss" in name else -np.inf, scores)
    return int(np.flatnonzero(scores == scores.min())[-1])


def _draw_losses(axis: "Axes", steps: Log, measured: Log) -> None:
    blue, *_, red = map(hex_of, colours(4))
    axis.set_ylabel("loss")
    if steps:
        step, loss = steps["step"], steps["loss"]
        axis.plot(step, loss, color="0.8", linewidth=0.5)
        window = max(len(loss) // 50, min(5, len(loss)))
        average = np.convolve(loss, np.full(window, 1 / window), mode="valid")
        axis.plot(step[window - 1 :], average, color="0.45", label="training")
        # Losses fall fast and then slowly; on a linear axis the second half of a run is one flat line.
        if (loss > 0).all():
            axis.set_yscale("log", subs=(2, 3, 5))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
    for name, values in measured.items():
        if name in _BASELINES and (values[-1] > 0 or axis.get_yscale() != "log"):  # 0 where nothing is deformed
            axis.axhline(values[-1], color=red, linestyle="--", linewidth=0.8)
            said = f"{_BASELINES[name]} {values[-1]:.3g}"
            place = axis.get_yaxis_transform()  # x as a share of the panel, y in losses
            axis.text(0.94, values[-1], said, transform=place, fontsize=7, va="bottom", ha="right")
        elif name.endswith("loss") and name not in _BASELINES:
            axis.plot(measured["step"], values, "-o", color=blue, label="validation")
            if (collapsed := measured.get("collapsed", np.zeros(1)) > 0).any():
                axis.plot(measured["step"][collapsed], values[collapsed], "x", color=red, label="collapsed")


def _draw_metrics(axis: "Axes", measured: Log, names: list[str]) -> None:
    """Draw the metrics of the validations; of many structures each is a pale line below their mean."""
    each = [name for name in names if " " in name] if len(names) > _FEW else []
    for index, name in enumerate(each):
        label = f"each of {len(each)}" if index == 0 else None
        axis.plot(measured["step"], measured[name], color="0.8", linewidth=0.5, label=label)
    shown = [name for name in names if name not in each]
    for index, (name, colour) in enumerate(zip(shown, colours(len(shown)), strict=True)):
        style = MARKERS[index % len(MARKERS)]
        axis.plot(measured["step"], measured[name], "-", marker=style, color=hex_of(colour), label=metric_title(name))
