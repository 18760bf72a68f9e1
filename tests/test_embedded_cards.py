"""The Geneses that the package ships, each one and whichever there are: weights, digest, card, licence."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import modelsgenesis
from modelsgenesis.checkpoints import read_config
from modelsgenesis.configs import PretrainingConfig, pretraining_recipe
from modelsgenesis.configs.front_matter import PLACEHOLDER
from modelsgenesis.hub import ModelCard, list_cards, review_card, verify

ROOT = Path(__file__).parents[1]
NOT_OURS = ("results: ", "text: no figure")  # restorations would show scans; the comparison is in the text

SAID = {
    "genesis-hippocampus-mri-3d-small": ("CC BY-SA 4.0", "share-alike", "arXiv:1902.09063", "modelsgenesis compare "),
    "genesis-chest-xray-2d-small": ("NIH Clinical Center", "Wang, Xiaosong", "modelsgenesis compare "),
}


def shipped() -> list[Any]:
    cards = [card for card in list_cards() if card.is_local]
    return [pytest.param(card, id=card.name) for card in cards]


def said(text: str, name: str) -> None:
    flat = " ".join(text.split())
    always = ("not a medical device", "Intended use", "Consent or ethics approval", "Compared with scratch")
    for words in (*always, *SAID[name]):
        assert words in flat, words


@pytest.mark.parametrize("card", shipped())
def test_an_embedded_genesis_is_small_whole_and_reviewed(card: ModelCard) -> None:
    assert (card.path.parent / card.source.file).stat().st_size < 3_000_000
    assert card.source.sha256 is not None
    assert verify(card.name)["model.safetensors"] == card.source.sha256
    network = modelsgenesis.from_pretrained(card.name)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.source.parameters
    assert sorted(path.name for path in card.path.parent.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert PLACEHOLDER not in card.text
    assert [line for line in review_card(card.text) if not line.startswith(NOT_OURS)] == []
    assert "11,922,628" in card.text
    said(card.text, card.name)


@pytest.mark.parametrize("card", shipped())
def test_the_command_in_the_card_is_the_recipe_of_the_weights(card: ModelCard) -> None:
    found = re.search(r"<!-- command: pretrain -->\s*```bash\n(.*?)\n```", card.text, re.DOTALL)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    recipe = pretraining_recipe(words[words.index("--recipe") + 1], settings=given)
    assert recipe == PretrainingConfig.from_dict(read_config(card.path.parent).provenance.recipe)
    assert words[words.index("--modality") + 1] == card.source.input.modality


@pytest.mark.parametrize("card", shipped())
def test_the_licence_of_the_weights_is_told_where_one_looks(card: ModelCard) -> None:
    assert f"cards/{card.name}" in (ROOT / "NOTICE").read_text()
    config = json.loads((card.path.parent / "config.json").read_text())
    assert config["provenance"]["origin"] == "pretrained"
    if card.license == "cc-by-sa-4.0":
        assert "CC-BY-SA-4.0" in (ROOT / "pyproject.toml").read_text()
