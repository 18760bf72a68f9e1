"""The figures of a comparison: bars with their runs and significance marks, and curves over label counts."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.comparison.analysis import values_by_seed
from modelsgenesis.comparison.efficiency import sentence
from modelsgenesis.comparison.report import metric_title, number, subset_line
from modelsgenesis.figures.canvas import blank_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SCRATCH = "#9aa0a6"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind too
_DPI = 200
_LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_CHARACTER = 0.048  # inches that a character of the notes takes
_JITTER = 0.28  # of a bar's width, within which the runs are spread

Results = Mapping[str, Any]


def stars(p: float | None) -> str:
    """Return the mark of a p-value.

    Example:
        >>> stars(0.0004), stars(0.03), stars(0.2), stars(None)
        ('***', '*', 'n.s.', 'no test')
    """
    if p is None:
        return "no test"
    return next((mark for level, mark in _LEVELS if p < level), "n.s.")


def colours(results: Results) -> dict[str, str]:
    """Return a colour for each arm: random weights grey, the others from a palette in their order."""
    arms = results["arms"]
    palette = iter(_COLOURS * (1 + len(arms) // len(_COLOURS)))
    greys = iter(("#9aa0a6", "#5f6368", "#bdc1c6"))
    return {name: next(greys, _SCRATCH) if arm["init"] is None else next(palette) for name, arm in arms.items()}


def draw_bars(results: Results, records: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw the mean of each arm, a group a label count, with standard deviations, the runs and significance marks.

    Args:
        results: The content of `results.json`.
        records: Of the runs, drawn as points.
        path: The PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    arms, counts = list(results["arms"]), list(results["labels"])
    figure = blank_figure(1.6 + max(len(counts) * (0.55 * len(arms) + 0.5), 3.6), 4.4)
    axis = figure.subplots()
    width = 0.8 / len(arms)
    tops: dict[tuple[str, str], _Bar] = {}
    for index, (arm, colour) in enumerate(colours(results).items()):
        for group, labels in enumerate(counts):
            place = group + (index - (len(arms) - 1) / 2) * width
            runs = list(values_by_seed(records, arm, int(labels), results["metric"]).values())
            if runs:
                tops[arm, labels] = _bar(axis, place, width, runs, colour, arm if group == 0 else None)
    _limits(axis, [value for bar in tops.values() for value in bar.values])
    _marks(axis, results, tops)
    axis.set_xticks(range(len(counts)), counts)
    _label(figure, axis, results)
    _note(figure, results)
    return _save(figure, Path(path))


@dataclass(frozen=True)
class _Bar:
    """Where a bar stands and the values that it must leave visible."""

    place: float
    values: tuple[float, ...]

    @property
    def top(self) -> float:
        return max(self.values)


def _bar(axis: "Axes", place: float, width: float, runs: Sequence[float], colour: str, label: str | None) -> _Bar:
    mean = float(np.mean(runs))
    spread = float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0
    axis.bar(place, mean, 0.92 * width, color=colour, label=label, zorder=2)
    if len(runs) > 1:
        axis.errorbar(place, mean, spread, color="black", capsize=3.5, linewidth=1.2, capthick=1.2, zorder=4)
    offsets = np.linspace(-1, 1, len(runs)) * _JITTER * width if len(runs) > 1 else np.zeros(1)
    axis.scatter(place + offsets, runs, s=11, color="white", edgecolors="black", linewidths=0.6, alpha=0.9, zorder=3)
    return _Bar(place, (mean - spread, mean + spread, *runs))


def _limits(axis: "Axes", values: Sequence[float]) -> None:
    """Begin the axis below the values, where differences can be seen, and leave room above for the marks."""
    low, high = min(values), max(values)
    span = max(high - low, 1e-3)
    bottom = max(low - 0.6 * span, 0.0) if low >= 0 else low - 0.6 * span
    axis.set_ylim(bottom, high + 0.25 * span)


def _marks(axis: "Axes", results: Results, tops: Mapping[tuple[str, str], _Bar]) -> None:
    """Draw a bracket with a significance mark over each pair that was compared."""
    bottom, top = axis.get_ylim()
    step = 0.075 * (top - bottom)
    highest = top
    for labels, entry in results["labels"].items():
        present = [bar.top for (_, count), bar in tops.items() if count == labels]
        for rank, comparison in enumerate(entry["comparisons"]):
            ends = [tops.get((comparison[key], labels)) for key in ("arm", "reference")]
            if None in ends:
                continue
            left, right = sorted(end.place for end in ends if end is not None)
            height = max(present) + step * (0.45 + rank)
            tick = 0.2 * step
            axis.plot(
                [left, left, right, right], [height - tick, height, height, height - tick], color="black", linewidth=0.9
            )
            mark = stars(comparison["tests"]["welch"]["p_holm"])
            axis.text(
                (left + right) / 2,
                height + (0 if "*" not in mark else -0.22 * step),
                mark,
                ha="center",
                va="bottom",
                fontsize=8 if "*" not in mark else 11,
            )
            highest = max(highest, height + step)
    axis.set_ylim(bottom, highest)


def draw_label_efficiency(results: Results, path: str | Path) -> Path:
    """Draw each arm's mean over the label counts with a band of one standard deviation, and what it is worth in labels.

    Args:
        results: The content of `results.json`.
        path: The PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    lines = [sentence(row) for row in results["efficiency"]]
    figure = blank_figure(6.4, 4.4 + 0.15 * len(lines))
    axis = figure.subplots()
    for (arm, colour), marker in zip(colours(results).items(), "osD^vP*X" * 4, strict=False):
        points = _points(results, arm)
        counts, means, spreads = (np.asarray(column) for column in zip(*points, strict=True))
        axis.fill_between(counts, means - spreads, means + spreads, color=colour, alpha=0.18, linewidth=0)
        axis.plot(counts, means, marker=marker, color=colour, label=arm, linewidth=1.8, markersize=5.5)
    for row in results["efficiency"]:
        _equal(axis, results, row)
    axis.set_xscale("log")
    counts = [int(labels) for labels in results["labels"]]
    axis.set_xticks(counts, list(map(str, counts)))
    axis.set_xticks([], minor=True)
    _label(figure, axis, results)
    _note(figure, results, lines, band=True)
    return _save(figure, Path(path))


def _points(results: Results, arm: str) -> list[tuple[int, float, float]]:
    found = [(int(labels), entry["arms"][arm].get(results["metric"])) for labels, entry in results["labels"].items()]
    return [(labels, summary["mean"], summary["deviation"] or 0.0) for labels, summary in found if summary]


def _equal(axis: "Axes", results: Results, row: Mapping[str, Any]) -> None:
    """Draw the way from an arm's point to the label count at which its reference is as good."""
    if isinstance(row["equals"], str) or row["equals"] <= row["labels"]:
        return
    height = results["labels"][str(row["labels"])]["arms"][row["arm"]][results["metric"]]["mean"]
    axis.annotate(
        "",
        xy=(row["equals"], height),
        xytext=(row["labels"], height),
        arrowprops={"arrowstyle": "->", "linestyle": ":", "color": "0.35", "linewidth": 1.1},
    )


def _label(figure: "Figure", axis: "Axes", results: Results) -> None:
    axis.set_ylabel(f"{metric_title(results['metric'])}, test patients")
    axis.set_xlabel("labelled patients")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.7, zorder=0)
    axis.set_axisbelow(True)
    figure.suptitle(results["data"]["name"], fontsize=11, x=0.01, ha="left")
    longest = max(len(name) for name in results["arms"])
    columns = max(int(figure.get_figwidth() / (0.5 + 0.075 * longest)), 1)
    axis.legend(
        frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2
    )


def _note(figure: "Figure", results: Results, lines: Sequence[str] = (), *, band: bool = False) -> None:
    """Say under the figure what it rests on."""
    family = max((len(entry["comparisons"]) for entry in results["labels"].values()), default=0)
    corrected = f", Holm-corrected over {family} comparisons" if family > 1 else ""
    runs, patients = len(results["seeds"]), results["data"]["patients"]["test"]
    spread = "bands" if band else "whiskers"
    size = f"{number(runs, 'run')} (seeds), {number(patients, 'test patient')}"
    said = [
        *lines,
        f"{size}; {spread}: ± 1 standard deviation over the runs",
        subset_line(results),
    ]
    if family and not band:
        said.append(f"Welch's t-test{corrected}: * p < 0.05, ** p < 0.01, *** p < 0.001, n.s. not significant")
    if not band:
        said.append("the vertical axis does not begin at 0")
    characters = int(figure.get_figwidth() / _CHARACTER)
    wrapped = [row for line in said for row in textwrap.wrap(line, characters, subsequent_indent="   ")]
    figure.supxlabel("\n".join(wrapped), fontsize=7, color="0.3", x=0.01, ha="left")


def _save(figure: "Figure", path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return path
