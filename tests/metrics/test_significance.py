import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.errors import MissingExtraError, ShapeError
from modelsgenesis.metrics.significance import holm, paired_difference, paired_t, summarize, welch, wilcoxon

FIRST = [0.82, 0.85, 0.80, 0.87]
SECOND = [0.78, 0.79, 0.77, 0.82]
values = st.lists(st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 4)), min_size=3, max_size=12)


def test_welch_by_hand():
    # means 0.835 and 0.79; variances 0.0029/3 and 0.0014/3; t = 0.045 / sqrt((0.0029 + 0.0014) / 12)
    found = welch(FIRST, SECOND)
    one, two = 0.0029 / 3 / 4, 0.0014 / 3 / 4
    assert found.statistic == pytest.approx(0.045 / math.sqrt(one + two))
    assert found.degrees == pytest.approx((one + two) ** 2 / (one**2 / 3 + two**2 / 3))
    assert found.p == pytest.approx(0.0597, abs=5e-4)


def test_paired_by_hand():
    # differences 0.04 0.06 0.03 0.05: mean 0.045, deviation sqrt(0.0005 / 3), t = 0.045 / (deviation / 2) = 6.9714
    found = paired_t(FIRST, SECOND)
    assert found.statistic == pytest.approx(0.045 / (math.sqrt(0.0005 / 3) / 2))
    ratio = found.statistic / math.sqrt(3)  # Student's distribution with 3 degrees of freedom has a closed form
    by_hand = 1 - 2 / math.pi * (math.atan(ratio) + ratio / (1 + ratio**2))
    assert (found.degrees, found.p) == (3, pytest.approx(by_hand))
    difference = paired_difference(FIRST, SECOND)
    half = 3.182446 * math.sqrt(0.0005 / 3) / 2  # the 97.5th percentile of t with 3 degrees of freedom
    assert difference.mean == pytest.approx(0.045)
    assert (difference.low, difference.high) == pytest.approx((0.045 - half, 0.045 + half), abs=1e-6)


def test_wilcoxon_by_hand():
    # all five differences are positive: of the 2⁵ signs one is as extreme on each side
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 1.2, 1.9, 2.6, 3.3]).p == pytest.approx(2 / 32)


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # × 3, × 1, × 2, × 4, then never below the one before
        ([0.6, 0.7], [1.0, 1.0]),
        ([None, 0.02, None], [None, 0.02, None]),
        ([], []),
    ],
)
def test_holm_by_hand(given_p, expected):
    assert holm(given_p) == (pytest.approx(expected) if None not in expected else expected)


@pytest.mark.parametrize("test", [welch, paired_t, wilcoxon])
def test_fewer_than_three_runs_get_no_p_value(test):
    found = test([0.8, 0.9], [0.7, 0.6])
    assert (found.p, found.why) == (None, "2 runs cannot tell, 3 are the least")


def test_fewer_than_three_pairs_get_no_interval():
    found = paired_difference([0.8, 0.9], [0.7, 0.6])
    assert (found.low, found.high, found.why) == (None, None, "2 runs cannot tell, 3 are the least")
    assert found.mean == pytest.approx(0.2)


def test_without_variance_no_test_pretends_certainty():
    assert "neither arm varies" in welch([0.8] * 4, [0.7] * 4).why
    assert "same in every pair" in paired_t([0.8, 0.9, 0.7], [0.7, 0.8, 0.6]).why
    assert "no pair of runs differs" in wilcoxon(FIRST, FIRST).why
    assert welch([0.8] * 4, SECOND).p is not None  # one arm may be constant
    same = paired_difference([0.8, 0.9, 0.7], [0.7, 0.8, 0.6])
    assert same.low == same.high == pytest.approx(0.1)


def test_bad_values_are_refused():
    with pytest.raises(ShapeError, match="received 3 and 2 runs, expected two of each seed"):
        paired_t([1, 2, 3], [1, 2])
    with pytest.raises(ShapeError, match="expected one finite number a run"):
        summarize([])
    with pytest.raises(ShapeError, match=r"first: received .*nan.*, expected one finite number"):
        welch([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])


def test_a_single_run_has_no_deviation():
    assert summarize([0.5]).deviation is None


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"modelsgenesis\[report\]"):
        welch(FIRST, SECOND)


@given(values, values)
def test_the_order_of_the_arms_changes_only_the_sign(first, second):
    one, other = welch(first, second), welch(second, first)
    assert one.p == pytest.approx(other.p) if one.p is not None else other.p is None
    size = min(len(first), len(second))
    ahead, behind = (paired_difference(a[:size], b[:size]) for a, b in ((first, second), (second, first)))
    assert ahead.mean == pytest.approx(-behind.mean)
    assert (ahead.low, ahead.high) == pytest.approx((-behind.high, -behind.low))


@given(values, st.floats(-1, 1))
def test_an_interval_excludes_zero_just_when_the_paired_test_is_significant(differences, shift):
    first, second = [d + shift for d in differences], [0.0] * len(differences)
    found, interval = paired_t(first, second), paired_difference(first, second)
    if found.p is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (interval.low > 0 or interval.high < 0)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_only_raises_keeps_the_order_and_is_no_harder_than_bonferroni(p_values):
    corrected = holm(p_values)
    pairs = [(p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None]
    assert [p is None for p in p_values] == [c is None for c in corrected]
    for p, c in pairs:
        assert p <= c <= min(1.0, p * len(pairs)) + 1e-12
    assert [c for _, c in sorted(pairs)] == sorted(c for _, c in pairs)


def test_the_level_is_kept():
    random = np.random.default_rng(0)
    rejected = [welch(random.normal(size=10), random.normal(size=10)).p < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(rejected) < 0.09
