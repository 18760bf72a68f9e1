import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparison_results import make_records
from modelsgenesis.comparison.efficiency import equivalents, labels_needed, sentence

PAIRS = [("genesis", "scratch")]


def test_linear_in_the_logarithm_between_the_counts():
    assert labels_needed({5: 0.6, 10: 0.7, 20: 0.8}, 0.75) == pytest.approx(10 * math.sqrt(2))
    assert labels_needed({5: 0.6, 10: 0.7}, 0.6) == 5
    assert labels_needed({5: 0.6}, 0.5) == -math.inf
    assert labels_needed({5: 0.6, 10: 0.5, 20: 0.65}, 0.62) == pytest.approx(10 * 2**0.8)  # a curve may dip


@given(st.dictionaries(st.integers(1, 500), st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_more_is_never_reached_with_fewer(curve, one, other):
    low, high = sorted([one, other])
    assert labels_needed(curve, low) <= labels_needed(curve, high)


def test_an_arm_equals_itself_where_it_rises():
    values = [0.6, 0.7, 0.8]
    curve = dict(zip((5, 10, 20), values, strict=True))
    assert [labels_needed(curve, value) for value in values] == [5, 10, 20]


def test_the_interval_holds_the_estimate_and_narrows_with_the_spread():
    rows = {row["labels"]: row for row in equivalents(make_records({"scratch": 0.0, "genesis": 0.1}), PAIRS, "dice")}
    assert rows[5]["low"] < rows[5]["equals"] < rows[5]["high"]
    assert 5 < rows[5]["equals"] < 10
    assert rows[20]["equals"] == "more"
    assert "is not reached by scratch with 20, the most that were run" in sentence(rows[20])


def test_a_worse_arm_is_said_to_be_below():
    rows = equivalents(make_records({"scratch": 0.0, "genesis": -0.5}), PAIRS, "dice")
    assert sentence(rows[0]) == (
        "genesis with 5 labels is below scratch with 5, the fewest that were run (95% over the runs: fewer than 5)."
    )


def test_few_runs_get_no_interval_in_words():
    rows = equivalents(make_records({"scratch": 0.0, "genesis": 0.1}, runs=2), PAIRS, "dice")
    assert "too few runs to say how certain that is" in sentence(rows[0])


def test_a_distance_is_turned_round():
    records = make_records({"scratch": 0.0, "genesis": 0.1})
    for record in records:
        record["test"]["hausdorff95"] = 10 * (1 - record["test"]["dice"])
    upright, turned = (equivalents(records, PAIRS, metric) for metric in ("dice", "hausdorff95"))
    assert turned[0]["equals"] == pytest.approx(upright[0]["equals"])
