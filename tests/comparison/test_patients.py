import numpy as np
import pytest

from modelsgenesis.comparison.patients import patient_interval
from modelsgenesis.metrics.classification import auc


def segmented(shift, seed=0, cases=30):
    random = np.random.default_rng(seed)
    patients = np.random.default_rng(99).uniform(0.5, 0.9, cases)  # hard and easy ones are so for everyone
    rows = []
    for index, ease in enumerate(patients):
        value = ease + shift + random.normal(0, 0.01)
        rows.append({"case": f"c{index}", "patient": f"p{index}", "dice a": value, "dice b": value, "iou a": value / 2})
    return {"cases": rows}


def classified(skill, seed=0, cases=60):
    random = np.random.default_rng(seed)
    rows = []
    for index in range(cases):
        score = 1 / (1 + np.exp(-random.normal(skill * (index % 2), 1)))
        name = ("healthy", "ill")[index % 2]
        scores = {"probability healthy": 1 - score, "probability ill": score}
        rows.append({"case": f"c{index}", "patient": f"p{index // 2}", "class": name, "predicted": name, **scores})
    return {"cases": rows}


def test_what_is_hard_for_both_does_not_blur_the_difference():
    runs = [[segmented(shift, seed) for seed in range(4)] for shift in (0.05, 0.0)]
    found = patient_interval(*runs, "dice")
    assert 0.045 < found["low"] < 0.05 < found["high"] < 0.055


def test_an_interval_of_the_auc_holds_the_difference():
    ours, theirs = ([classified(skill, seed) for seed in range(3)] for skill in (1.5, 0.5))
    found = patient_interval(ours, theirs, "auc")

    def mean(runs):
        truth = np.arange(60) % 2 == 1
        return np.mean([auc(np.array([row["probability ill"] for row in run["cases"]]), truth) for run in runs])

    assert found["low"] < mean(ours) - mean(theirs) < found["high"]
    assert patient_interval(ours, theirs, "auc ill") == pytest.approx(found)


def test_an_undefined_case_is_left_out():
    ours, theirs = segmented(0.05), segmented(0.0)
    ours["cases"][3]["dice a"] = None
    assert patient_interval([ours], [theirs], "dice a")["low"] > 0


def test_says_nothing_where_the_cases_do_not_tell():
    assert patient_interval([segmented(0.1)], [segmented(0.0)], "hausdorff95") is None
    assert patient_interval([classified(1.0)], [classified(0.0)], "accuracy") is None
    assert patient_interval([{"cases": []}], [{"cases": []}], "dice") is None
    assert patient_interval([segmented(0.1, cases=1)], [segmented(0.0, cases=1)], "dice") is None
    several = {"cases": [{**row, "class": "ill; healthy"} for row in classified(1.0)["cases"]]}
    assert patient_interval([several], [several], "auc") is None
