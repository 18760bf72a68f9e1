"""Results as a card shows them."""

import math

from modelsgenesis.checkpoints.card_results import Measure, measures, model_index, text

from .test_card import CONFIG, with_provenance  # pyright: ignore[reportAttributeAccessIssue]


def test_a_number_with_what_it_rests_on_is_one_measure() -> None:
    results = {"dice": {"mean": 0.85, "n": 20, "seeds": [0, 1], "interval": [0.83, 0.87], "scratch": 0.8}}
    details = {"n": 20, "seeds": [0, 1], "interval": [0.83, 0.87], "scratch": 0.8}
    assert measures(results) == [Measure("dice", 0.85, details)]


def test_counts_of_a_group_belong_to_each_of_its_measures_and_steps_are_none() -> None:
    results = {"test": {"mean_dice": 0.85, "dice": {"Anterior": 0.86}, "patients": 26}, "step": 400}
    assert measures(results) == [
        Measure("test mean_dice", 0.85, {"patients": 26}),
        Measure("test dice Anterior", 0.86, {"patients": 26}),
    ]


def test_baselines_stand_beside_the_loss_and_not_alone() -> None:
    found = measures({"restoration_loss": 0.01, "identity_loss": 0.08, "mean_image_loss": 0.03})
    assert found == [Measure("restoration_loss", 0.01, {"identity_loss": 0.08, "mean_image_loss": 0.03})]
    assert measures({"identity_loss": 0.08}) == [Measure("identity_loss", 0.08)]


def test_what_is_no_number_is_no_measure() -> None:
    assert measures({"note": "good", "flag": True, "none": None, "per_case": [0.1, 0.2], "empty": {}}) == []


def test_the_index_has_only_finite_values_and_plain_types() -> None:
    config = with_provenance(data={"name": "Task04 Hippocampus"})
    found = [Measure("Dice (mean)", 0.5, {"ci": (0.4, math.inf)}), Measure("lost", math.nan)]
    (model,) = model_index(config, "x", found)
    (result,) = model["results"]
    assert result["dataset"] == {"type": "task04-hippocampus", "name": "Task04 Hippocampus"}
    assert result["metrics"] == [
        {"type": "dice_mean", "name": "Dice (mean)", "value": 0.5, "args": {"ci": [0.4, "inf"]}}
    ]
    assert model_index(CONFIG, "x", [Measure("lost", math.nan)]) == []


def test_text_is_one_line_that_stays_in_its_cell() -> None:
    assert text("a | b\n<!-- c") == "a \\| b &lt;!-- c"
    assert text([1, 2.5, None, True]) == "1, 2.5, —, yes"
    assert text(list(range(13))) == "13 values"
