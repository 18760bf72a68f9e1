"""Classification: the classes that probabilities stand for, and how well scores rank the cases of a class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelsgenesis.errors import RangeError

CLASSIFICATION_METRICS = ("auc", "average_precision", "sensitivity", "accuracy")
"""Of each class: area under the ROC curve, average precision, sensitivity at a specificity, share that is right."""


CLASS_SEPARATOR = "; "
"""Between the names of several classes in a cell of a table."""


def chosen_classes(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Return which classes probabilities stand for: the most probable one, or with `multilabel` all of at least 0.5.

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
    held: Sequence[int], probabilities: np.ndarray, labels: Sequence[str], *, multilabel: bool
) -> dict[str, str | float]:
    """Return what a table says of a classified case: what holds, what was predicted, and the probabilities.

    Args:
        held: Indices of the classes that hold.
        probabilities: [classes].
        labels: Class names.
        multilabel: Whether several classes, or none, may hold.
    """
    chosen: list[int] = np.flatnonzero(chosen_classes(probabilities, multilabel=multilabel)).tolist()
    return {
        "class": CLASS_SEPARATOR.join(labels[index] for index in held),
        "predicted": CLASS_SEPARATOR.join(labels[index] for index in chosen),
        **{f"probability {name}": float(value) for name, value in zip(labels, probabilities, strict=True)},
    }


@dataclass(frozen=True)
class Curve:
    """What lies above each distinct score, from the highest score to the lowest.

    Attributes:
        true: Weight of the positive cases at or above each score, [resamples, scores].
        false: Weight of the negative cases at or above each score.
    """

    true: np.ndarray
    false: np.ndarray


def curve(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> Curve:
    """Count what lies above each distinct score.

    Args:
        scores: [cases]; equal ones are one threshold.
        truth: [cases] booleans.
        weights: [resamples, cases]; ones for the cases as they are.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    drawn, positive = weights[:, order], truth[order]
    return Curve(
        true=np.cumsum(drawn * positive, axis=1)[:, last_of_ties],
        false=np.cumsum(drawn * ~positive, axis=1)[:, last_of_ties],
    )


def area(curve: Curve) -> np.ndarray:
    """Return the area under the receiver operating characteristic, a tie counting half; NaN without both kinds."""
    true, false = (np.pad(side, ((0, 0), (1, 0))) for side in (curve.true, curve.false))
    rectangles = np.diff(false, axis=1) * (true[:, 1:] + true[:, :-1]) / 2
    return divide(rectangles.sum(axis=1), true[:, -1] * false[:, -1])


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic of cases as they are; a tie counts half.

    Args:
        scores: [cases], higher for the class.
        truth: [cases] booleans.

    Returns:
        A number in [0, 1]; NaN where all cases, or none, are of the class.

    Raises:
        RangeError: A score is not finite.

    Example:
        >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
        0.875
    """
    check_finite(scores)
    return float(area(curve(scores, truth, np.ones((1, len(scores)))))[0])


def check_finite(scores: np.ndarray) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        RangeError: One is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise RangeError(
            f"scores: {int((~np.isfinite(scores)).sum())} of {scores.size} are not finite; the network diverged, lower "
            "the learning rate"
        )


def average_precision(curve: Curve) -> np.ndarray:
    """Return the precision at each score averaged over the positive cases; NaN without both kinds."""
    gained = np.diff(np.pad(curve.true, ((0, 0), (1, 0))), axis=1)
    precision = np.nan_to_num(divide(curve.true, curve.true + curve.false))  # nothing above: nothing gained either
    values = divide((gained * precision).sum(axis=1), curve.true[:, -1])
    return np.where(curve.false[:, -1] > 0, values, np.nan)


def sensitivity_at(specificity: float) -> Callable[[Curve], np.ndarray]:
    """Return the function that gives the highest sensitivity of a threshold with at least this specificity.

    Example:
        >>> found = curve(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]), np.ones((1, 4)))
        >>> sensitivity_at(0.5)(found).tolist(), sensitivity_at(0.9)(found).tolist()
        ([1.0], [0.5])
    """

    def sensitivity(curve: Curve) -> np.ndarray:
        true, false = (np.pad(side, ((0, 0), (1, 0))) for side in (curve.true, curve.false))  # above the highest: none
        false_rate = divide(false, false[:, -1:])
        true_rate = divide(true, true[:, -1:])
        allowed = false_rate <= 1 - specificity + 1e-12  # NaN is not
        best = np.where(allowed, true_rate, -np.inf).max(axis=1)
        return np.where(np.isfinite(best), best, np.nan)

    return sensitivity


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient; NaN, without a warning, where the denominator is zero."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) != 0)
