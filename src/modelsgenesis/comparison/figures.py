"""The figures of a comparison: bars with their runs and significance marks, and curves over label counts."""

import textwrap
from collections.abc import Mapping, Sequence
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

_GREYS = ("#9aa0a6", "#5f6368", "#bdc1c6")
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
    palette, greys = iter(_COLOURS * len(arms)), iter(_GREYS * len(arms))
    return {name: next(greys if arm["init"] is None else palette) for name, arm in arms.items()}


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
    axis, width = figure.subplots(), 0.8 / len(arms)
    drawn: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for index, (arm, colour) in enumerate(colours(results).items()):
        for group, labels in enumerate(counts):
            runs = np.array(list(values_by_seed(records, arm, int(labels), results["metric"]).values()))
            if not len(runs):
                continue
            place = group + (index - (len(arms) - 1) / 2) * width
            mean, spread = runs.mean(), runs.std(ddof=1) if len(runs) > 1 else 0.0
            axis.bar(place, mean, 0.92 * width, color=colour, label=arm if group == 0 else None, zorder=2)
            axis.errorbar(place, mean, spread or None, color="black", capsize=3.5, linewidth=1.2, zorder=4)
            offsets = np.linspace(-1, 1, len(runs)) * _JITTER * width * (len(runs) > 1)
            axis.scatter(place + offsets, runs, s=11, color="white", edgecolors="black", linewidths=0.6, zorder=3)
            drawn[arm, labels] = place, np.array([mean - spread, mean + spread, *runs])
    values = np.concatenate([values for _, values in drawn.values()])
    low, span = values.min(), max(np.ptp(values), 1e-3)
    # The axis begins below the values, where differences can be seen, and leaves room above for the marks.
    axis.set_ylim(max(low - 0.6 * span, 0.0 if low >= 0 else -np.inf), values.max() + 0.25 * span)
    _marks(axis, results, drawn)
    axis.set_xticks(range(len(counts)), counts)
    _label(figure, axis, results)
    _note(figure, results)
    return _save(figure, Path(path))


def _marks(axis: "Axes", results: Results, drawn: Mapping[tuple[str, str], tuple[float, np.ndarray]]) -> None:
    """Draw a bracket with a significance mark over each pair that was compared."""
    bottom, highest = axis.get_ylim()
    step = 0.075 * (highest - bottom)
    for labels, entry in results["labels"].items():
        top = max((values.max() for (_, count), (_, values) in drawn.items() if count == labels), default=0.0)
        for rank, comparison in enumerate(entry["comparisons"]):
            ends = [
                drawn[comparison[key], labels][0] for key in ("arm", "reference") if (comparison[key], labels) in drawn
            ]
            if len(ends) < 2:
                continue
            height = top + step * (0.45 + rank)
            bracket = [height - 0.2 * step, height, height, height - 0.2 * step]
            axis.plot(np.repeat(ends, 2), bracket, color="black", linewidth=0.9)
            mark = stars(comparison["tests"]["welch"]["p_holm"])
            axis.text(sum(ends) / 2, height, mark, ha="center", va="bottom", fontsize=8)
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
    tables = {int(labels): entry["arms"] for labels, entry in results["labels"].items()}
    for (arm, colour), marker in zip(colours(results).items(), "osD^vP*X" * 4, strict=False):
        found = {
            labels: table[arm][results["metric"]] for labels, table in tables.items() if results["metric"] in table[arm]
        }
        means = np.array([summary["mean"] for summary in found.values()])
        spreads = np.array([summary["deviation"] or 0.0 for summary in found.values()])
        axis.fill_between(list(found), means - spreads, means + spreads, color=colour, alpha=0.18, linewidth=0)
        axis.plot(list(found), means, marker=marker, color=colour, label=arm, linewidth=1.8, markersize=5.5)
    for row in results["efficiency"]:
        if not isinstance(row["equals"], str) and row["equals"] > row["labels"]:
            height = tables[row["labels"]][row["arm"]][results["metric"]]["mean"]
            arrow = {"arrowstyle": "->", "linestyle": ":", "color": "0.35", "linewidth": 1.1}
            axis.annotate("", xy=(row["equals"], height), xytext=(row["labels"], height), arrowprops=arrow)
    axis.set_xscale("log")
    axis.set_xticks(list(tables), list(map(str, tables)))
    axis.set_xticks([], minor=True)
    _label(figure, axis, results)
    _note(figure, results, lines, band=True)
    return _save(figure, Path(path))


def _label(figure: "Figure", axis: "Axes", results: Results) -> None:
    axis.set_ylabel(f"{metric_title(results['metric'])}, test patients")
    axis.set_xlabel("labelled patients")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.7, zorder=0)
    axis.set_axisbelow(True)
    figure.suptitle(results["data"]["name"], fontsize=11, x=0.01, ha="left")
    longest = max(len(name) for name in results["arms"])
    columns = max(int(figure.get_figwidth() / (0.5 + 0.075 * longest)), 1)
    axis.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns)


def _note(figure: "Figure", results: Results, lines: Sequence[str] = (), *, band: bool = False) -> None:
    """Say under the figure what it rests on."""
    family = max((len(entry["comparisons"]) for entry in results["labels"].values()), default=0)
    corrected = f", Holm-corrected over {family} comparisons" if family > 1 else ""
    runs = number(len(results["seeds"]), "run")
    size = f"{runs} (seeds), {number(results['data']['patients']['test'], 'test patient')}"
    spread = "bands" if band else "whiskers"
    said = [*lines, f"{size}; {spread}: ± 1 standard deviation over the runs", subset_line(results)]
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
