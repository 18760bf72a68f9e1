"""The generated model card."""

import dataclasses
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.checkpoints import render_card
from modelsgenesis.checkpoints.card import (
    Measure,
    meaning,
    measures,
    model_index,
    recipe_section,
    text,
    validation_sentence,
)
from modelsgenesis.configs import (
    CONTRACTS,
    RECIPES,
    BundleConfig,
    ClassifierConfig,
    Config,
    GenesisUNetConfig,
    InputContract,
    Provenance,
    SegmentationConfig,
    scheme,
)
from modelsgenesis.configs.front_matter import split_card

NETWORK = GenesisUNetConfig(widths=(4, 8))
LOSSES = {"restoration_loss": 0.0123456789, "identity_loss": 0.08, "mean_image_loss": 0.03}
CONFIG = BundleConfig(
    task="restoration",
    network=NETWORK,
    input=CONTRACTS["ct"],
    patch_size=(64, 64, 32),
    provenance=Provenance(
        origin="pretrained",
        library_version="0.1.0",
        recipe={"steps": 200, "pretext": {"shuffle_windows": 10_000}},
        data={"training_scans": 12, "median_spacing_mm": [0.7, 0.7, 1.25]},
        results={**LOSSES, "step": 200},
        environment={"device": "cpu", "wall_hours": 0.5, "cpu_hours": 31.2, "processor": "A | B"},
    ),
)


def with_provenance(config: BundleConfig = CONFIG, **changes: object) -> BundleConfig:
    return dataclasses.replace(config, provenance=config.provenance.override(**changes))


def test_a_card_says_what_the_configuration_says() -> None:
    card = render_card(CONFIG, name="clinic/genesis", figures={"Curve": "figures/curve.png"})
    for line in (
        "# clinic/genesis",
        'network = modelsgenesis.from_pretrained("clinic/genesis")',
        "| Parameters | 3,897 |",
        "| Intensity | clipped to (-1000.0, 1000.0) (HU for CT), scaled to [0, 1] |",
        "| Patch in training | 64 × 64 × 32 |",
        "| pretext.shuffle_windows | 10000 |",
        "| median spacing mm | 0.7, 0.7, 1.25 |",
        "| restoration_loss | 0.0123457 | mean_image_loss 0.03; identity_loss 0.08 |",
        "![Curve](figures/curve.png)",
        "| modelsgenesis | 0.1.0 |",
        "| cpu hours | 31.2 |",
        "| Spacing in mm (—: the scan's own) | — |",
        "- Trained on 3D CT alone; nothing else was tried.",
        "modelsgenesis pretrain SCANS --init clinic/genesis  # go on without labels: its restoring head is in it",
    ):
        assert line in card.splitlines(), line
    assert "batch = torch.rand(1, 1, 64, 64, 32)  # [batch, channel, x, y, z]; real scans are" in card
    for said in ("this is not a medical device", "US patent 11,922,628 B2", "@inproceedings{zhou2019models,"):
        assert said in card


def test_the_header_has_the_fields_of_the_hub_whose_client_reads_the_results() -> None:
    from huggingface_hub import ModelCard

    card = render_card(CONFIG, name="clinic/genesis")
    front = split_card(card).front
    assert (front["library_name"], front["pipeline_tag"]) == ("modelsgenesis", "image-feature-extraction")
    assert {"ct", "3d", "models-genesis"} <= set(front["tags"])
    read = ModelCard(card).data.eval_results
    assert read is not None
    assert (read[0].metric_type, read[0].metric_value) == ("restoration_loss", 0.0123456789)
    assert read[0].metric_args == {"identity_loss": 0.08, "mean_image_loss": 0.03}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"origin": "pretrained"}, "Pretrained with this package."),
        ({"origin": "pretrained", "init": "a-model"}, "Pretrained with this package, going on from a-model."),
        ({"origin": "finetuned", "init": "a-model"}, "Fine-tuned from a-model."),
        ({"origin": "finetuned"}, "Fine-tuned from random weights."),
        ({"origin": "converted", "source": {"file": "x.pt"}}, "| Source: file | x.pt |"),
        ({"origin": "converted", "source": {"repository": "a/b"}}, "base_model: a/b"),
        ({"origin": "untrained"}, "**Its weights are random: it was not trained.**"),
        ({"recipe": {}}, "No recipe was recorded."),
        ({"results": {}}, "No result was recorded."),
        ({"data": {}}, "Nothing was recorded about the training data"),
        ({"results": {"collapsed": True}}, "**This network has collapsed"),
    ],
)
def test_the_card_says_where_the_weights_come_from_and_what_was_not_recorded(
    changes: dict[str, object], sentence: str
) -> None:
    assert sentence in render_card(with_provenance(**changes), name="x")


STANDARDIZED = InputContract(modality="ct", intensity="standardize", mean=-7.5, deviation=2, spacing=(1, 1, 2.5))
FLAT = {"network": GenesisUNetConfig(dims=2, widths=(4, 8)), "input": CONTRACTS["xray"], "patch_size": (64, 64)}
SEGMENTS = {
    "task": "segmentation",
    "network": NETWORK.override(out_channels=2),
    "labels": ("background", "liver"),
}
CLASSIFIES = {
    "task": "classification",
    "network": ClassifierConfig(encoder=NETWORK, num_classes=2, hidden=8),
    "labels": ("a", "b"),
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (FLAT, "[batch, channel, x, y]"),
        (SEGMENTS, "A network for segmentation of background, liver in 3D CT"),
        (SEGMENTS, "modelsgenesis predict x scan.nii.gz"),
        (CLASSIFIES, "pipeline_tag: image-classification"),
        ({"input": InputContract(modality="mri", intensity="zscore")}, "own mean subtracted"),
        ({"input": STANDARDIZED}, "(value − -7.5) / 2.0"),
    ],
)
def test_every_task_contract_and_dimension_is_rendered(changes: dict[str, object], said: str) -> None:
    assert said in render_card(dataclasses.replace(CONFIG, **changes), name="x")


def test_prose_and_fields_of_a_person_stay_and_old_results_go() -> None:
    card = render_card(CONFIG, name="x").replace("FILL IN the data set or hospital", "LUNA16")
    card = card.replace("library_name:", "license: mit\ndatasets: [org/data]\nlibrary_name:")
    renewed = render_card(with_provenance(results={}), name="y", existing=card)
    assert render_card(with_provenance(results={}), name="y", existing=renewed) == renewed
    front = split_card(renewed).front
    assert (front["license"], front["datasets"]) == ("mit", ["org/data"])
    assert "model-index" not in front
    assert "- Source: LUNA16" in renewed
    assert "# x" not in renewed.splitlines()


def test_a_card_without_our_section_gets_it_above_its_prose() -> None:
    card = render_card(CONFIG, name="x", existing="# My words\n\nfoo\n")
    assert card.endswith("\n# My words\n\nfoo\n")
    assert "FILL IN" not in card


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["steps", "batch_size", "patch_size", "optimizer", "seed", "pretext", "step", *LOSSES, "n"])
FREE = st.dictionaries(KEYS | st.text(max_size=8), JSON, max_size=4)


@given(st.fixed_dictionaries(dict.fromkeys(("recipe", "data", "results", "environment", "source"), FREE)), st.text())
def test_no_value_of_a_record_breaks_out_of_its_place_or_the_rendering(record: dict[str, object], init: str) -> None:
    config = with_provenance(**record, init=init)
    card = render_card(config, name="x")
    parts = split_card(card)
    assert parts.front["library_name"] == "modelsgenesis"
    assert card.count("modelsgenesis:end -->") == 1
    assert parts.after == split_card(render_card(CONFIG, name="x")).after
    yaml.safe_load(yaml.safe_dump(parts.front))


# --- results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"dice": {"mean": 0.85, "n": 20, "interval": [0.83, 0.87], "scratch": 0.8}},
            [Measure("dice", 0.85, {"n": 20, "interval": [0.83, 0.87], "scratch": 0.8})],
        ),
        (
            {"test": {"mean_dice": 0.85, "dice": {"Anterior": 0.86}, "patients": 26}, "step": 400},
            [Measure("test mean_dice", 0.85, {"patients": 26}), Measure("test dice Anterior", 0.86, {"patients": 26})],
        ),
        (
            {"restoration_loss": 0.01, "identity_loss": 0.08},
            [Measure("restoration_loss", 0.01, {"identity_loss": 0.08})],
        ),
        ({"identity_loss": 0.08}, [Measure("identity_loss", 0.08)]),
        ({"note": "good", "flag": True, "none": None, "per_case": [0.1, 0.2], "empty": {}}, []),
    ],
)
def test_measures_with_what_they_rest_on(results: dict[str, object], expected: list[Measure]) -> None:
    assert measures(results) == expected


def test_the_index_has_only_finite_values_and_plain_types() -> None:
    config = with_provenance(data={"name": "Task04 Hippocampus"})
    found = [Measure("Dice (mean)", 0.5, {"ci": (0.4, math.inf)}), Measure("lost", math.nan)]
    (model,) = model_index(config, "x", found)
    (result,) = model["results"]
    assert result["dataset"] == {"type": "task04-hippocampus", "name": "Task04 Hippocampus"}
    assert result["metrics"] == [
        {"type": "dice_mean", "name": "Dice (mean)", "value": 0.5, "args": {"ci": [0.4, None]}}
    ]
    assert model_index(CONFIG, "x", [Measure("lost", math.nan)]) == []


def test_text_is_one_line_that_stays_in_its_cell() -> None:
    assert text("a | b\n<!-- c") == "a \\| b &lt;!-- c"
    assert text([1, 2.5, None, True]) == "1, 2.5, —, yes"
    assert text(list(range(13))) == "13 values"


# --- training -----------------------------------------------------------------------------------------------

OLDER = {name: value for name, value in scheme("I").to_dict().items() if name != "others"}  # from before that field


@pytest.mark.parametrize(
    ("recipe", "results", "said"),
    [
        (
            RECIPES["small"].override(steps=300, pretext=scheme("III+IV")),
            {"step": 200},
            "At most 300 steps; the network of step 200 was kept.\n\nScheme III+IV: out-painting, in-painting.\n",
        ),
        ({"pretext": {**OLDER}}, {}, "Scheme I: non-linear intensity.\n"),
        ({"pretext": {**OLDER, "flip_limit": 2}}, {}, "<details>"),
        (SegmentationConfig(steps=7), {}, "At most 7 steps."),
        ({"steps": 3, "of another version": 1}, {}, "At most 3 steps."),
        ({"of another version": 1}, {}, "<details>"),
    ],
)
def test_a_recipe_is_a_sentence_before_every_setting(
    recipe: Config | dict[str, object], results: dict[str, object], said: str
) -> None:
    values = recipe.to_dict() if isinstance(recipe, Config) else recipe
    section = recipe_section(values, results)
    assert section.startswith(said)
    assert section.count("\n| ") >= len(values)


def test_a_loss_is_told_beside_its_baselines() -> None:
    results = {"restoration_loss": 0.03, "mean_image_loss": 0.06, "identity_loss": 0.3, "collapsed": False}
    assert meaning(results) == (
        "On the validation patches the loss is 0.50 times that of always predicting the mean image and 0.10 times "
        "that of returning the input as it is."
    )
    assert meaning({"dice": 0.9}) == ""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "says nothing about a validation"),
        ({"validation_patients": 1, "held_out": True}, "Validated on 1 patient from the same source"),
        ({"validation_scans": 4}, "Validated on 4 scans from"),
        ({"validation_patients": 3, "held_out": False}, "Nobody was held out"),
    ],
)
def test_the_limits_of_a_validation_are_what_the_record_says(data: dict[str, object], said: str) -> None:
    assert said in validation_sentence(data)
    assert said in render_card(with_provenance(data=data), name="x")
