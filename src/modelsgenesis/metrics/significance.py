"""Comparing the runs of two arms: what was measured, how certain a difference is, and when no test may be made.

The tests are SciPy's (extra `report`). A test that cannot be made has no p-value and says why.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsgenesis.errors import MissingExtraError, ShapeError

MINIMUM_RUNS = 3
"""Fewer runs than this say next to nothing about how runs vary: they get no p-value and no interval."""

_RELATIVE_ZERO = 1e-12  # a spread below this share of the mean is rounding, which SciPy's moments cannot see


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Values of the runs of one arm.

    Attributes:
        n: Number of runs.
        mean: Their mean.
        deviation: Their standard deviation (n − 1 in the denominator); None for a single run.
        low: The smallest value.
        high: The largest value.
    """

    n: int
    mean: float
    deviation: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Test:
    """A two-sided test of the hypothesis that there is no difference.

    Attributes:
        p: Probability of a difference as large, or larger, were there none; None where no test can be made.
        statistic: Of the test: t, or the signed-rank sum.
        degrees: Degrees of freedom of a t-test.
        why: Why there is no p-value.
    """

    __test__ = False  # no class of tests, whatever pytest makes of its name

    p: float | None
    statistic: float | None = None
    degrees: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of the differences of pairs, first minus second.

    Attributes:
        n: Number of pairs.
        mean: Of the differences.
        deviation: Their standard deviation; None for a single pair.
        low: Lower end of the 95% interval of the mean by Student's t; None where there are too few pairs.
        high: Upper end.
        why: Why there is no interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


def summarize(values: Sequence[float]) -> Summary:
    """Return mean and spread of the runs of an arm.

    Args:
        values: One number a run.

    Raises:
        ShapeError: There is no value.

    Example:
        >>> summarize([1.0, 2.0, 3.0])
        Summary(n=3, mean=2.0, deviation=1.0, low=1.0, high=3.0)
    """
    numbers = _numbers(values, "values")
    return Summary(
        n=len(numbers),
        mean=float(numbers.mean()),
        deviation=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        low=float(numbers.min()),
        high=float(numbers.max()),
    )


def welch(first: Sequence[float], second: Sequence[float]) -> Test:
    """Welch's t-test: do two arms have the same mean, their variances free to differ?

    It takes the runs of each arm as independent draws and does not use that they share seeds.

    Args:
        first: Values of one arm, one a run.
        second: Values of the other; the numbers of runs may differ.

    Returns:
        The test; without p-value where an arm has fewer than 3 runs or neither varies.

    Raises:
        MissingExtraError: SciPy is not installed.

    Example:
        >>> round(welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).p, 4)
        0.2209

    References:
        Welch, B. L. (1947), Biometrika 34; the two-sample test of the poster's tables.
    """
    one, two = _numbers(first, "first"), _numbers(second, "second")
    still = "neither arm varies: every run of an arm gave the same number" if _constant(one) and _constant(two) else ""
    why = _too_few(min(len(one), len(two))) or still
    return _test(why, lambda stats: stats.ttest_ind(one, two, equal_var=False))


def paired_t(first: Sequence[float], second: Sequence[float]) -> Test:
    """Student's t-test of the differences of pairs: the runs of the same seed in two arms.

    Args:
        first: Values of one arm, in the order of the seeds.
        second: Values of the other in the same order.

    Returns:
        The test; without p-value where there are fewer than 3 pairs or the difference is the same in each.

    Raises:
        MissingExtraError: SciPy is not installed.
        ShapeError: The numbers of runs differ.

    Example:
        >>> round(paired_t([1.0, 2.0, 4.0], [0.0, 2.0, 2.0]).p, 4)
        0.2254
    """
    differences = _differences(first, second)
    still = "the difference is the same in every pair" if _constant(differences) else ""
    return _test(_too_few(len(differences)) or still, lambda stats: stats.ttest_1samp(differences, 0.0))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> Test:
    """Wilcoxon's signed-rank test of the differences of pairs, which assumes no normal distribution.

    With n pairs its p-value is at least 2 / 2ⁿ: five pairs cannot reach 0.05.

    Args:
        first: Values of one arm, in the order of the seeds.
        second: Values of the other in the same order.

    Returns:
        The test; without p-value where there are fewer than 3 pairs or no pair differs.

    Raises:
        MissingExtraError: SciPy is not installed.
        ShapeError: The numbers of runs differ.

    Example:
        >>> wilcoxon([3.0, 4.0, 6.0], [2.0, 2.0, 3.0]).p
        0.25
    """
    differences = _differences(first, second)
    why = _too_few(len(differences)) or ("" if differences.any() else "no pair of runs differs")
    return _test(why, lambda stats: stats.wilcoxon(differences))


def _test(why: str, call: Callable[[Any], Any]) -> Test:
    """Return what SciPy says, unless there is a reason not to ask."""
    if why:
        return Test(p=None, why=why)
    with warnings.catch_warnings():  # of an arm that does not vary; the other does
        warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
        found = call(require_scipy())
    degrees = getattr(found, "df", None)
    return Test(
        p=float(found.pvalue), statistic=float(found.statistic), degrees=None if degrees is None else float(degrees)
    )


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean difference of the runs of the same seed in two arms, with its 95% interval by Student's t.

    Args:
        first: Values of one arm, in the order of the seeds.
        second: Values of the other in the same order.

    Raises:
        MissingExtraError: SciPy is not installed.
        ShapeError: The numbers of runs differ, or there is none.

    Example:
        >>> difference = paired_difference([1.0, 2.0, 4.0], [0.0, 2.0, 2.0])
        >>> difference.mean, round(difference.low, 3), round(difference.high, 3)
        (1.0, -1.484, 3.484)
    """
    differences = _differences(first, second)
    summary = summarize(differences.tolist())
    known = {"n": summary.n, "mean": summary.mean, "deviation": summary.deviation}
    if why := _too_few(summary.n):
        return Difference(**known, why=why)
    spread = 0.0 if _constant(differences) else float(summary.deviation or 0.0)
    half = float(require_scipy().t.ppf(0.975, summary.n - 1)) * spread / math.sqrt(summary.n)
    return Difference(**known, low=summary.mean - half, high=summary.mean + half)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for several tests at once by Holm's step-down procedure.

    Args:
        p_values: Of the tests of one family; None stays None and does not count.

    Returns:
        Corrected values in the same order, at most 1: below 0.05 all that are, the chance of any false one is 0.05.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        Holm, S. (1979), Scandinavian Journal of Statistics 6.
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(made):
        highest = max(highest, min(p * (len(made) - rank), 1.0))
        corrected[index] = highest
    return corrected


def require_scipy() -> Any:
    """Return `scipy.stats`.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("testing a difference", "report") from error
    return stats


def _numbers(values: Sequence[float], name: str) -> np.ndarray:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ShapeError(f"{name}: received {values!r}, expected one finite number a run and at least one")
    return numbers


def _differences(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    one, two = _numbers(first, "first"), _numbers(second, "second")
    if len(one) != len(two):
        raise ShapeError(f"pairs: received {len(one)} and {len(two)} runs, expected two of each seed")
    return one - two


def _too_few(runs: int) -> str:
    if runs >= MINIMUM_RUNS:
        return ""
    return f"{runs} run{'s' * (runs != 1)} cannot tell, {MINIMUM_RUNS} are the least"


def _constant(numbers: np.ndarray) -> bool:
    return bool(np.ptp(numbers) <= _RELATIVE_ZERO * np.abs(numbers).max())
