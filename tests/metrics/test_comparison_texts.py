"""The report of a comparison."""

import re

import pytest

from modelsgenesis.metrics.comparison_texts import comparison_report
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
    assert "140 training, 16 validation and 39 test patients" in text
    assert "| 5 | genesis − scratch | +0.0" in text
    assert "genesis with 20 labels equals scratch with more than 20 (95% over the runs" in text
    assert ("drawn anew" in text, "the same in all runs of a label count" in text) == (resample, not resample)
    assert "400 steps of 4 samples" in text
    assert "## What this does not show" in text


def test_two_runs_get_no_p_value_several_arms_the_correction_and_one_alone_no_differences():
    few = report(counts=(5,), runs=2)
    assert "(none) |" in few
    assert "| none | none | none |" in few
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
