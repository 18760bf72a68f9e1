import math

import numpy as np
import pytest

from modelsgenesis.metrics.significance import (
    LEADING,
    analyse,
    compare_runs,
    holm,
    label_efficiency,
    labels_needed,
    patient_interval,
    summarize,
)
from simulated_comparison import draw_records

FIRST = [0.82, 0.85, 0.80, 0.87]
SECOND = [0.78, 0.79, 0.77, 0.82]
PAIRS = [("one", "scratch"), ("two", "scratch")]


def compared(first, second):
    return compare_runs(dict(enumerate(first)), dict(enumerate(second)))


def test_tests_by_hand():
    found = compared(FIRST, SECOND)
    # Means 0.835 and 0.79; variances 0.0029/3 and 0.0014/3; t = 0.045 / sqrt((0.0029 + 0.0014) / 12), 5.3 degrees.
    assert found["p"]["welch"] == pytest.approx(0.0597, abs=5e-4)
    # Differences 0.04 0.06 0.03 0.05; Student's distribution with 3 degrees of freedom has a closed form.
    ratio = 0.045 / (math.sqrt(0.0005 / 3) / 2) / math.sqrt(3)
    assert found["p"]["paired_t"] == pytest.approx(1 - 2 / math.pi * (math.atan(ratio) + ratio / (1 + ratio**2)))
    half = 3.182446 * math.sqrt(0.0005 / 3) / 2  # the 97.5th percentile of t with 3 degrees of freedom
    ends = (found["difference"], found["low"], found["high"])
    assert ends == pytest.approx((0.045, 0.045 - half, 0.045 + half), abs=1e-6)
    # All five differences are positive: of the 2⁵ signs one is as extreme on each side.
    assert found["worst"] == {"seed": 2, "difference": pytest.approx(0.03)}
    turned = compare_runs(dict(enumerate(FIRST)), dict(enumerate(SECOND)), lower_is_better=True)
    assert turned == found | {"worst": {"seed": 1, "difference": pytest.approx(0.06)}}
    wilcoxon = compared([1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 1.2, 1.9, 2.6, 3.3])["p"]["wilcoxon"]
    assert wilcoxon == pytest.approx(2 / 32)


def test_holm_by_hand():
    # × 3, × 1, × 2, × 4, then never below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert (holm([0.6, 0.7]), holm([None, 0.02, None]), holm([])) == ([1, 1], [None, 0.02, None], [])


@pytest.mark.parametrize(
    ("first", "second", "tested"),
    [
        ([0.8, 0.9], [0.7, 0.6], set()),  # too few
        ([0.8] * 4, [0.7] * 4, {"wilcoxon"}),  # nothing varies: no test by variance pretends certainty
        ([0.8] * 4, SECOND, {"welch", "paired_t", "wilcoxon"}),
        ([0.8, 0.9, 0.7], [0.7, 0.8, 0.6], {"welch", "wilcoxon"}),  # the same difference in every pair
        (FIRST, FIRST, {"welch"}),
    ],
)
def test_no_test_where_it_would_say_nothing(first, second, tested):
    found = compared(first, second)
    assert {name for name, p in found["p"].items() if p is not None} == tested
    assert (found["low"] is None) == (len(first) < 3)
    assert found["difference"] == pytest.approx(np.mean(first) - np.mean(second))


def test_runs_are_paired_by_their_seed_and_an_undefined_metric_is_no_run():
    records = draw_records({"scratch": 0.0, "one": 0.3}, counts=(5,))
    ours, theirs = ([r["test"]["dice"] for r in records if r["arm"] == arm] for arm in ("one", "scratch"))
    records = [record for record in reversed(records) if (record["arm"], record["seed"]) != ("one", 2)]
    records[0]["test"]["dice"] = float("nan")  # of one, seed 4
    entry = analyse(records, PAIRS[:1], "dice", {})["5"]
    [found] = entry["comparisons"]
    assert entry["arms"]["one"]["dice"] == summarize([ours[seed] for seed in (0, 1, 3)]) | {"seeds": [0, 1, 3]}
    assert (found["arm"], found["reference"], found["pairs"]) == ("one", "scratch", 3)
    assert found["difference"] == pytest.approx(np.mean([ours[seed] - theirs[seed] for seed in (0, 1, 3)]))
    assert summarize([0.5])["std"] is None


def test_the_correction_is_over_the_arms_of_a_label_count() -> None:
    table = analyse(draw_records({"scratch": 0.0, "one": 0.3, "two": 0.1}), PAIRS, "dice", {})
    assert list(table) == ["5", "10", "20"]
    p, corrected = ([entry[key]["welch"] for entry in table["10"]["comparisons"]] for key in ("p", "p_holm"))
    assert corrected == pytest.approx(holm(p))
    assert corrected != p


def test_what_the_seed_does_to_both_does_not_hide_a_difference():
    easy = np.random.default_rng(0).normal(0.6, 0.1, 10)  # of the patients that are labelled
    noise = np.random.default_rng(1).normal(0.02, 0.01, 10)
    p = compared(easy + noise, easy)["p"]
    assert p[LEADING] < 0.001 < 0.1 < p["welch"]


SEGMENT = {"labels": ("background", "a", "b"), "task": "segmentation"}


def segmented(shift, seed=0, cases=30):
    random = np.random.default_rng(seed)
    patients = np.random.default_rng(99).uniform(0.5, 0.9, cases)  # hard and easy ones are so for everyone
    rows = []
    for index, ease in enumerate(patients):
        value = ease + shift + random.normal(0, 0.01)
        rows.append({"patient": f"p{index}", "dice a": value, "dice b": value, "iou a": value, "iou b": value})
    return rows


def test_what_is_hard_for_both_does_not_blur_the_difference():
    runs = [[segmented(shift, seed) for seed in range(4)] for shift in (0.05, 0.0)]
    runs[0][0][3]["dice b"] = None  # an undefined case is left out
    for metric in ("dice", "dice b"):
        found = patient_interval(*runs, metric, SEGMENT)
        assert 0.04 < found["low"] < 0.05 < found["high"] < 0.06


def test_says_nothing_where_the_cases_do_not_tell():
    for rows, metric in ((segmented(0.1), "hausdorff95"), ([], "dice"), (segmented(0.1, cases=1), "dice")):
        assert patient_interval([rows], [rows], metric, SEGMENT) is None


def test_linear_in_the_logarithm_between_the_counts():
    assert labels_needed({5: 0.6, 10: 0.7, 20: 0.8}, 0.75) == pytest.approx(10 * math.sqrt(2))
    assert (labels_needed({5: 0.6, 10: 0.7}, 0.6), labels_needed({5: 0.6}, 0.5)) == (5, 0)
    assert labels_needed({5: 0.6, 10: 0.5, 20: 0.65}, 0.62) == pytest.approx(10 * 2**0.8)  # a curve may dip


def test_the_interval_holds_the_estimate_and_a_distance_is_turned_round():
    records = draw_records({"scratch": 0.0, "one": 0.1})
    upright, turned = (label_efficiency(records, PAIRS[:1], metric) for metric in ("dice", "hausdorff95"))
    assert 0 <= upright[0]["low"] < upright[0]["equals"] < upright[0]["high"]
    assert 5 < upright[0]["equals"] < 10
    assert upright[2]["equals"] is None
    assert turned[0]["equals"] == pytest.approx(upright[0]["equals"])
    assert label_efficiency(draw_records({"scratch": 0.0, "one": -0.5}), PAIRS[:1], "dice")[0]["equals"] == 0
    assert label_efficiency(draw_records({"scratch": 0.0, "one": 0.1}, (5,)), PAIRS[:1], "dice") == []
