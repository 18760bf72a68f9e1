import pytest

from comparison_results import make_records
from modelsgenesis.comparison.analysis import analyse, lower_is_better, values_by_seed

ARMS = ["scratch", "one", "two"]
PAIRS = [("one", "scratch"), ("two", "scratch")]


def test_summaries_and_differences_are_of_the_runs():
    records = make_records({"scratch": 0.0, "one": 0.3, "two": 0.1})
    table = analyse(records, ARMS, PAIRS, "dice")
    assert list(table) == ["5", "10", "20"]
    ours, theirs = (list(values_by_seed(records, arm, 5, "dice").values()) for arm in ("one", "scratch"))
    assert table["5"]["arms"]["one"]["dice"]["mean"] == pytest.approx(sum(ours) / 5)
    comparison = table["5"]["comparisons"][0]
    assert comparison["difference"]["mean"] == pytest.approx((sum(ours) - sum(theirs)) / 5)
    assert (comparison["arm"], comparison["reference"], comparison["pairs"]) == ("one", "scratch", 5)
    assert set(comparison["tests"]) == {"welch", "paired_t", "wilcoxon"}


def test_the_correction_is_over_the_arms_of_a_label_count():
    table = analyse(make_records({"scratch": 0.0, "one": 0.3, "two": 0.1}), ARMS, PAIRS, "dice")
    tests = [comparison["tests"]["welch"] for comparison in table["10"]["comparisons"]]
    smallest = min(tests, key=lambda test: test["p"])
    assert smallest["p_holm"] == pytest.approx(2 * smallest["p"])
    assert all(test["p_holm"] >= test["p"] for test in tests)


def test_runs_are_paired_by_their_seed_and_not_by_their_place():
    records = make_records({"scratch": 0.0, "one": 0.3}, counts=(5,))
    missing = [record for record in reversed(records) if (record["arm"], record["seed"]) != ("one", 2)]
    comparison = analyse(missing, ["scratch", "one"], [("one", "scratch")], "dice")["5"]["comparisons"][0]
    ours, theirs = (values_by_seed(records, arm, 5, "dice") for arm in ("one", "scratch"))
    expected = sum(ours[seed] - theirs[seed] for seed in (0, 1, 3, 4)) / 4
    assert comparison["pairs"] == 4
    assert comparison["difference"]["mean"] == pytest.approx(expected)


def test_an_undefined_metric_is_no_run():
    records = make_records({"scratch": 0.0, "one": 0.3}, counts=(5,), runs=3)
    for record in records:
        if record["arm"] == "one":
            record["test"]["dice"] = float("nan") if record["seed"] else None
    entry = analyse(records, ["scratch", "one"], [("one", "scratch")], "dice")["5"]
    assert "dice" not in entry["arms"]["one"]
    assert entry["comparisons"][0]["difference"] is None
    assert entry["comparisons"][0]["tests"]["welch"]["why"] == "no seed has finished in both arms"


def test_a_distance_is_better_when_smaller():
    assert lower_is_better("hausdorff95 Anterior")
    assert not lower_is_better("dice")
