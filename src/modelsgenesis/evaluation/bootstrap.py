"""How far a figure would move with other patients: percentile intervals from resampled patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelsgenesis.errors import ConfigurationError

LEVEL = 0.95
"""Coverage of every interval."""

_BLOCK = 4_000_000  # weights in memory at once


@dataclass(frozen=True)
class Interval:
    """A 95% bootstrap interval.

    Attributes:
        low: Lower end; None where no interval can be had: fewer than two patients, or no resample with a value.
        high: Upper end, or None.
        undefined: Resamples without a value, such as an AUC without a positive case; they are left out.
    """

    low: float | None
    high: float | None
    undefined: int = 0


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the percentile interval of one statistic over resampled patients; see `intervals`.

    Args:
        statistic: Maps weights [resamples, cases] to values [resamples]; NaN where it is undefined.
        patients: Whose each case is.
        resamples: How many.
        seed: Of the draws.

    Raises:
        ConfigurationError: No case, or no resample.

    Example:
        >>> dice = np.array([0.8, 0.9, 0.7, 0.85])
        >>> found = interval(lambda weights: weights @ dice / weights.sum(1), ["a", "b", "c", "d"])
        >>> 0.7 < found.low < 0.8125 < found.high < 0.9
        True
    """
    return intervals(lambda weights: statistic(weights)[:, None], patients, resamples, seed)[0]


def intervals(
    statistics: Callable[[np.ndarray], np.ndarray], patients: Sequence[str], resamples: int = 1000, seed: int = 0
) -> list[Interval]:
    """Return the percentile intervals of several statistics over the same resampled patients.

    Patients are drawn with replacement, each with all of its cases: several images of one patient are no
    independent evidence. A resample is a row of weights: how often each case is in it.

    Args:
        statistics: Maps weights [resamples, cases] to values [resamples, statistics]; NaN where undefined.
        patients: Whose each case is.
        resamples: How many.
        seed: Of the draws; the same for two models makes the same resamples.

    Returns:
        The 2.5th and the 97.5th percentile of each.

    Raises:
        ConfigurationError: No case, or no resample.

    References:
        Efron and Tibshirani 1993, chapter 13: the percentile interval.
    """
    if not len(patients) or resamples < 1:
        raise ConfigurationError(
            f"bootstrap: received {len(patients)} cases and {resamples} resamples, expected at least one of each"
        )
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    block = max(_BLOCK // len(owner), 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        found.append(statistics(drawn[:, owner].astype(float)))
    return [_interval(column, enough=len(names) > 1) for column in np.concatenate(found).T]


def _interval(values: np.ndarray, *, enough: bool) -> Interval:
    defined = values[~np.isnan(values)]
    undefined = values.size - defined.size
    if not enough or not defined.size:
        return Interval(None, None, undefined)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail]).tolist()
    return Interval(low, high, undefined)


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
    total = weights @ np.where(defined, values, 0.0)
    count = weights @ defined.astype(float)
    return divide(total, count)


def mean_of_columns(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient; NaN, without a warning, where the denominator is zero."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) != 0)
