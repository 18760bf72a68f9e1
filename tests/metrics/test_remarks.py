"""Remarks on what went wrong, in plain sentences."""

import math

import pytest

from modelsgenesis.metrics.remarks import remarks_on_cases, remarks_on_restoration

LABELS = ("background", "liver", "spleen")


def case(number, liver, spleen, elsewhere=()):
    found = {"liver": liver, "spleen": spleen}
    dices = {f"dice {name}": value for name, value in found.items()}
    away = {f"hausdorff95 {name}": 9.0 if value or name in elsewhere else math.nan for name, value in found.items()}
    return {"case": f"c{number}", "patient": f"p{number}", **dices, **away}


def many(*values, **options):
    return [case(number, *values, **options) for number in range(10)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        (many(0.9, 0.1), []),
        (many(0.9, 0.0), ["spleen was never found: its Dice is 0 in all 10 cases that have it"]),
        (
            [*many(0.9, math.nan), case(10, 0.9, 0.0)],
            ["spleen was never found: its Dice is 0 in the only case that has it"],
        ),
        (many(0.9, math.nan), []),  # nothing was to be found
        (many(0.0, 0.0), ["no structure was found in any test case: every Dice is 0"]),
        (
            many(0.0, math.nan, elsewhere=["liver"]),
            ["liver was never found: its Dice is 0 in all 10 cases that have it"],
        ),
        (many(0.9, 0.9)[:3], ["only 3 test patients: the figures say little about others"]),
    ],
)
def test_of_a_segmentation_what_was_never_found_is_remarked(rows, expected):
    assert remarks_on_cases(rows, LABELS) == expected


def test_of_a_classification_a_class_that_was_never_predicted_is_remarked():
    rows = [{"patient": f"p{number}", "class": name, "predicted": "a"} for number in range(9) for name in ("a", "b; c")]
    few = "only 9 test patients: the figures say little about others"
    missed = [f"{name} was never predicted: 9 cases of it" for name in ("b", "c")]
    assert remarks_on_cases(rows, ("a", "b", "c", "d")) == [*missed, few]


def test_a_network_that_restores_no_better_than_the_mean_image_is_remarked():
    losses = {"restoration_loss": 0.072, "mean_image_loss": 0.05, "identity_loss": 0.1}
    worse, collapsed = remarks_on_restoration(losses | {"collapsed": 1.0})
    assert worse.startswith("on validation patches the loss is 1.44 times that of always predicting the mean image")
    assert "its output hardly depends on its input" in collapsed
    assert remarks_on_restoration(losses | {"restoration_loss": 0.04}) == []
