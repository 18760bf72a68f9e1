import pytest

from modelsgenesis.figures import comparison_report
from modelsgenesis.figures.report import metric_title
from simulated_comparison import draw_records, results_of

GAINS = {"scratch": 0.0, "genesis": 0.2}


def report(gains=GAINS, counts=(5, 10, 20), runs=5, **options):
    return comparison_report(results_of(draw_records(gains, counts, runs), **options))


@pytest.mark.parametrize("resample", [True, False])
def test_says_what_it_rests_on_and_what_it_does_not_show(resample):
    text = report(resample=resample)
    assert text.startswith("# Hippocampus: Dice by initialisation\n")
    assert "140 training, 16 validation and 39 test patients" in text
    assert "| 5 | genesis − scratch | +0.0" in text
    assert "genesis with 20 labels equals scratch with more than 20 (95% over the runs" in text
    assert ("drawn anew" in text, "the same in all runs of a label count" in text) == (resample, not resample)
    assert "400 steps of 4 samples" in text
    assert "## What this does not show" in text


def test_two_runs_get_no_p_value():
    text = report(counts=(5,), runs=2)
    assert "(none) |" in text
    assert "| none | none | none |" in text
    assert "Label efficiency" not in text


def test_several_arms_show_the_correction_and_one_alone_no_differences():
    text = report({**GAINS, "other": 0.1})
    assert "Holm's correction over the 2 comparisons" in text
    assert " / " in text.split("## Differences")[1].splitlines()[4]
    assert "## Differences" not in report({"scratch": 0.0})


def test_what_was_tuned_is_shown():
    candidates = [
        {"settings": [f"learning_rate={rate}"], "mean": mean} for rate, mean in (("1e-3", 0.5), ("1e-2", None))
    ]
    choice = {"arm": "genesis", "labels": 5, "chosen": ["learning_rate=1e-3"]}
    text = report(tuning=[{**choice, "candidates": candidates}])
    assert "| genesis | 5 | learning_rate=1e-3 | 0.5000 | chosen |" in text
    assert "| genesis | 5 | learning_rate=1e-2 | diverged |  |" in text
    assert "the test patients were not read before the choice" in text


def test_a_name_does_not_break_a_table():
    assert "| labels | scratch | a\\|b |" in report({"scratch": 0.0, "a|b": 0.1})
    assert metric_title("average_precision") == "average precision"
