"""What is measured of predictions: case by case, and over the cases, with 95% bootstrap intervals over patients.

`METRICS` lists the metrics. A new one is a function here and a line there; results, tables, figures and comparisons
follow from it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange

from modelsgenesis.errors import ConfigurationError, ShapeError, require

# A line of `test.csv` or `cases.csv`: `case`, `patient`, then what was measured of the case.
Row = dict[str, Any]

# By the metric's name: `value`, and `low` and `high` of its 95% interval, each None where undefined. A distance has its
# `unit`. Where some are left out of the mean, `undefined` counts the cases of all `cases`, or `undefined_classes` the
# classes of all `classes`; `reason` says why there is no value.
Summary = dict[str, dict[str, Any]]

# Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
Statistics = Callable[[np.ndarray], np.ndarray]

UNIT = "distance_unit"  # the column that says in what distances are: mm, pixels or voxels
CLASS_SEPARATOR = "; "  # between the names of several classes in a cell of a table

_TAILS = (2.5, 97.5)  # percentiles at the ends of a 95% interval
_BLOCK = 4_000_000  # weights in memory at once: 32 MB


# --- segmentation: functions of two masks and the voxel size in mm ------------------------------------------------


def dice(ours: np.ndarray, theirs: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Return the Dice coefficient, in [0, 1], of a predicted mask and the true one; NaN where the truth is empty.

    Example:
        >>> dice(np.array([False, True, True]), np.array([False, False, True]))
        0.6666666666666666
    """
    size = int(np.count_nonzero(theirs))
    # An absent structure has no Dice: 0 for any false positive, 1 for none, would swamp the mean over cases.
    return 2 * int(np.count_nonzero(ours & theirs)) / (int(np.count_nonzero(ours)) + size) if size else math.nan


def _iou(ours: np.ndarray, theirs: np.ndarray, spacing: Sequence[float] | None) -> float:
    value = dice(ours, theirs)
    return value / (2 - value)  # it follows from Dice case by case, not from their means


def _hausdorff95(ours: np.ndarray, theirs: np.ndarray, spacing: Sequence[float] | None) -> float | None:
    """Return MONAI's distance in the spacing's unit; NaN where one mask is empty: there is no distance to nothing."""
    if spacing is None:
        return None
    if not (ours.any() and theirs.any()):  # MONAI would return infinity, with a warning
        return math.nan
    from monai.metrics.utils import get_mask_edges, get_surface_distance
    from scipy.ndimage import find_objects

    # Cropped here: what MONAI crops by takes ten times as long as the rest on a small image.
    inside = find_objects((ours | theirs).astype(np.uint8))[0]
    edges = get_mask_edges(ours[inside], theirs[inside], crop=False)
    sides = [float(side) for side in spacing]
    return max(float(np.quantile(get_surface_distance(*both, spacing=sides), 0.95)) for both in (edges, edges[::-1]))


# --- classification: functions of two arrays and a specificity ----------------------------------------------------
#
# The arrays are those of `above_thresholds`.


def _area(true: np.ndarray, false: np.ndarray, specificity: float) -> np.ndarray:
    """Return the area under the receiver operating characteristic, in which a tie counts half."""
    return (np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2).sum(axis=1) / (true[:, -1] * false[:, -1])


def _average_precision(true: np.ndarray, false: np.ndarray, specificity: float) -> np.ndarray:
    """Return the precision at each score, averaged over the positive cases."""
    precision = np.nan_to_num(true[:, 1:] / (true + false)[:, 1:])  # nothing above a score: nothing gained there
    return (np.diff(true) * precision).sum(axis=1) / true[:, -1]


def _sensitivity(true: np.ndarray, false: np.ndarray, specificity: float) -> np.ndarray:
    """Return the highest sensitivity at the specificity."""
    # 1e-12: the specificity of a threshold is a quotient, and 1 - 0.9 is not 0.1.
    allowed = false / false[:, -1:] <= 1 - specificity + 1e-12
    return np.where(allowed, true, 0).max(axis=1) / true[:, -1]


# --- the metrics --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A metric of `evaluate` and its like.

    Attributes:
        task: Of which predictions.
        title: How tables and figures call it.
        measure: Of a segmentation a structure of one case; None where it cannot be measured at all. Of a
            classification one class by the scores of all cases. None for what is no matter of one class.
        hub: Its identifier on the Hub, as of the library `evaluate` where that has it.
        digits: Behind the decimal point.
        lower_is_better: Whether it is a distance or an error.
    """

    task: str
    title: str
    measure: Callable[..., Any] | None
    hub: str
    digits: int = 3
    lower_is_better: bool = False


# The first of each task is the one by which networks are kept and arms compared.
METRICS = {
    "dice": Metric("segmentation", "Dice", dice, "dice"),
    "iou": Metric("segmentation", "IoU", _iou, "mean_iou"),
    "hausdorff95": Metric("segmentation", "HD95", _hausdorff95, "hausdorff95", digits=2, lower_is_better=True),
    "auc": Metric("classification", "AUC", _area, "roc_auc"),
    "average_precision": Metric("classification", "average precision", _average_precision, "average_precision"),
    "sensitivity": Metric("classification", "sensitivity", _sensitivity, "sensitivity"),
    "accuracy": Metric("classification", "accuracy", None, "accuracy"),
}


def metrics_of(task: str) -> list[str]:
    """Return the names of the metrics of a task."""
    return [name for name, metric in METRICS.items() if metric.task == task]


_OF_STRUCTURES = {name: one.measure for name, one in METRICS.items() if one.task == "segmentation" and one.measure}
_OF_RANKS = {name: one.measure for name, one in METRICS.items() if one.task == "classification" and one.measure}


def measure_segmentation(
    predicted: np.ndarray, truth: np.ndarray, labels: Sequence[str], spacing: Sequence[float] | None
) -> dict[str, float]:
    """Measure a label map of one case.

    Args:
        predicted: Class indices [*spatial].
        truth: Class indices of the same shape.
        labels: Class names, the background first.
        spacing: Voxel size along each axis; None where there is none, and then there is no distance.

    Returns:
        `dice <structure>`, `iou <structure>` and, in the unit of the spacing, `hausdorff95 <structure>`; NaN where
        undefined.

    Raises:
        ShapeError: The shapes differ.

    Example:
        >>> found = measure_segmentation(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), ["background", "a"], (1, 2))
        >>> round(found["dice a"], 3), round(found["iou a"], 3)
        (0.667, 0.5)
    """
    if predicted.shape != truth.shape:
        raise ShapeError(f"prediction of shape {predicted.shape}: expected the label's {truth.shape}")
    row: dict[str, Any] = {f"{name} {label}": None for name in _OF_STRUCTURES for label in labels[1:]}
    for index, label in enumerate(labels[1:], start=1):
        ours, theirs = predicted == index, truth == index
        row |= {f"{name} {label}": measure(ours, theirs, spacing) for name, measure in _OF_STRUCTURES.items()}
    return {name: value for name, value in row.items() if value is not None}


def chosen_classes(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Return the classes that probabilities stand for: the most probable one, or with `multilabel` all of at least 0.5.

    Args:
        probabilities: [..., classes].
        multilabel: Whether several classes, or none, may hold.

    Returns:
        Booleans of the same shape.

    Example:
        >>> chosen_classes(np.array([0.5, 0.5, 0.2]), multilabel=True).tolist()
        [True, True, False]
        >>> chosen_classes(np.array([0.5, 0.5, 0.2]), multilabel=False).tolist()
        [True, False, False]
    """
    if multilabel:
        return probabilities >= 0.5
    return np.arange(probabilities.shape[-1]) == probabilities.argmax(axis=-1)[..., None]


def classification_row(
    true: Sequence[int], probabilities: np.ndarray, labels: Sequence[str], *, multilabel: bool
) -> dict[str, str | float]:
    """Return a table's row of a classified case: the true classes, the predicted ones, and the probabilities.

    Args:
        true: Indices of the classes that hold.
        probabilities: [classes].
        labels: Class names.
        multilabel: Whether several classes, or none, may hold.
    """
    chosen = np.flatnonzero(chosen_classes(probabilities, multilabel=multilabel)).tolist()
    return {
        "class": CLASS_SEPARATOR.join(labels[index] for index in true),
        "predicted": CLASS_SEPARATOR.join(labels[index] for index in chosen),
        **{f"prob_{name}": float(value) for name, value in zip(labels, probabilities, strict=True)},
    }


def rank(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray, specificity: float = 0.9) -> np.ndarray:
    """Measure how well scores rank the cases of a class before the others, for many resamples at once.

    Args:
        scores: [cases], higher for the class; equal ones are one threshold.
        truth: [cases] booleans.
        weights: [resamples, cases], how often each case counts; ones for the cases as they are.
        specificity: That a threshold must reach for the sensitivity.

    Returns:
        [resamples, 3]: the area under the curve, the average precision, the sensitivity. NaN without both kinds of
        case.

    Raises:
        ShapeError: A score is not finite.

    Example:
        >>> found = rank(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]), np.ones((1, 4)), 0.5)
        >>> found.round(3).tolist()
        [[0.75, 0.833, 1.0]]
    """
    true, false = above_thresholds(scores, truth, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.stack([measure(true, false, specificity) for measure in _OF_RANKS.values()], axis=1)
    return np.where((true[:, -1:] * false[:, -1:] > 0), found, np.nan)


def above_thresholds(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of the true and of the false cases at or above each distinct score; arguments as of `rank`.

    Returns:
        Twice [resamples, 1 + distinct scores], the highest score first, after a 0 for "above the highest".

    Raises:
        ShapeError: A score is not finite.
    """
    wrong = np.count_nonzero(~np.isfinite(scores))
    require(not wrong, ShapeError, f"scores: {wrong} of {scores.size} are not finite; lower the learning rate")
    # Sorted once for all resamples: only the weights differ between them.
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true, false = (
        np.pad(np.cumsum(weights[:, order] * kind, axis=1)[:, last_of_ties], ((0, 0), (1, 0)))
        for kind in (truth[order], ~truth[order])
    )
    return true, false


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic, in which a tie counts half; see `rank`.

    Example:
        >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
        0.875
    """
    return float(rank(scores, truth, np.ones((1, len(scores))))[0, 0])


# --- over the cases -----------------------------------------------------------------------------------------------


def intervals(
    statistics: Statistics, patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> list[tuple[float | None, float | None]]:
    """Return the 95% percentile intervals of several statistics over the same resampled patients.

    Patients are drawn with replacement, each with all of its cases: several images of one patient are not
    independent evidence. A resample is a row of weights: how often each case is in it.

    Args:
        statistics: Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
        patients: The patient of each case.
        resamples: Number of draws.
        seed: Random seed of the draws; the same for two models makes the same resamples.

    Returns:
        The ends for each statistic, from the resamples where it is defined; both None where there is no interval:
        fewer than two patients, or no resample with a value.

    Raises:
        ConfigurationError: There is no resample.

    Example:
        >>> dice = np.array([0.8, 0.9, 0.7, 0.85])
        >>> ((low, high),) = intervals(lambda weights: weighted_means(dice[:, None], weights), ["a", "b", "c", "d"])
        >>> 0.7 < low < 0.8125 < high < 0.9
        True

    References:
        Efron and Tibshirani 1993, chapter 13: the percentile interval.
    """
    require(resamples > 0, ConfigurationError, f"bootstrap: received {resamples} resamples, expected at least one")
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    block = max(_BLOCK // len(owner), 1)
    found: list[np.ndarray] = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # How often each patient is drawn is multinomial, and every case of a patient shares its count.
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        found.append(statistics(drawn[:, owner].astype(float)))
    columns = [column[~np.isnan(column)] for column in np.concatenate(found).T]
    return [
        tuple(np.percentile(defined, _TAILS).tolist()) if len(names) > 1 and defined.size else (None, None)
        for defined in columns
    ]


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of each column over the cases where it is defined.

    Args:
        values: [cases, columns], NaN where undefined.
        weights: [resamples, cases].

    Returns:
        [resamples, columns]; NaN where no case with weight has a value.

    Example:
        >>> weighted_means(np.array([[1.0], [np.nan], [3.0]]), np.array([[1, 5, 1], [0, 1, 0]])).tolist()
        [[2.0], [nan]]
    """
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(defined, values, 0.0) / (weights @ defined.astype(float))


def mean_ignoring_nan(values: Sequence[float] | np.ndarray) -> Any:
    """Return the mean over the last axis of what is defined; NaN, without a warning, where nothing is."""
    given = np.asarray(values, float)
    mean = np.ma.filled(np.ma.masked_where(np.isnan(given), given).mean(axis=-1), np.nan)
    return mean if mean.ndim else float(mean)  # a card's YAML takes no NumPy number


def dice_of(row: Row) -> dict[str, float]:
    """Return the Dice of each structure of a case by its name; NaN where the truth has none."""
    return {name.partition(" ")[2]: float(value) for name, value in row.items() if name.startswith("dice ")}


def case_scores(rows: Sequence[Row]) -> np.ndarray:
    """Return the Dice of each case, the mean over the structures that its truth has; NaN where it has none.

    Example:
        >>> case_scores([{"dice a": 0.5, "dice b": 1.0}, {"dice a": math.nan, "dice b": 0.4}]).tolist()
        [0.75, 0.4]
    """
    return np.array([mean_ignoring_nan(list(dice_of(row).values())) for row in rows])


def summarize_rows(
    rows: Sequence[Row], labels: Sequence[str], *, resamples: int = 1000, seed: int = 0, **kind: Any
) -> Summary:
    """Summarize what was measured of each case.

    Args:
        rows: A row for each case, as `measure_case` returns it. Cases that several networks predicted, such as those
            of folds, say in `fold` which did: scores of different networks cannot be ranked together, so cases are
            ranked within each fold, and the folds averaged.
        labels: Class names; of a segmentation the background first.
        resamples: Bootstrap resamples of the patients.
        seed: Random seed of them.
        kind: `task`, `multilabel` and `specificity`, as of `figures_of`.

    Returns:
        Of a segmentation `dice`, the mean over the structures of the mean over the cases, then `dice <structure>`; so
        for `iou` and `hausdorff95`, in the unit that the rows say. Of a classification `auc`, `average_precision`,
        `sensitivity` at the specificity, and `accuracy`: of two exclusive classes the first three are of the second;
        otherwise they are the mean of each class against the rest, beside `auc <class>` and so on. The accuracy is the
        share of cases given their class; where several classes may hold, the share of correct decisions at a
        probability of 0.5. Nothing without rows.

    Raises:
        ShapeError: A probability is NaN.

    Example:
        >>> rows = [{"patient": "p", "dice a": 0.5, "iou a": 0.33}, {"patient": "q", "dice a": 1.0, "iou a": 1.0}]
        >>> summarize_rows(rows, ["background", "a"], task="segmentation")["dice a"]
        {'value': 0.75, 'low': 0.5, 'high': 1.0}
    """
    if not rows:
        return {}
    remarks, statistics = figures_of(rows, labels, **kind)
    # The cases as they are: one resample in which each counts once.
    points = statistics(np.ones((1, len(rows))))[0].tolist()
    ends = intervals(statistics, [row["patient"] for row in rows], resamples, seed)
    found: Summary = {}
    for (name, remark), point, (low, high) in zip(remarks.items(), points, ends, strict=True):
        found[name] = {"value": None if math.isnan(point) else point, "low": low, "high": high}
        found[name] |= {key: value for key, value in remark.items() if value and (key == "reason") == math.isnan(point)}
    return found


def figures_of(
    rows: Sequence[Row], labels: Sequence[str], *, task: str, multilabel: bool = False, specificity: float = 0.9
) -> tuple[Summary, Statistics]:
    """Return the figures of rows by name, with what is to be said of each, and the function that gives them.

    Of the remarks, a `reason` counts where there is no value, the others where there is.

    Args:
        rows: As of `summarize_rows`.
        labels: Class names; of a segmentation the background first.
        task: `"segmentation"` or `"classification"`.
        multilabel: Whether several classes may hold at once.
        specificity: At which the sensitivity is given.
    """
    if task == "segmentation":
        return _segmentation(rows, labels[1:])
    return _classification(rows, labels, multilabel=multilabel, specificity=specificity)


def _segmentation(rows: Sequence[Row], structures: Sequence[str]) -> tuple[Summary, Statistics]:
    metrics = [name for name in _OF_STRUCTURES if all(f"{name} {one}" in rows[0] for one in structures)]
    values = np.array([[row[f"{name} {one}"] for name in metrics for one in structures] for row in rows], float)
    units = sorted({str(row.get(UNIT, "")) for row in rows})
    if len(units) > 1:  # millimetres and pixels have no mean
        values[:, [name == "hausdorff95" for name in metrics for _ in structures]] = np.nan

    def statistics(weights: np.ndarray) -> np.ndarray:
        each = weighted_means(values, weights)
        return _with_means(rearrange(each, "draws (metrics names) -> draws metrics names", metrics=len(metrics)))

    undefined = rearrange(np.isnan(values).sum(axis=0), "(metrics names) -> metrics names", metrics=len(metrics))
    remarks: Summary = {}
    for metric, counts in zip(metrics, undefined.tolist(), strict=True):
        remark: dict[str, Any] = {"reason": "no case has the structure in both the ground truth and the prediction"}
        if metric == "hausdorff95":
            remark |= {"unit": units[0]} if len(units) == 1 else {"reason": f"cases are in {' and in '.join(units)}"}
        remarks[metric] = remark
        for one, count in zip(structures, counts, strict=True):
            remarks[f"{metric} {one}"] = {**remark, "undefined": count, "cases": count and len(rows)}
    return remarks, statistics


def _classification(
    rows: Sequence[Row], labels: Sequence[str], *, multilabel: bool, specificity: float
) -> tuple[Summary, Statistics]:
    soft = np.array([[row[f"prob_{name}"] for name in labels] for row in rows])
    truth = np.array([true_classes(row["class"], labels, multilabel=multilabel) for row in rows])
    folds = np.array([row.get("fold", 0) for row in rows])
    chosen = chosen_classes(soft, multilabel=multilabel)
    right = (chosen == truth).mean(axis=1) if multilabel else (chosen & truth).any(axis=1).astype(float)
    # Of two exclusive classes the second says all, and there is no mean over classes.
    single = len(labels) == 2 and not multilabel
    ranked = range(1, 2) if single else range(len(labels))

    def statistics(weights: np.ndarray) -> np.ndarray:
        # Scores of two networks are on scales of their own, so cases are ranked within each fold.
        within = [
            [rank(soft[own, index], truth[own, index], weights[:, own], specificity) for index in ranked]
            for own in (folds == fold for fold in np.unique(folds))
        ]
        each = mean_ignoring_nan(rearrange(np.array(within), "folds names draws metrics -> draws metrics names folds"))
        metrics = each[..., 0] if single else _with_means(each)
        return np.column_stack([metrics, weighted_means(right[:, None], weights)])

    held = truth.sum(axis=0).tolist()
    absent = 0 if single else sum(count in (0, len(rows)) for count in held)
    remarks: Summary = {}
    for metric in _OF_RANKS:
        remarks[metric] = {"reason": f"all {len(rows)} cases are of one class"}
        remarks[metric] |= {"undefined_classes": absent, "classes": absent and len(labels)}
        for label, count in () if single else zip(labels, held, strict=True):
            remarks[f"{metric} {label}"] = {"reason": f"{count} of {len(rows)} cases are of this class"}
    return {**remarks, "accuracy": {}}, statistics


def true_classes(cell: str, labels: Sequence[str], *, multilabel: bool) -> list[bool]:
    """Return which classes a cell says hold; of exclusive ones the whole of it is the name."""
    if not multilabel:
        return [cell == name for name in labels]
    # Not split: a name may hold the separator itself.
    between = f"{CLASS_SEPARATOR}{cell}{CLASS_SEPARATOR}"
    return [f"{CLASS_SEPARATOR}{name}{CLASS_SEPARATOR}" in between for name in labels]


def _with_means(values: np.ndarray) -> np.ndarray:
    """Put the mean over what is defined before the columns of each metric, and the metrics beside one another."""
    means = mean_ignoring_nan(values)[..., None]
    return rearrange(np.concatenate([means, values], axis=-1), "draws metrics names -> draws (metrics names)")


def flat(summary: Summary) -> dict[str, float]:
    """Return the values that are defined, by name.

    Example:
        >>> flat({"auc": {"value": None, "low": None, "high": None}, "accuracy": {"value": 1.0}})
        {'accuracy': 1.0}
    """
    return {name: entry["value"] for name, entry in summary.items() if entry["value"] is not None}


def explanations(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence about each figure that is undefined, or that leaves cases or classes out.

    Example:
        >>> explanations({"dice liver": {"value": 0.9, "undefined": 1, "cases": 3}})
        ['Dice of liver: mean over 2 of 3 cases (in the others the ground truth is empty)']
    """
    said: list[str] = []
    for name, entry in summary.items():
        title = metric_title(name)
        if entry["value"] is None:
            said.append(f"{title} is undefined: {entry['reason']}")
            continue
        empty = "the ground truth or the prediction" if name.startswith("hausdorff95") else "the ground truth"
        if "undefined" in entry and "cases" in entry:
            count = f"{entry['cases'] - entry['undefined']} of {entry['cases']}"
            said.append(f"{title}: mean over {count} cases (in the others {empty} is empty)")
        if "undefined_classes" in entry and "classes" in entry:
            count = f"{entry['classes'] - entry['undefined_classes']} of {entry['classes']}"
            said.append(f"{title}: mean over {count} classes (the others hold in no case or in every case)")
    return said


def metric_title(metric: str) -> str:
    """Return a metric as people write it.

    Example:
        >>> metric_title("auc"), metric_title("dice Anterior")
        ('AUC', 'Dice of Anterior')
    """
    first, _, label = metric.partition(" ")
    return METRICS[first].title + (f" of {label}" if label else "")
