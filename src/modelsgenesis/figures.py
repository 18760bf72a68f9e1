"""Figures and reports: arrays and results to PNG and Markdown.

Pictures of scans and patches are drawn by Pillow alone: milliseconds, so that a run can draw at each validation. Charts
need the extra `report`.
"""

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelsgenesis.errors import ShapeError
from modelsgenesis.metrics.measures import metric_title
from modelsgenesis.metrics.significance import TESTS
from modelsgenesis.metrics.tables import ResultsTable, results_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Any]
"""The content of a comparison's `results.json`."""

_SIDE = 150  # pixels of a picture's longer side, at least
_GAP, _LINE = 6, 22  # pixels between pictures, and of a line of text
_PLAIN = {ord("×"): "x", ord("−"): "-", ord("–"): "-"}  # Pillow's own fonts draw an empty box for them
_CHECKS = ("step", "output_spread", "collapsed")  # of validation.csv, no measure of how good a network is
_BASELINES = {"identity_loss": ("identity", "tab:red"), "mean_image_loss": ("mean image", "tab:orange")}


def middle_slice(array: np.ndarray) -> np.ndarray:
    """Return the middle slice along the last axis as a picture: patient's front, or the image's top, up.

    Args:
        array: [x, y, z] of a volume or [x, y] of an image.

    Returns:
        [rows, columns].

    Raises:
        ShapeError: The array has other than 2 or 3 axes.
    """
    if array.ndim not in (2, 3):
        raise ShapeError(f"array of shape {array.shape}: expected 2 or 3 spatial axes to draw a slice")
    # RAS: x grows to the patient's right hand in storage order, y to the front; radiologists see the right on the left.
    return array if array.ndim == 2 else array[:, :, array.shape[2] // 2].T[::-1, ::-1]


def draw_restorations(
    original: np.ndarray, deformed: np.ndarray, restored: np.ndarray, path: str | Path, *, title: str = ""
) -> Path:
    """Draw the middle slices of at most six patches: a row per patch; original, deformed, restored, and the error.

    Args:
        original: [n, 1, *patch] in [0, 1].
        deformed: [n, 1, *patch].
        restored: [n, 1, *patch].
        path: The PNG to write.
        title: A line above all.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    patches = zip(original, deformed, restored, np.abs(restored - original), strict=True)
    rows = [[middle_slice(patch[0]) for patch in row] for row in patches]
    return draw_pictures(rows[:6], ("original", "deformed", "restored", "absolute error"), path, title=title)


def draw_pictures(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
    labels: Sequence[str] = (),
) -> Path:
    """Draw grey pictures as a table on white.

    Args:
        rows: Pictures [height, width] in [0, 1]; each is enlarged or shrunk to its cell, in its own proportions.
        columns: A heading per column.
        path: The PNG to write; its folder is made.
        title: A line above all.
        labels: A text per row, on its left; a sheet may be shown to others, so no name of a patient.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    # Enlarged by whole numbers, the voxels of a small patch stay squares; a whole scan is shrunk to fit beside it.
    sides = np.array(rows[0][-1].shape)
    height, width = (sides * max(1, -(-_SIDE // sides.max()))).tolist()
    left, top = (_SIDE if any(labels) else 0) + _GAP, _LINE * (2 if title else 1) + _GAP
    table = Image.new("L", (left + len(columns) * (width + _GAP), top + len(rows) * (height + _GAP)), color=255)
    # Each text has a place, an anchor, and a width that it should not exceed.
    texts: list[tuple[str, float, float, str | None, float]]
    texts = [(label, _GAP, top + row * (height + _GAP), None, np.inf) for row, label in enumerate(labels)]
    texts.append((title, table.width / 2, _GAP, "mt", table.width - 2 * _GAP))
    for column, name in enumerate(columns):
        middle = left + column * (width + _GAP) + width / 2
        texts.append((name, middle, top - 2 * _GAP, "ms", width))
        for row, pictures in enumerate(rows):
            picture, y = pictures[column], top + row * (height + _GAP)
            scale = min(height / picture.shape[0], width / picture.shape[1])
            shown = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
            levels = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
            place = (round(middle - shown[0] / 2), y + (height - shown[1]) // 2)
            table.paste(levels.resize(shown, Image.Resampling.NEAREST), place)
    for text, x, y, anchor, most in texts:
        said = unicodedata.normalize("NFKD", text.translate(_PLAIN))
        said = "".join(one if one.isascii() else "?" for one in said if not unicodedata.combining(one))
        fonts = [ImageFont.load_default(size) for size in (14, 12, 10, 8)]
        font = next((one for one in fonts if one.getlength(said) <= most), fonts[-1])
        ImageDraw.Draw(table).text((x, y), said, fill=0, anchor=anchor, font=font)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return path


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
        OSError: The file cannot be written.
    """
    texts = [Path(file).read_text() if Path(file).exists() else "" for file in (log, validation)]
    tables = [[row for row in csv.reader(text.splitlines()) if row] for text in texts]
    steps, measured = (
        {name: np.array(cells, float) for name, *cells in zip(*rows, strict=True) if cells} for rows in tables
    )
    others = [name for name in measured if name not in _CHECKS and not name.endswith("loss")]
    figure = _blank_figure(11 if others else 7.5, 4.2)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    _draw_losses(axes[0], steps, measured)
    for name in others:
        axes[-1].plot(measured["step"], measured[name], "-o", markersize=3, label=name.replace("_", " "))
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=4, frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _blank_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_losses(axis: "Axes", steps: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray]) -> None:
    axis.set_ylabel("loss")
    if steps:
        step, loss = steps["step"], steps["loss"]
        axis.plot(step, loss, color="0.85", linewidth=0.6)  # faintly, and their running average over a fiftieth of all
        window = max(len(loss) // 50, min(5, len(loss)))
        average = np.convolve(loss, np.full(window, 1 / window), mode="valid")
        axis.plot(step[window - 1 :], average, color="0.45", linewidth=1.2, label="training")
        # Losses fall fast and then slowly; on a linear axis the second half of a run is one flat line.
        if (loss > 0).all():
            axis.set_yscale("log", subs=(2, 3, 5))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
    for name, values in measured.items():
        if name in _BASELINES and (values[-1] > 0 or axis.get_yscale() != "log"):  # 0 where nothing is deformed
            title, colour = _BASELINES[name]
            axis.axhline(values[-1], color=colour, linestyle="--")
            place = axis.get_yaxis_transform()  # x as a share of the panel, y in losses
            said = f"{title} {values[-1]:.3g}"
            axis.text(0.99, values[-1], said, transform=place, fontsize=8, va="bottom", ha="right")
        elif name.endswith("loss") and name not in _BASELINES:
            step, best = measured["step"], int(np.argmin(values))
            label = f"validation, best {values[best]:.3g} at step {step[best]:.0f}"
            axis.plot(step, values, "-o", color="tab:blue", markersize=3.5, label=label)
            axis.plot(step[best], values[best], "o", markersize=9, fillstyle="none", color="tab:blue")
            if (collapsed := measured.get("collapsed", np.zeros(1)) > 0).any():
                axis.plot(step[collapsed], values[collapsed], "x", color="tab:red", label="collapsed")


def draw_comparison(results: Results, path: str | Path) -> Path:
    """Draw the mean of each arm over the label counts, with standard deviations, the runs and significance marks.

    Args:
        results: The content of a comparison's `results.json`.
        path: The PNG to write; its folder is there.

    Returns:
        The path.
    """
    counts, arms, metric = list(results["labels"]), results["arms"], results["metric"]
    figure = _blank_figure(3.5 + len(counts) * max(1.5, 0.6 * len(arms)), 5)
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
    measured = f"{metric_title(metric)}, {results['data']['patients']['test']} test patients"
    axis.set(xlabel="labelled patients", ylabel=measured)
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    axis.set_title(results["data"]["name"], loc="left")
    rests_on = (
        f"{len(results['seeds'])} runs: means ± 1 standard deviation, points are runs; {_subset(results)}\n"
        "Welch's t-test, Holm-corrected: * p < 0.05, ** p < 0.01, *** p < 0.001"
    )
    figure.supxlabel(rests_on, fontsize=7, color="0.3", x=0.01, ha="left")
    figure.savefig(path, dpi=150)
    return Path(path)


def stars(p: float | None) -> str:
    """Return the mark of a p-value.

    Example:
        >>> stars(0.0004), stars(0.03), stars(0.2), stars(None)
        ('***', '*', 'n.s.', 'no test')
    """
    if p is None:
        return "no test"
    return "*" * sum(p < level for level in (0.05, 0.01, 0.001)) or "n.s."


def comparison_report(results: Results) -> str:
    """Return `table.md`: what was run, means, differences and tests, label efficiency, and the limits.

    Args:
        results: The content of `results.json`.
    """
    data, metric, patients = results["data"], metric_title(results["metric"]), results["data"]["patients"]
    basis = (
        f"{data['task']}: {patients['training']} training, {patients['validation']} validation and {patients['test']} "
        "test patients; the validation patients decide which step of each training is kept, and their labels are "
        "needed in addition"
    )
    conditions = [basis, _subset(results), f"{len(results['seeds'])} runs of each initialisation and label count"]
    for name, arm in results["arms"].items():
        start = "random weights" if arm["init"] is None else f"from the weights of {arm['init']}"
        size = f"{arm['dims']}D, {arm['parameters']:,} parameters"
        budget = f"{arm['steps']} steps of {arm['batch_size']} samples"
        conditions.append(f"{name}: {', '.join([start, *arm['settings'], size, budget])}")
    means = tuple(
        (labels, *(_mean(entry["arms"][arm].get(results["metric"])) for arm in results["arms"]))
        for labels, entry in results["labels"].items()
    )
    main = ResultsTable(("labels", *results["arms"]), means)
    parts = {
        f"# {data['name']}: {metric} by initialisation": "\n".join(f"- {line}" for line in conditions),
        f"## Mean ± standard deviation of {metric} over the runs": str(main),
        "## Every metric": str(comparison_table(results)),
        "## Differences": _differences(results),
        "## Settings chosen on the validation patients": _tuning(results),
        "## Label efficiency": "\n".join(f"- {sentence(row)}" for row in results["efficiency"]),
        "## Remarks": "\n".join(f"- {remark}" for remark in results.get("remarks", ())),
        "## What this does not show": "The spread and the p-values are over seeds, on one split into patients of one "
        "data set. Where the labelled patients are the same in all runs, another choice could shift all results. "
        "Another budget may change the order of the initialisations, and so may budgets that differ between them.",
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items() if text) + "\n"


def comparison_table(results: Results) -> ResultsTable:
    """Return the table of a comparison: a row per label count, initialisation and structure."""
    summaries: dict[tuple[str, ...], Any] = {}
    for labels, entry in results["labels"].items():
        for arm, metrics in entry["arms"].items():
            summaries[labels, arm] = own = {}
            for name, one in metrics.items():
                unit = {"unit": results["unit"]} if name.startswith("hausdorff95") and results.get("unit") else {}
                own[name] = {"value": one["mean"], "std": one["std"], **unit}
    note = f"Mean ± standard deviation over {len(results['seeds'])} runs."
    return results_table(summaries, ("labels", "initialisation"), alone=results["data"]["classes"][-1], notes=[note])


def _subset(results: Results) -> str:
    """Return how the labelled patients were chosen; the table and the figure say it."""
    if results["resample_labels"]:
        return "labelled patients: drawn anew for each seed, the same in every initialisation"
    return "labelled patients: the same in all runs of a label count, the smaller subset within the larger"


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of the label efficiency as a sentence.

    Example:
        >>> row = {"arm": "genesis", "reference": "scratch", "labels": 5, "equals": 9.04, "low": 7.0, "high": None,
        ...        "fewest": 5, "most": 20}
        >>> sentence(row)
        'genesis with 5 labels equals scratch with 9 (95% over the runs: 7 to more than 20).'
    """

    def count(value: float | None) -> str:
        if value is None:
            return f"more than {row['most']}"
        return f"{round(value, 1):g}" if value else f"fewer than {row['fewest']}"

    ends = " to ".join(dict.fromkeys([count(row["low"]), count(row["high"])]))
    equals = f"{row['arm']} with {row['labels']} labels equals {row['reference']} with {count(row['equals'])}"
    return f"{equals} (95% over the runs: {ends})."


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "—"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.4f}"
    return f"{summary['mean']:.4f}{spread} (n = {summary['n']})"


def _differences(results: Results) -> str:
    family = max(len(entry["comparisons"]) for entry in results["labels"].values())
    header = ("labels", "difference", "mean (95% interval)", "95% over test patients", *TESTS.values())
    rows: list[tuple[str, ...]] = []
    for labels, entry in results["labels"].items():
        for found in entry["comparisons"]:
            mean = "—" if found["difference"] is None else f"{found['difference']:+.4f} ({_interval(found)})"
            # With their correction; two digits and never 0.000, which would claim a certainty that no test has.
            pairs = [[found[key][test] for key in ("p", "p_holm")] for test in TESTS]
            told = [" / ".join(dict.fromkeys(f"{p:.2g}" for p in pair if p is not None)) for pair in pairs]
            names = f"{found['arm']} − {found['reference']}"
            rows.append((labels, names, mean, _interval(found["over_patients"]), *(one or "none" for one in told)))
    said = (
        "Differences are between runs with the same seed; the interval of their mean is Student's t over the runs. "
        "Over test patients: percentile bootstrap of the difference of the means, the runs held fixed. p-values are "
        "two-sided: Welch's t-test of the two groups of runs, Student's t-test and Wilcoxon's signed-rank test of the "
        "pairs; none with fewer than 3 runs or without variation."
    )
    if family > 1:
        said += f" A second number is Holm's correction over the {family} comparisons of a label count."
    return f"{ResultsTable(header, tuple(rows))}\n\n{said}" if family else ""


def _interval(ends: Mapping[str, Any] | None) -> str:
    return "none" if ends is None or ends["low"] is None else f"{ends['low']:+.4f} to {ends['high']:+.4f}"


def _tuning(results: Results) -> str:
    said = (
        "Means over runs with seeds that no measured run uses; no test patient was measured before the choice. Where "
        "the first or last of several values was chosen, a better one may lie beyond it."
    )
    lines: list[str] = []
    for choice in results["tuning"]:
        means = {", ".join(one["settings"]): one["mean"] for one in choice["candidates"]}
        told = [f"{one} {'diverged' if mean is None else f'{mean:.4f}'}" for one, mean in means.items()]
        chosen = ", ".join(choice["chosen"])
        lines.append(f"- {choice['arm']}, {choice['labels']} labels: {chosen} was chosen from {'; '.join(told)}")
    return "\n".join([*lines, "", said]) if lines else ""
