"""The model card: taken apart, and rendered."""

import math

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.checkpoints.card import BEGIN, END, CardParts, measures, render_card, split_card, text
from modelsgenesis.configs import CONTRACTS, ClassifierConfig, GenesisUNetConfig, InputContract, Provenance
from tiny_bundles import make_bundle

NETWORK = GenesisUNetConfig(widths=(4, 8))
LOSSES = {"restoration_loss": 0.0123456789, "identity_loss": 0.08, "mean_image_loss": 0.03}
PROVENANCE = Provenance(
    origin="pretrained",
    library_version="0.1.0",
    recipe={"steps": 200, "pretext": {"shuffle_windows": 10_000}},
    data={"training_scans": 12, "median_spacing_mm": [0.7, 0.7, 1.25]},
    results={**LOSSES, "step": 200},
    environment={"device": "cpu", "cpu_hours": 31.2, "processor": "A | B"},
)
CONFIG = make_bundle(NETWORK, patch_size=(64, 64, 32), provenance=PROVENANCE).config


def rendered(existing: str = "", **provenance: object) -> str:
    config = CONFIG.override(provenance=PROVENANCE.override(**provenance))
    return render_card(config, name="x", existing=existing)


# --- taken apart --------------------------------------------------------------------------------------------

PROSE = st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff", exclude_categories=("Cs",)), max_size=60)
FRONT = st.dictionaries(
    st.sampled_from(["license", "datasets", "a"]), st.text("abc:#'\n-é", max_size=8) | st.integers(), max_size=3
)


@given(FRONT, PROSE, PROSE)
def test_what_a_person_wrote_is_kept_to_the_letter(front: dict[str, object], before: str, after: str) -> None:
    before = f"{before}\n".lstrip("\n-")
    after = f"words {after}"
    parts = split_card(render_card(CONFIG, name="x", existing=CardParts(front, before, f"{BEGIN}\n{END}\n", after)))
    assert (parts.before, parts.after) == (before, after)
    assert {key: parts.front[key] for key in front} == front


@pytest.mark.parametrize(
    ("card", "parts"),
    [
        ("", CardParts()),
        ("\ufeff---\r\na: 1\r\n---\r\ntext\r\n", CardParts({"a": 1}, after="text\n")),  # as Windows writes it
        (f"a\n{BEGIN} -->\nb\n{END}", CardParts({}, "a\n", f"{BEGIN} -->\nb\n{END}")),
        (f"{BEGIN}\n{END}\n{END}\nc", CardParts({}, "", f"{BEGIN}\n{END}\n", f"{END}\nc")),
        (f"{END}\n{BEGIN}\n", CardParts(after=f"{END}\n{BEGIN}\n")),
    ],
)
def test_what_is_header_what_is_ours_and_what_is_prose(card: str, parts: CardParts) -> None:
    assert split_card(card) == parts


# --- rendered -----------------------------------------------------------------------------------------------


def test_a_card_says_what_the_configuration_says() -> None:
    card = render_card(CONFIG, name="clinic/genesis", figures={"Curve": "figures/curve.png"})
    for line in (
        "# clinic/genesis",
        'model = modelsgenesis.from_pretrained("clinic/genesis")',
        "| Parameters | 3,897 |",
        "| Intensity | clipped to [-1000, 1000] (HU for CT), scaled to [0, 1] |",
        "| pretext.shuffle_windows | 10000 |",
        "| median_spacing_mm | 0.7, 0.7, 1.25 |",
        "| restoration_loss | 0.0123457 | mean_image_loss 0.03; identity_loss 0.08 |",
        "![Curve](figures/curve.png)",
        "modelsgenesis pretrain SCANS --init clinic/genesis  # go on without labels: its restoring head is in it",
    ):
        assert line in card.splitlines(), line
    assert 'scan = "scan.nii.gz"\nbatch = model.preprocess(scan)  # [batch, channel, x, y, z], prepared' in card
    for said in ("this is not a medical device", "US patent 11,922,628 B2", "@inproceedings{zhou2019models,"):
        assert said in card


def test_the_index_of_results_has_finite_values_and_plain_types() -> None:
    results = {"Dice (mean)": {"value": 0.5, "ci": (0.4, math.inf)}, "lost": math.nan}
    front = split_card(rendered(data={"name": "Task04 Hippocampus"}, results=results)).front
    ((result,),) = (model["results"] for model in front["model-index"])
    assert result["dataset"] == {"type": "task04-hippocampus", "name": "Task04 Hippocampus"}
    assert result["metrics"] == [
        {"type": "dice_mean", "name": "Dice (mean)", "value": 0.5, "args": {"ci": [0.4, None]}}
    ]
    assert "model-index" not in split_card(rendered(results={"lost": math.nan})).front


FIGURES = {"dice": {"value": 0.85, "low": 0.8, "high": 0.9}, "hausdorff95 a b": {"value": 2.0, "unit": "mm"}}
MEASURED = {
    "test": {**FIGURES, "iou": {"value": 0.74}, "dice <b>": 0.5, "patients": 39, "cases": 40},
    "validation": {"dice": 0.8, "patients": 16, "cases": 16},
}


def test_results_are_a_table_and_the_hub_reads_their_index() -> None:
    card = rendered(origin="finetuned", source={"repository": "a/b"}, results=MEASURED, data={"name": "Livers"})
    words = [" ".join(line.split()) for line in card.splitlines()]
    for line in (
        "| structure | Dice | IoU | HD95 (mm) |",
        "| a b | | | 2.00 |",
        "39 test patients, 40 images; 95% bootstrap intervals over patients",
        "On the validation patients:",
        "16 validation patients",
        "| test dice &lt;b> | 0.5 | patients 39; cases 40 |",
    ):
        assert line in words, line
    data = ModelCard(card).data.to_dict()  # as the Hub reads it
    assert (data["base_model"], data["base_model_relation"]) == ("a/b", "finetune")
    name, results = model_index_to_eval_results(data["model-index"])
    found = {(one.metric_type, one.metric_name, one.dataset_split): one.metric_value for one in results}
    assert found["dice", "Dice", "test"] == 0.85
    assert found["mean_iou", "IoU", "test"] == 0.74
    assert found["hausdorff95", "HD95 of a b", "test"] == 2
    assert found["dice", "Dice", "validation"] == 0.8
    assert eval_results_to_model_index(name, results) == split_card(card).front["model-index"]


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"origin": "pretrained"}, "Pretrained with this package."),
        ({"origin": "finetuned", "init": "a-model"}, "| Started from (—: random weights) | a-model |"),
        ({"origin": "converted", "source": {"repository": "a/b"}}, "base_model: a/b"),
        ({"origin": "untrained"}, "**Its weights are random: it was not trained.**"),
        ({"recipe": {}}, "No recipe was recorded."),
        ({"recipe": {"steps": 3}, "results": {"step": 2}}, "At most 3 steps. The network of step 2 was kept.\n"),
        ({"results": {"collapsed": True}}, "**This network has collapsed"),
        ({"data": {}}, "The record says nothing about the training data"),
        ({"data": {"validation_patients": 1, "held_out": True}}, "Validated on scans from the same source"),
        ({"data": {"validation_patients": 3, "held_out": False}}, "Nobody was held out"),
    ],
)
def test_the_card_says_what_the_record_says_and_what_was_not_recorded(provenance: dict[str, object], said: str) -> None:
    assert said in rendered(**provenance)


STANDARDIZED = InputContract(modality="ct", intensity="standardize", mean=-7.5, deviation=2, spacing=(1, 1, 2.5))
FLAT = {"network": GenesisUNetConfig(dims=2, widths=(4, 8)), "input": CONTRACTS["xray"], "patch_size": (64, 64)}
SEGMENTS = {"task": "segmentation", "network": NETWORK.override(out_channels=2), "labels": ("background", "liver")}
CLASSIFIER = ClassifierConfig(encoder=NETWORK, num_classes=2, hidden=8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (FLAT, "[batch, channel, x, y]"),
        (SEGMENTS, "A network for segmentation of background, liver in 3D CT"),
        ({"task": "classification", "network": CLASSIFIER, "labels": ("a", "b")}, "pipeline_tag: image-classification"),
        ({"input": STANDARDIZED}, "(value − -7.5) / 2"),
    ],
)
def test_every_task_contract_and_dimension_is_rendered(changes: dict[str, object], said: str) -> None:
    assert said in render_card(CONFIG.override(**changes), name="x")


def test_what_is_not_measured_any_more_goes_and_nothing_else_changes() -> None:
    renewed = rendered(results={}, existing=rendered())
    assert renewed == rendered(results={}, existing=renewed)
    assert "model-index" not in split_card(renewed).front


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
    card = rendered(**record, init=init)
    parts = split_card(card)
    assert parts.front["library_name"] == "modelsgenesis"
    assert card.count("modelsgenesis:end -->") == 1
    assert parts.after == split_card(render_card(CONFIG, name="x")).after
    yaml.safe_load(yaml.safe_dump(parts.front))


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"dice": {"mean": 0.85, "n": 20, "interval": [0.83, 0.87], "scratch": 0.8}},
            [("dice", 0.85, {"n": 20, "interval": [0.83, 0.87], "scratch": 0.8})],
        ),
        (
            {"test": {"mean_dice": 0.85, "dice": {"Anterior": 0.86}, "patients": 26}, "step": 400},
            [("test mean_dice", 0.85, {"patients": 26}), ("test dice Anterior", 0.86, {"patients": 26})],
        ),
        ({"restoration_loss": 0.01, "identity_loss": 0.08}, [("restoration_loss", 0.01, {"identity_loss": 0.08})]),
        ({"note": "good", "flag": True, "none": None, "per_case": [0.1, 0.2], "empty": {}}, []),
    ],
)
def test_measures_with_what_they_rest_on(results: dict[str, object], expected: list[object]) -> None:
    assert [(one["name"], one["value"], one.get("args")) for one in measures(results)] == expected


def test_text_is_one_line_that_stays_in_its_cell() -> None:
    assert text("a | b\n<!-- c") == "a \\| b &lt;!-- c"
    assert text([1, 2.5, None, True]) == "1, 2.5, —, yes"
    assert text(list(range(13))) == "13 values"
