"""Classification: the classes that probabilities stand for, and how well scores rank the cases of a class."""

from collections.abc import Sequence

import numpy as np

from modelsgenesis.errors import ShapeError

RANKING_METRICS = ("auc", "average_precision", "sensitivity")
"""Of each class against the rest: area under the ROC curve, average precision, sensitivity at a specificity."""

CLASSIFICATION_METRICS = (*RANKING_METRICS, "accuracy")
"""The ranking metrics, and the share of cases that is right."""

CLASS_SEPARATOR = "; "
"""Between the names of several classes in a cell of a table."""


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
    chosen: list[int] = np.flatnonzero(chosen_classes(probabilities, multilabel=multilabel)).tolist()
    return {
        "class": CLASS_SEPARATOR.join(labels[index] for index in true),
        "predicted": CLASS_SEPARATOR.join(labels[index] for index in chosen),
        **{f"probability {name}": float(value) for name, value in zip(labels, probabilities, strict=True)},
    }


def rank(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray, specificity: float = 0.9) -> np.ndarray:
    """Measure how well scores rank the cases of a class before the others, for many resamples at once.

    Args:
        scores: [cases], higher for the class; equal ones are one threshold.
        truth: [cases] booleans.
        weights: [resamples, cases], how often each case counts; ones for the cases as they are.
        specificity: That a threshold must reach for the sensitivity.

    Returns:
        [resamples, 3], the `RANKING_METRICS`: the area, in which a tie counts half; the precision at each score,
        averaged over the positive cases; the highest sensitivity at the specificity. NaN without both kinds of case.

    Example:
        >>> found = rank(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]), np.ones((1, 4)), 0.5)
        >>> found.round(3).tolist()
        [[0.75, 0.833, 1.0]]
    """
    # Sorted once for all resamples: only the weights differ between them.
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    # Weight of the positive and of the negative cases at or above each distinct score, after a 0 for "above the first".
    true, false = (
        np.pad(np.cumsum(weights[:, order] * kind, axis=1)[:, last_of_ties], ((0, 0), (1, 0)))
        for kind in (truth[order], ~truth[order])
    )
    positives, negatives = true[:, -1], false[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2).sum(axis=1) / (positives * negatives)
        precision = np.nan_to_num(true[:, 1:] / (true + false)[:, 1:])  # nothing above a score: nothing gained there
        average_precision = (np.diff(true) * precision).sum(axis=1) / positives
        # 1e-12: the specificity of a threshold is a quotient, and 1 - 0.9 is not 0.1.
        allowed = false / negatives[:, None] <= 1 - specificity + 1e-12
        sensitivity = np.where(allowed, true, 0).max(axis=1) / positives
    found = np.stack([area, average_precision, sensitivity], axis=1)
    return np.where((positives * negatives > 0)[:, None], found, np.nan)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic; a tie counts half.

    Args:
        scores: [cases], higher for the class.
        truth: [cases] booleans.

    Returns:
        A number in [0, 1]; NaN where all cases, or none, are of the class.

    Raises:
        ShapeError: A score is not finite.

    Example:
        >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
        0.875
    """
    check_finite(scores)
    return float(rank(scores, truth, np.ones((1, len(scores))))[0, 0])


def check_finite(scores: np.ndarray) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        ShapeError: One is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ShapeError(
            f"scores: {int((~np.isfinite(scores)).sum())} of {scores.size} are not finite; the network diverged, lower "
            "the learning rate"
        )
