"""How a card tells a training."""

import dataclasses

import pytest

from modelsgenesis.checkpoints import render_card
from modelsgenesis.checkpoints.card_training import limits, meaning, recipe_section
from modelsgenesis.configs import RECIPES, SegmentationConfig, scheme

from .test_card import CONFIG, with_provenance  # pyright: ignore[reportAttributeAccessIssue]


def test_the_differences_from_the_named_recipe_come_before_every_setting():
    config = RECIPES["small"].override(steps=300, pretext=scheme("III+IV"))
    lines = recipe_section(config.to_dict(), {"step": 200}).splitlines()
    assert lines[0] == "The nearest named recipe is `small`; the differences are:"
    assert "- steps 300 instead of 1000" in lines
    assert "- pretext.shuffle_probability 0 instead of 0.5" in lines
    assert "Scheme III+IV: out-painting and in-painting." in lines
    assert "| Budget | at most 300 steps, the network of step 200 was kept |" in lines
    assert "| Batch | 4 sub-volumes of 64×64×32 voxels |" in lines
    assert "| Optimiser | adamw, learning rate 0.001, 50 steps of warm-up, then cosine |" in lines
    assert lines.index("- steps 300 instead of 1000") < lines.index("| pretext.shuffle_windows | 10000 |")


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_has_no_differences(name):
    said = recipe_section(RECIPES[name].to_dict(), {})
    assert f"The nearest named recipe is `{name}`; nothing differs." in said
    assert "Scheme V: all four deformations." in said


def test_other_configurations_are_a_table():
    said = recipe_section(SegmentationConfig(steps=7).to_dict(), {})
    assert "recipe" not in said
    assert "| Budget | at most 7 steps |" in said
    assert "nearest" not in recipe_section({"steps": 3, "pretext": {}, "of another version": 1}, {})


def test_a_loss_is_told_beside_maps_that_learn_nothing_and_a_collapse_in_bold():
    results = {"restoration_loss": 0.03, "mean_image_loss": 0.06, "identity_loss": 0.3, "collapsed": False}
    assert meaning(results) == (
        "Restoring fixed sub-volumes of validation costs 0.50 of what always answering the mean image costs and "
        "0.10 of what returning the input as it is costs."
    )
    assert "**This network has collapsed" in meaning(results | {"collapsed": True})
    assert "**This network has collapsed" in render_card(
        with_provenance(results=results | {"collapsed": True}), name="x"
    )
    assert meaning({"dice": 0.9}) == ""


def test_limits_are_what_the_record_says():
    assert "The record says nothing about limits" in limits(with_provenance(data={}))
    said = limits(with_provenance(data={"validation_patients": 1, "held_out": True}))
    assert "- Trained on CT alone, 3D, at the scans' own voxel sizes; nothing else was tried." in said
    assert "Validated on 1 patient from the same source" in said
    assert "Validated on 4 scans from" in limits(with_provenance(data={"validation_scans": 4}))
    assert "Nobody was held out" in limits(with_provenance(data={"validation_patients": 3, "held_out": False}))
    spaced = dataclasses.replace(CONFIG, input=CONFIG.input.override(spacing=(1.0, 1.0, 2.5)))
    assert "at 1, 1, 2.5 mm" in limits(spaced)


def test_the_cost_is_in_units_that_people_read():
    cost = {"wall_hours": 0.5, "cpu_hours": 31.2, "energy": "not measured", "processor": "A | B"}
    card = render_card(with_provenance(environment=cost), name="x")
    for line in ("| time | 30.0 minutes |", "| CPU time, all cores | 31.2 hours |", "| energy | not measured |"):
        assert line in card.splitlines()


def test_the_card_says_how_to_go_on():
    card = render_card(with_provenance(init="genesis-chest-ct-3d"), name="clinic/genesis")
    assert "modelsgenesis pretrain SCANS --init clinic/genesis  # go on without labels" in card
    assert "Pretrained with this package, going on from genesis-chest-ct-3d." in card
