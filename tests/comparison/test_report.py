import pytest

from comparison_results import make_records, make_results
from modelsgenesis.checkpoints.card import measures
from modelsgenesis.comparison.report import card_results, card_section, limits, metric_title, table

GAINS = {"scratch": 0.0, "genesis": 0.2}


def test_the_table_says_what_it_rests_on():
    text = table(make_results(make_records(GAINS)))
    assert text.startswith("# Hippocampus: Dice by starting point\n")
    assert "39 test patients" in text
    assert "labelled patients: the same in all runs of a label count" in text
    assert "| 5 | genesis − scratch | +0.0" in text
    assert "budget of every training: 400 steps of 4 samples" in text
    assert "drawn anew" in table(make_results(make_records(GAINS), resample=True))


@pytest.mark.parametrize("tuned", [False, True])
def test_unequal_budgets_are_not_called_equal(tuned):
    choice = {"arm": "genesis", "labels": 5, "chosen": ["steps=800"], "edge": [], "candidates": []}
    results = make_results(make_records(GAINS), tuning=[choice] if tuned else [])
    assert "Equal steps are an equal budget" in " ".join(limits(make_results(make_records(GAINS))))
    line = "unequal budgets: scratch 400 steps of 4 samples; genesis 400 steps of 4 samples; unless tuned otherwise\n"
    if not tuned:
        results["arms"]["genesis"]["steps"] = 800
        line = "unequal budgets: scratch 400 steps of 4 samples; genesis 800 steps of 4 samples\n"
    assert line in table(results)
    said = " ".join(limits(results))
    assert "Equal steps" not in said
    assert "The budgets are unequal: a difference may be that of the budget" in said


def test_two_runs_get_no_p_value_and_that_is_said():
    text = table(make_results(make_records(GAINS, counts=(5,), runs=2)))
    assert "| 5 | genesis − scratch | +" in text
    assert "(none) | — | none | none | none |" in text
    assert "5 labels, genesis: no p-value, since 2 runs cannot tell, 3 are the least." in text
    assert "2 runs cannot give a p-value" in text


def test_several_arms_show_the_correction():
    text = table(make_results(make_records({**GAINS, "other": 0.1})))
    assert "Holm's correction over the 2 comparisons of a label count" in text
    assert " / " in text.split("## Differences")[1].splitlines()[4]


def test_what_was_tuned_is_shown_with_its_edge():
    candidates = [
        {"settings": [f"learning_rate={rate}"], "scores": [score], "mean": score}
        for rate, score in (("1e-3", 0.5), ("1e-2", None))
    ]
    choice = {"arm": "genesis", "labels": 5, "chosen": ["learning_rate=1e-3"], "edge": ["learning_rate=1e-3"]}
    text = table(make_results(make_records(GAINS), tuning=[{**choice, "candidates": candidates}]))
    assert "| genesis | 5 | learning_rate=1e-3 | 0.5000 | chosen |" in text
    assert "| genesis | 5 | learning_rate=1e-2 | diverged |  |" in text
    assert "genesis with 5 labels chose learning_rate=1e-3" in text
    assert "the test patients were not read before the choice" in text


@pytest.mark.parametrize("resample", [True, False])
def test_the_limits_name_the_split_and_the_subset(resample):
    said = " ".join(limits(make_results(make_records(GAINS), resample=resample)))
    assert "39 test patients, the same in every run" in said
    assert "over seeds" in said
    assert ("conditional on this one choice" in said) is not resample
    assert "No settings were tuned" in said


def test_an_arm_alone_is_shown_without_differences():
    text = table(make_results(make_records({"scratch": 0.0})))
    assert "## Differences" not in text
    assert "## Label efficiency" not in text


def test_a_card_takes_the_means_with_what_they_rest_on():
    results = make_results(make_records(GAINS))
    found = {measure.name: measure for measure in measures(card_results(results))}
    ours = found["comparison dice with 5 labels genesis"]
    assert ours.value == pytest.approx(results["labels"]["5"]["arms"]["genesis"]["dice"]["mean"])
    assert ours.details["runs"] == 5
    section = card_section(results)
    assert section.startswith("## Compared on Hippocampus")
    assert "What this does not show" in section


def test_metrics_are_written_as_people_do():
    assert metric_title("average_precision") == "average precision"
