"""The report of a comparison."""

import re

import pytest

from modelsgenesis.metrics.comparison_texts import comparison_report, remarks_of_runs, sentence, verdict
from modelsgenesis.metrics.measures import metric_title
from simulated_comparison import draw_records, results_of

GAINS = {"scratch": 0.0, "genesis": 0.2}


def report(gains=GAINS, counts=(5, 10, 20), runs=5, **options):
    text = comparison_report(results_of(draw_records(gains, counts, runs), **options))
    return re.sub(" +", " ", text)  # tables are aligned


@pytest.mark.parametrize("resample", [True, False])
def test_a_report_says_what_it_rests_on_and_what_it_does_not_show(resample):
    text = report(resample=resample)
    assert text.startswith("# Hippocampus: Dice by initialisation\n")
    assert "patients: 140 training, 16 validation and 39 test;" in text
    assert "| genesis − scratch | 5 | +0.0" in text
    assert "genesis with 20 labels equals scratch with more than 20 (95% over the runs" in text
    assert ("drawn anew" in text, "the same in all runs of a label count" in text) == (resample, not resample)
    assert "400 steps of 4 samples" in text
    assert "## What this does not show" in text


def test_two_runs_get_no_p_value_several_arms_the_correction_and_one_alone_no_differences():
    few = report(counts=(5,), runs=2)
    assert "(none) |" in few
    assert "| none | none | none |" in few
    assert re.search(r"\(none\) \| [+-]0\.\d{4} \(seed [01]\) \|", few)  # the worst pair
    assert "Label efficiency" not in few
    several = report({**GAINS, "a|b": 0.1})
    assert "| labels | scratch | genesis | a\\|b |" in several
    assert "Holm's correction over the 2 comparisons" in several
    assert " / " in several.split("## Differences")[1].splitlines()[4]
    assert "## Differences" not in report({"scratch": 0.0})
    assert metric_title("average_precision") == "average precision"


def test_what_was_tuned_is_shown():
    means = {"1e-3": 0.5, "1e-2": None}
    candidates = [{"settings": [f"learning_rate={rate}"], "mean": mean} for rate, mean in means.items()]
    choice = {"arm": "genesis", "labels": 5, "chosen": ["learning_rate=1e-3"], "candidates": candidates}
    text = report(tuning=[choice])
    assert "genesis, 5 labels: learning_rate=1e-3 was chosen from learning_rate=1e-3 0.5000; " in text
    assert "learning_rate=1e-2 diverged" in text
    assert "no test patient was measured before the choice" in text


@pytest.mark.parametrize(
    ("gains", "options", "told"),
    [
        (GAINS, {}, r"In Dice, genesis is better than scratch with 5 \(p = [\d.]+\), 10 \(p = .*, paired t-test\)\.$"),
        ({"scratch": 0.0, "worse": -0.3}, {}, r"worse is worse than scratch with 5 .* and 20 .*labelled patients"),
        ({"scratch": 0.0, "same": 0.0}, {}, r"same against scratch is undecided with 5 \(p = .*and 20"),
        ({**GAINS, "same": 0.0}, {}, r"; same against scratch is undecided with .*Holm-corrected"),
        (GAINS, {"runs": 2}, "No verdict: 2 runs of each initialisation, and a test takes 3"),
        ({"scratch": 0.0}, {}, "one initialisation alone is compared with nothing"),
    ],
)
def test_the_verdict_says_no_more_than_the_tests(gains, options, told):
    assert re.search(told, verdict(results_of(draw_records(gains, **options))))


def test_where_less_is_better_the_verdict_turns_round():
    records = draw_records({"scratch": 0.0, "worse": -0.3}, (5,), 8)
    assert "worse is worse than scratch" in verdict(results_of(records))
    for record in records:
        record["test"]["dice"] = 1 - record["test"]["dice"]
    results = results_of(records)
    results["metric"] = "hausdorff95"
    for arm in results["labels"]["5"]["arms"].values():
        arm["hausdorff95"] = arm["dice"]
    assert "worse is worse than scratch" in verdict(results)


def test_what_does_not_vary_is_undecided_without_a_p_value():
    records = draw_records(GAINS, (5,), 3)
    for record in records:
        record["test"]["dice"] = 0.5 if record["arm"] == "scratch" else 0.6
    assert "genesis against scratch is undecided with 5 (no test)" in verdict(results_of(records))


def test_one_labelled_patient_is_not_several():
    results = results_of(draw_records(GAINS, (5,), 5))
    results["labels"] = {"1": results["labels"].pop("5")}
    assert re.search(r"genesis is better than scratch with 1 \(p = [\d.e-]+\) labelled patient \(", verdict(results))
    row = {"arm": "a", "reference": "b", "labels": 1, "equals": 5, "low": 5, "high": 5, "fewest": 1, "most": 5}
    assert sentence(row).startswith("a with 1 label equals b with 5 ")
    records = [{"arm": "a", "labels": 1, "remarks": ["dark was never predicted"]}, {"arm": "a", "labels": 5}]
    assert remarks_of_runs(records) == ["a, 1 label: dark was never predicted (1 of 1 run)"]
