"""Charts of what was measured of test cases, each with a caption that is true of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.errors import counted, some
from modelsgenesis.figures.charts import COLUMN, PAGE, blank, style
from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.metrics.measures import (
    Row,
    Statistics,
    above_thresholds,
    case_scores,
    dice_of,
    intervals,
    mean_ignoring_nan,
    true_classes,
)
from modelsgenesis.metrics.tables import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORST, _BEST = 8, 4  # structures of many that get a strip of their own
_NEAR = 0.12  # of the axis: points whose names would overlap
_CURVES = 7  # that have colours which people can tell apart
_NUMBERS = 12  # classes, up to which zeros are written too
_LONGEST = 28  # letters of a name beside an axis
_GRID = np.linspace(0, 1, 101)
_INK = "#111111"  # on cells that stay pale on a dark page


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


# --- the Dice of each case --------------------------------------------------------------------------------------


@style()
def strip_chart(rows: Sequence[Row], marked: Mapping[str, str]) -> "Figure":
    """Draw the Dice of each case as a point: a strip of their means, and one of each structure.

    Args:
        rows: Of a segmentation, as `measure_case` returns them.
        marked: What cases are called that are ringed in the first strip, by their names.
    """
    strips = _strips(rows)
    figure = blank(PAGE, 0.8 + 0.4 * len(strips))
    axis = figure.subplots()
    every = list(dice_of(rows[0]))
    palette = dict(zip(every, colours(len(every)), strict=True))  # as outlines have them
    lowest = min(float(np.nanmin(values)) for values in strips.values())
    for place, (name, values) in enumerate(strips.items()):
        heights, colour = place + _spread(values), hex_of(palette.get(name, (0, 0, 0)))
        axis.plot(values, heights, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0)
        axis.plot([np.nanmedian(values)] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.5)
        if place == 0:
            points = zip(values.tolist(), heights.tolist(), (marked.get(row["case"], "") for row in rows), strict=True)
            _mark(axis, sorted(point for point in points if point[2]), _NEAR * (1 - lowest))
    names = [f"{_short(name)} (n = {np.count_nonzero(~np.isnan(values))})" for name, values in strips.items()]
    axis.set_yticks(range(len(strips)), names)
    axis.set_ylim(len(strips) - 0.5, -0.9 if marked else -0.5)
    axis.set_xlim(lowest - 0.05, 1.02)
    axis.set_xlabel("Dice")
    axis.grid(visible=False, axis="y")
    return figure


def _strips(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the Dice of the cases by structure, their mean first; of many structures the worst and the best."""
    found = [dice_of(row) for row in rows]
    each = {name: np.array([one[name] for one in found]) for name in found[0]}
    medians = {name: np.nanmedian(values) for name, values in each.items() if not np.isnan(values).all()}
    shown = list(medians)
    if len(shown) > _WORST + _BEST:
        ranked = sorted(medians, key=lambda name: medians[name])
        shown = [*ranked[:_WORST], *ranked[-_BEST:]]
    mean = {"mean of structures": case_scores(rows)} if len(shown) != 1 else {}
    return mean | {name: each[name] for name in shown}


def _mark(axis: "Axes", points: Sequence[tuple[float, float, str]], near: float) -> None:
    """Ring points, by their values, and name them; those that are near each other share a line of text."""
    groups: list[list[tuple[float, float, str]]] = []
    for point in points:
        axis.plot(*point[:2], "o", color="black", fillstyle="none", markersize=7, markeredgewidth=0.8)
        if groups and point[0] - groups[-1][-1][0] < near:
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        middle = float(np.mean([value for value, _, _ in group]))
        axis.annotate(", ".join(name for _, _, name in group), (middle, -0.55), ha="center", fontsize=7)


def _spread(values: np.ndarray) -> np.ndarray:
    """Return how far points lie beside their strip, so that those of nearly one value stand side by side."""
    ranks = np.argsort(np.argsort(values, kind="stable"))
    # Multiples of the golden ratio: evenly over the width, and never in the order of the values.
    return (ranks * 0.618 % 1 - 0.5) * min(0.1 * (len(values) - 1), 0.75)


def strip_caption(rows: Sequence[Row]) -> str:
    """Return what `strip_chart` shows."""
    every, empty = list(dice_of(rows[0])), int(np.isnan(case_scores(rows)).sum())
    absent = [name for name in every if all(np.isnan(dice_of(row)[name]) for row in rows)]
    structures = len(every) - len(absent)
    said = f"A point is the Dice of one of {counted(len(rows), 'test case')}, a bar the median. n counts the "
    said += "cases whose ground truth has the structure. The axis need not begin at 0."
    if structures > 1:
        said += " First the mean of each case over its structures."
    if structures > _WORST + _BEST:
        said += f" Of {structures} structures the {_WORST} with the lowest and the {_BEST} with the highest medians."
    said += f" Without a strip, as no ground truth has it: {some(absent)}." if absent else ""
    return said + (f" Not shown: {counted(empty, 'case')} without any structure, which has no Dice." if empty else "")


# --- receiver operating characteristic --------------------------------------------------------------------------


@style()
def roc_chart(
    rows: Sequence[Row], labels: Sequence[str], summary: Mapping[str, Any], *, multilabel: bool = False, seed: int = 0
) -> "Figure":
    """Draw the receiver operating characteristic: of two exclusive classes with its interval, else a curve for each.

    Args:
        rows: Of a classification, as `measure_case` returns them, with their `fold` where several networks predicted.
        labels: Class names.
        summary: What `summarize_rows` returns, which holds the areas.
        multilabel: Whether several classes may hold at once.
        seed: Random seed of the resamples.
    """
    single = len(labels) == 2 and not multilabel
    areas = {index: summary.get("auc" if single else f"auc {name}", {}) for index, name in enumerate(labels)}
    areas = {index: entry for index, entry in areas.items() if entry.get("value") is not None and (index or not single)}
    ranked = sorted(areas, key=lambda index: areas[index]["value"])
    palette = dict(zip(ranked[:_CURVES], map(hex_of, colours(_CURVES)), strict=False))
    figure = blank(COLUMN if single else 1.6 * COLUMN, COLUMN)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
    for index in reversed(ranked):
        curves = _curves_of(rows, labels, index, multilabel=multilabel)
        if single:
            _draw_band(axis, rows, curves, palette[index], seed)
        label = f"{_short(labels[index])}: {cell(areas[index], 3)}" if index in palette else None
        curve = curves(np.ones((1, len(rows))))[0]
        axis.plot([0, *_GRID], [0, *curve], color=palette.get(index, "0.8"), label=label)
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if ranked:
        place: dict[str, Any] = {"loc": "lower right"} if single else {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axis.legend(title="area under the curve", alignment="left", **place)
    return figure


def _curves_of(rows: Sequence[Row], labels: Sequence[str], index: int, *, multilabel: bool) -> Statistics:
    """Return what maps weights [resamples, cases] to the sensitivity at each share of false positives, by folds."""
    truth = np.array([true_classes(row["class"], labels, multilabel=multilabel)[index] for row in rows])
    scores = np.array([row[f"prob_{labels[index]}"] for row in rows])
    folds = np.array([row.get("fold", 0) for row in rows])

    def curves(weights: np.ndarray) -> np.ndarray:
        within = np.full((len(weights), len(_GRID), len(np.unique(folds))), np.nan)
        for number, own in enumerate(folds == fold for fold in np.unique(folds)):
            true, false = above_thresholds(scores[own], truth[own], weights[:, own])
            for one in np.flatnonzero((true[:, -1] > 0) & (false[:, -1] > 0)):
                within[one, :, number] = np.interp(_GRID, false[one] / false[one, -1], true[one] / true[one, -1])
        return mean_ignoring_nan(within)

    return curves


def _draw_band(axis: "Axes", rows: Sequence[Row], curves: Statistics, colour: str, seed: int) -> None:
    ends = np.array(intervals(curves, [row["patient"] for row in rows], 500, seed), float)
    if not np.isnan(ends).any():
        axis.fill_between(_GRID, *ends.T, color=colour, alpha=0.2, linewidth=0)


def roc_caption(rows: Sequence[Row], labels: Sequence[str], *, multilabel: bool = False) -> str:
    """Return what `roc_chart` shows."""
    patients, folds = len({row["patient"] for row in rows}), len({row.get("fold", 0) for row in rows})
    said = f"Receiver operating characteristic of {counted(len(rows), 'test case')} of {counted(patients, 'patient')}"
    if len(labels) == 2 and not multilabel:
        said += f": {labels[1]} against {labels[0]}."
        said += " Band: 95% bootstrap interval over patients at each specificity." if patients > 1 else ""
    else:
        said += ": each class against the others."
        said += f" In colour the {_CURVES} with the smallest areas." if len(labels) > _CURVES else ""
    return said + (f" Mean of the curves of {folds} folds, each ranked by itself." if folds > 1 else "")


# --- confusion matrix -------------------------------------------------------------------------------------------


def confusion(rows: Sequence[Row], labels: Sequence[str]) -> np.ndarray:
    """Count the cases of exclusive classes: a row for each true class, a column for each predicted one.

    Example:
        >>> confusion([{"class": "ill", "predicted": "ok"}, {"class": "ok", "predicted": "ok"}], ["ok", "ill"]).tolist()
        [[1, 0], [1, 0]]
    """
    index, counts = {label: number for number, label in enumerate(labels)}, np.zeros((len(labels),) * 2, int)
    for row in rows:
        counts[index[row["class"]], index[row["predicted"]]] += 1
    return counts


@style()
def confusion_chart(rows: Sequence[Row], labels: Sequence[str]) -> "Figure":
    """Draw the confusion matrix with its counts."""
    counts = confusion(rows, labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(1.6 + 0.45 * len(labels), PAGE)
    figure = blank(side, side)
    axis = figure.subplots()
    pale, deep = np.full(3, 0.94), np.array(colours(1)[0]) / 255
    axis.pcolormesh(pale + shares[..., None] * (deep - pale), edgecolors="white", linewidth=1)
    for (row, column), count in np.ndenumerate(counts):
        if count or len(labels) <= _NUMBERS:
            ink = "white" if shares[row, column] > 0.5 else _INK
            axis.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", color=ink)
    names, places = list(map(_short, labels)), np.arange(len(labels)) + 0.5
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 6 else {}
    axis.set_xticks(places, names, **turned)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set(xlabel="predicted", ylabel="ground truth", aspect="equal")
    axis.grid(visible=False)
    return figure


def confusion_caption(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """Return what `confusion_chart` shows."""
    right = int(np.trace(confusion(rows, labels)))
    said = f"Cases by ground truth and prediction; {right} of {len(rows)}, on the diagonal, are right."
    return f"{said} The deeper a colour, the larger the share of the true class."
