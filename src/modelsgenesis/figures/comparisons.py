"""Charts of comparisons: means over label counts, runs in pairs, label efficiency, validation over the budget."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from modelsgenesis.errors import counted
from modelsgenesis.figures.charts import COLUMN, MARKERS, PAGE, blank, legend_above, style
from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.metrics.comparison_texts import Results, how_labelled, stars
from modelsgenesis.metrics.measures import METRICS, metric_title
from modelsgenesis.metrics.significance import LEADING, MINIMUM_RUNS, TESTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 3  # in a row


@style()
def comparison_chart(results: Results) -> "Figure":
    """Draw the mean of each initialisation over the label counts with its interval, the runs, and significance marks.

    Args:
        results: The content of a comparison's `results.json`.
    """
    counts, arms, metric = list(results["labels"]), list(results["arms"]), results["metric"]
    width = COLUMN if len(counts) * len(arms) <= 8 else PAGE
    figure = blank(width, 2.8)
    axis = figure.subplots()
    for index, (name, look) in enumerate(_looks(results).items()):
        places = np.arange(len(counts)) + 0.6 * ((index + 0.5) / len(arms) - 0.5)  # side by side, none hides another
        entries = results["labels"].values()
        runs = [entry["arms"].get(name, {}).get(metric, {}).get("values", []) for entry in entries]
        means, highs = _draw_means(axis, places, runs, look, name)
        for place, entry, values, high in zip(places, entries, runs, highs, strict=True):
            if values:
                _draw_runs(axis, place + 0.07, values, look)
                top = (place, np.nanmax([high, *values]))
                axis.annotate(_mark(entry, name), top, (0, 1), textcoords="offset points", ha="center")
        axis.plot(places, means, "-", color=look["color"], linewidth=0.6, alpha=0.6)
    axis.margins(y=0.1)
    _label_counts(axis, counts)
    axis.set_ylabel(with_unit(results))
    legend_above(axis, width)
    return figure


def comparison_caption(results: Results) -> str:
    """Return what `comparison_chart` shows of a comparison."""
    listed = next(iter(results["labels"].values()))["comparisons"]
    pairs = {one["arm"]: f"{one['arm']} − {one['reference']}" for one in reversed(listed)}  # the first of each
    text = (
        f"{results['data']['name']}, {counted(results['data']['patients']['test'], 'test patient')}, "
        f"{counted(len(results['seeds']), 'run')} each. "
        "Large: the mean over the runs, with its 95% interval by Student's t (from 3 runs on). Small: each run. "
        f"Labelled patients: {how_labelled(results)}."
    )
    if not pairs:
        return text
    return (
        f"{text} Stars: the difference {', '.join(reversed(pairs.values()))} by "
        f"the {TESTS[LEADING]}-test over the runs, Holm-corrected: * p < 0.05, ** p < 0.01, *** p < 0.001; without a "
        "star it is not significant."
    )


def with_unit(results: Results) -> str:
    """Return how an axis calls the metric of a comparison."""
    metric, unit = results["metric"], results.get("unit")
    return f"{metric_title(metric)} ({unit})" if unit and metric.startswith("hausdorff95") else metric_title(metric)


def interval_of_mean(values: ArrayLike) -> tuple[float, float]:
    """Return the 95% interval of the mean of runs by Student's t; NaN where there are too few.

    Example:
        >>> interval_of_mean([1.0, 2.0])
        (nan, nan)
    """
    runs = np.asarray(values)
    if len(runs) < MINIMUM_RUNS:
        return np.nan, np.nan
    from scipy.special import stdtrit

    half = stdtrit(len(runs) - 1, 0.975) * runs.std(ddof=1) / np.sqrt(len(runs))
    return float(runs.mean() - half), float(runs.mean() + half)


def _mark(entry: Mapping[str, Any], arm: str) -> str:
    """Return the stars of an arm's first comparison, that with its control."""
    found = next((one for one in entry["comparisons"] if one["arm"] == arm), None)
    told = stars(found["p_holm"][LEADING]) if found else ""
    return told if "*" in told else ""


def paired_caption(results: Results, arm: str, reference: str) -> str:
    """Return what `paired_chart` shows of two initialisations."""
    better = "below" if METRICS[results["metric"].split()[0]].lower_is_better else "above"
    return (
        f"Left: a line is a pair of runs with the same seed, from {reference} to {arm}. Right: {arm} − {reference} of "
        f"each pair (small), and the mean with its 95% interval by Student's t (from 3 pairs on); {better} the line "
        f"{arm} is better."
    )


@style()
def paired_chart(results: Results, arm: str, reference: str) -> "Figure":
    """Draw the runs of two initialisations in pairs of the same seed, and their differences, by label count.

    Args:
        results: The content of a comparison's `results.json`.
        arm: An initialisation.
        reference: The one that it is compared with.
    """
    looks, counts = _looks(results), list(results["labels"])
    figure = blank(PAGE, 2.5)
    left, right = figure.subplots(1, 2)
    differences: list[np.ndarray] = []
    for place, labels in enumerate(counts):
        theirs, ours = pairs = _pairs(results, labels, arm, reference)
        left.plot([[place - 0.2] * len(ours), [place + 0.2] * len(ours)], pairs, "-", color="0.6", linewidth=0.6)
        for name, at, values in ((reference, place - 0.2, theirs), (arm, place + 0.2, ours)):
            label = {"label": name} if place == 0 else {}
            left.plot(np.full(len(values), at), values, **looks[name], linestyle="none", markersize=3, **label)
        differences.append(ours - theirs)
        _draw_runs(right, place + 0.08, differences[-1], looks[arm])
    _draw_means(right, np.arange(len(counts)), differences, looks[arm], None)
    right.axhline(0, color="black", linewidth=0.8)
    right.margins(x=0.2)
    for axis, title in ((left, with_unit(results)), (right, f"difference in {with_unit(results)}")):
        _label_counts(axis, counts)
        axis.set_ylabel(title)
    legend_above(left)
    return figure


EFFICIENCY_CAPTION = (
    "How many labelled patients the reference needs for what an initialisation reaches with fewer or more: above the "
    "dashed line labels are saved. Intervals: the middle 95% when runs are drawn again; an arrow leads to more, or to "
    "fewer, than were run."
)


@style()
def efficiency_chart(results: Results) -> "Figure":
    """Draw how many labels the reference needs for what each initialisation reaches.

    Args:
        results: The content of a comparison's `results.json`, with two label counts or more.
    """
    looks, rows = _looks(results), results["efficiency"]
    lowest, highest = rows[0]["fewest"] / 1.3, rows[0]["most"] * 1.3
    figure = blank(COLUMN, 2.8)
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log", xlabel="labelled patients", ylabel="labels that the reference needs")
    axis.plot([lowest, highest], [lowest, highest], "--", color="0.45", linewidth=0.8)
    pairs = list(dict.fromkeys((row["arm"], row["reference"]) for row in rows))
    for row in rows:
        # 0 is fewer than were run, None more: beyond the ends of the axis, where an arrow leads.
        at = row["labels"] * 1.03 ** (pairs.index((row["arm"], row["reference"])) - (len(pairs) - 1) / 2)
        low, equals, high = (
            highest if one is None else one or lowest for one in map(row.get, ("low", "equals", "high"))
        )
        look = looks[row["arm"]]
        axis.plot([at, at], [low, high], "-", color=look["color"])
        for end, beyond in ((low, row["low"] == 0), (high, row["high"] is None)):
            if beyond:
                axis.plot(at, end, "v" if end == lowest else "^", color=look["color"], markersize=5, clip_on=False)
        if lowest < equals < highest:
            axis.plot(at, equals, **look)
    for arm, reference in pairs:
        axis.plot([], [], **looks[arm], linestyle="-", label=f"{arm}, against {reference}")
    counts = sorted({row["labels"] for row in rows} | {rows[0]["fewest"], rows[0]["most"]})
    for one in (axis.xaxis, axis.yaxis):
        one.set_ticks(counts, list(map(str, counts)))
        one.set_ticks([], minor=True)
    axis.set(xlim=(lowest, highest), ylim=(lowest, highest))
    legend_above(axis)
    return figure


BUDGET_CAPTION = (
    "The metric that chooses the kept step, on the validation patients, over the steps of training. Pale: each run. "
    "Strong: the mean, as far as all runs go."
)


@style()
def budget_chart(results: Results, records: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw how the validations of each initialisation went over the budget, a panel per label count.

    Args:
        results: The content of a comparison's `results.json`.
        records: The runs, with `arm`, `labels` and `curve`: `metric`, and its `values` at each `step`.
    """
    counts, looks = [int(labels) for labels in results["labels"]], _looks(results)
    columns = min(len(counts), _PANELS)
    rows = -(-len(counts) // columns)
    figure = blank(COLUMN if columns == 1 else PAGE, 2.3 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axis in axes[len(counts) :]:
        axis.remove()
    for labels, axis in zip(counts, axes, strict=False):
        for name, look in looks.items():
            own = [one["curve"] for one in records if (one["arm"], one["labels"]) == (name, labels)]
            runs = [dict(zip(one["step"], np.array(one["values"], float), strict=True)) for one in own]
            for run in runs:
                axis.plot(list(run), list(run.values()), "-", color=look["color"], linewidth=0.4, alpha=0.4)
            shared = [step for step in (runs or [{}])[0] if all(step in run for run in runs)]
            means = [np.mean([run[step] for run in runs]) for step in shared]
            axis.plot(shared, means, **look, linestyle="-", markersize=3, label=name)
        axis.set(title=counted(labels, "labelled patient"), xlabel="step")
    axes[0].set_ylabel(f"validation {metric_title(records[0]['curve']['metric'])}")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=columns)
    return figure


def _looks(results: Results) -> dict[str, dict[str, Any]]:
    """Return colour and marker of each initialisation; the first with random weights is grey."""
    arms = results["arms"]
    control = next((name for name, arm in arms.items() if arm["init"] is None), None)
    shades = map(hex_of, colours(len(arms)))
    return {
        name: {"color": "0.45" if name == control else next(shades), "marker": MARKERS[index % len(MARKERS)]}
        for index, name in enumerate(arms)
    }


def _pairs(results: Results, labels: str, arm: str, reference: str) -> np.ndarray:
    """Return the values of the reference and of the other, [2, runs], of the seeds that both have."""
    by_seed: list[dict[int, float]] = []
    for name in (reference, arm):
        found = results["labels"][labels]["arms"].get(name, {}).get(results["metric"], {"n": 0, "values": []})
        seeds = found.get("seeds", results["seeds"] if found["n"] == len(results["seeds"]) else [])
        by_seed.append(dict(zip(seeds, found["values"], strict=False)))
    theirs, ours = by_seed
    return np.array([[own[seed] for seed in theirs if seed in ours] for own in by_seed], float)


def _draw_runs(axis: "Axes", place: float, values: ArrayLike, look: Mapping[str, Any]) -> None:
    axis.plot(np.full(np.size(values), place), values, ".", color=look["color"], alpha=0.6, markersize=3, mew=0)


def _draw_means(
    axis: "Axes", places: np.ndarray, runs: Sequence[ArrayLike], look: Mapping[str, Any], label: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mean of the runs at each place with its interval; return means and upper ends, NaN without runs."""
    means = np.array([np.asarray(values).mean() if np.size(values) else np.nan for values in runs])
    ends = np.array([interval_of_mean(values) for values in runs]).T
    style = {"color": look["color"], "fmt": look["marker"], "capsize": 2.5, "label": label}
    axis.errorbar(places, means, np.nan_to_num(np.abs(ends - means)), **style)
    return means, ends[1]


def _label_counts(axis: "Axes", counts: Sequence[str]) -> None:
    axis.set_xticks(range(len(counts)), counts)
    axis.set_xlabel("labelled patients")
    axis.grid(visible=False, axis="x")
