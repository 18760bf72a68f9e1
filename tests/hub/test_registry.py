"""The registry of cards."""

import pytest

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hub import find_card, list_cards
from runs_to_push import failure, write_card


def test_a_card_says_where_the_weights_are_and_what_they_expect(cards):
    card = find_card("tiny-ct")
    assert (card.source.repository, card.license) == ("clinic/tiny", "cc-by-4.0")
    assert (card.source.input.window, card.source.network.widths) == ((-1000, 1000), (4, 8))
    assert card.text == card.path.read_text()


def test_models_are_listed_by_name_modality_and_dimensions(cards):
    write_card(cards, "a-mri", input="{modality: mri, intensity: zscore}")
    (cards / "README.md").write_text("no card")
    assert [c.name for c in list_cards() if c.path.parent == cards] == ["a-mri", "tiny-ct"]
    assert "a-mri" not in [c.name for c in list_cards(modality="ct")]
    assert list_cards(modality="mri", dims=2) == []
    assert [c.name for c in list_cards("*-ct")] == ["tiny-ct"]
    assert {c.name[:8] for c in list_cards("genesis-*")} == {"genesis-"}
    assert list_cards("TINY*") == []


def test_an_unknown_name_is_answered_with_the_nearest(cards):
    assert "did you mean tiny-ct?" in failure(lambda: find_card("tiny-cr"), "unknown")
    assert "no model of this name" in failure(lambda: find_card("../cards/tiny-ct"), "unknown")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"parameters": "3217\n  parametrs: 1"}, "did you mean parameters"),
        ({"sha256": "abc"}, "not a SHA-256"),
        ({"repository": "null", "format": "genesis-pytorch"}, "convert it"),
        ({"patch_size": "[16, 16, 0]"}, "above 0"),
        ({"name": "other"}, "its file other"),
        ({"network": "{kind: genesis_unet, width: 3}"}, "did you mean widths"),
        ("# no header\n", "modelsgenesis"),
        ("---\nmodelsgenesis: {name: wrong}\n---\n", "wrong.md: repository, file, format"),
        ("---\nmodelsgenesis: [\n---\n", "wrong.md"),
    ],
)
def test_a_wrong_card_is_refused_with_its_file_or_key(cards, changes, word):
    if isinstance(changes, dict):
        write_card(cards, "wrong", **changes)
    else:
        (cards / "wrong.md").write_bytes(changes.encode() if isinstance(changes, str) else changes)
    assert word in failure(lambda: find_card("wrong"), ConfigurationError)


def test_a_folder_of_cards_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("MODELSGENESIS_CARDS", "/nowhere/cards")
    assert "/nowhere/cards" in failure(list_cards, ConfigurationError)
