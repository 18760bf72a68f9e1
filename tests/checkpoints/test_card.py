"""The generated model card."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.checkpoints import render_card
from modelsgenesis.configs import (
    CONTRACTS,
    BundleConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    InputContract,
    Provenance,
)
from modelsgenesis.configs.front_matter import split_card

NETWORK = GenesisUNetConfig(widths=(4, 8))
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
        results={
            "restoration_loss": 0.0123456789,
            "identity_loss": 0.08,
            "mean_image_loss": 0.03,
            "step": 200,
        },
        environment={"device": "cpu"},
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
        "| Sub-volume in training | 64 × 64 × 32 |",
        "| pretext.shuffle_windows | 10000 |",
        "| median spacing mm | 0.7, 0.7, 1.25 |",
        "| restoration_loss | 0.0123457 | identity_loss 0.08; mean_image_loss 0.03 |",
        "![Curve](figures/curve.png)",
        "| modelsgenesis | 0.1.0 |",
    ):
        assert line in card.splitlines(), line
    assert "batch = torch.rand(1, 1, 64, 64, 32)  # [batch, channel, x, y, z]; real scans are" in card
    assert "this is not a medical device" in card
    assert "US patent 11,922,628 B2" in card
    assert "@inproceedings{zhou2019models," in card


def test_the_header_has_the_fields_of_the_hub() -> None:
    front = split_card(render_card(CONFIG, name="clinic/genesis")).front
    assert front["library_name"] == "modelsgenesis"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert {"ct", "3d", "models-genesis"} <= set(front["tags"])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [
        {
            "type": "restoration_loss",
            "name": "restoration_loss",
            "value": 0.0123456789,
            "args": {"identity_loss": 0.08, "mean_image_loss": 0.03},
        }
    ]


def test_the_client_of_the_hub_reads_the_results() -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(render_card(CONFIG, name="clinic/genesis"))
    assert card.data.eval_results is not None
    assert card.data.eval_results[0].metric_value == 0.0123456789


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"origin": "pretrained"}, "Pretrained with this package."),
        ({"origin": "finetuned", "init": "genesis-chest-ct-3d"}, "Fine-tuned from genesis-chest-ct-3d."),
        ({"origin": "finetuned"}, "Fine-tuned from random weights."),
        (
            {"origin": "converted"},
            "Converted from the published weights named below; the values are unchanged.",
        ),
        ({"origin": "untrained"}, "**Its weights are random: it was not trained.**"),
    ],
)
def test_the_summary_says_where_the_weights_come_from(changes: dict[str, object], sentence: str) -> None:
    assert sentence in render_card(with_provenance(**changes), name="x")


def test_a_converted_model_names_its_source_and_base() -> None:
    source = {"repository": "MrGiovanni/ModelsGenesis", "file": "Genesis_Chest_CT.pt", "sha256": "ab"}
    card = render_card(with_provenance(origin="converted", source=source), name="x")
    assert split_card(card).front["base_model"] == "MrGiovanni/ModelsGenesis"
    assert "| Source: file | Genesis_Chest_CT.pt |" in card


def test_every_task_contract_and_dimension_is_rendered() -> None:
    two = dataclasses.replace(
        CONFIG, network=GenesisUNetConfig(dims=2, widths=(4, 8)), input=CONTRACTS["xray"], patch_size=(64, 64)
    )
    assert "[batch, channel, x, y]" in render_card(two, name="x")
    segmentation = dataclasses.replace(CONFIG, task="segmentation", labels=("background", "liver"))
    card = render_card(segmentation, name="x")
    assert "A network for segmentation of background, liver in 3D CT" in card
    assert split_card(card).front["pipeline_tag"] == "image-segmentation"
    classifier = dataclasses.replace(
        CONFIG, task="classification", network=ClassifierConfig(encoder=NETWORK, num_classes=2, hidden=8)
    )
    assert split_card(render_card(classifier, name="x")).front["pipeline_tag"] == "image-classification"
    for contract in (
        InputContract(modality="mri", intensity="zscore"),
        InputContract(
            modality="ct",
            intensity="standardize",
            mean=-775.8457,
            deviation=251.9326,
            spacing=(1.0, 1.0, 1.0),
        ),
    ):
        card = render_card(dataclasses.replace(CONFIG, input=contract), name="x")
        assert ("own mean subtracted" in card) == (contract.intensity == "zscore")
        assert ("(value − -775.8457) / 251.9326" in card) == (contract.intensity == "standardize")


def test_absent_provenance_is_said() -> None:
    card = render_card(with_provenance(recipe={}, data={}, results={}, environment={}), name="x")
    assert "No recipe was recorded." in card
    assert "No result was recorded." in card
    assert "Nothing was recorded about the training data" in card
    assert "model-index" not in split_card(card).front


def test_rendering_again_changes_nothing() -> None:
    card = render_card(CONFIG, name="x")
    assert render_card(CONFIG, name="x", existing=card) == card


def test_prose_and_fields_of_a_person_stay_and_old_results_go() -> None:
    card = render_card(CONFIG, name="x").replace("FILL IN the data set or hospital", "LUNA16")
    card = card.replace("library_name:", "license: mit\ndatasets: [org/data]\nlibrary_name:")
    renewed = render_card(with_provenance(results={}), name="y", existing=card)
    front = split_card(renewed).front
    assert front["license"] == "mit"
    assert front["datasets"] == ["org/data"]
    assert "model-index" not in front
    assert "- Source: LUNA16" in renewed
    assert "# x" not in renewed.splitlines()


def test_a_card_without_our_section_gets_it_above_its_prose() -> None:
    card = render_card(CONFIG, name="x", existing="# My words\n\nfoo\n")
    assert card.endswith("\n# My words\n\nfoo\n")
    assert "FILL IN" not in card


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_value_breaks_out_of_its_place(key: str, value: str) -> None:
    card = render_card(with_provenance(recipe={key: value}, init=value), name="x")
    parts = split_card(card)
    assert parts.front["library_name"] == "modelsgenesis"
    assert card.count("modelsgenesis:end -->") == 1
    assert parts.after == split_card(render_card(CONFIG, name="x")).after
    yaml.safe_load(yaml.safe_dump(parts.front))
