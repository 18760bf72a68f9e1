"""The check of a card."""

import dataclasses

import pytest

from modelsgenesis.checkpoints import render_card
from modelsgenesis.configs.front_matter import split_card
from modelsgenesis.hub import review_card

from .conftest import CONFIG, FIGURES  # pyright: ignore[reportAttributeAccessIssue]


def test_a_generated_card_lacks_what_only_a_person_can_write() -> None:
    problems = review_card(render_card(CONFIG, name="clinic/x", figures=FIGURES))
    assert problems[0].startswith("header: no license")
    assert [p for p in problems if p.startswith("results")] == [
        "results: restoration_loss without n, seeds, an interval"
    ]
    filled = [p for p in problems if p.startswith("to fill in: ")]
    assert len(filled) == 8
    assert "to fill in: Consent or ethics approval: FILL IN the basis on which the scans may be used for this" in filled
    assert not [p for p in problems if p.startswith("text")]


def test_a_complete_card_has_no_problem() -> None:
    results = {"dice": {"mean": 0.85, "n": 52, "seeds": [0, 1, 2], "interval": [0.84, 0.86], "scratch": 0.8}}
    provenance = dataclasses.replace(CONFIG.provenance, results=results)
    card = render_card(dataclasses.replace(CONFIG, provenance=provenance), name="clinic/x", figures=FIGURES)
    card = card.replace("FILL IN", "").replace(
        "library_name:",
        "license: other\nlicense_name: ours\nlicense_link: LICENSE\ndatasets: []\nlibrary_name:",
    )
    assert review_card(card) == []


def test_each_gap_is_named() -> None:
    card = "---\nlicense: nonsense\nlibrary_name: timm\n---\n# A model\n"
    gaps = ("license 'nonsense'", "library_name", "pipeline_tag", "tags", "datasets", "model-index", "medical device")
    gaps += ("intended use", "limits", "consent", "licences of data", "snippet", "citation", "figure")
    found = review_card(card)
    assert len(found) == len(gaps)
    assert all(gap in problem for gap, problem in zip(gaps, found, strict=True))
    assert "license_link" in review_card(card.replace("nonsense", "other"))[0]
    assert review_card("---\n[\n---\n")[0].startswith("README.md: ")


@pytest.mark.parametrize(
    "front", ["license: [a]", "license: '\x1b[2J'", "model-index: x", "model-index: [{results: [1]}]"]
)
def test_a_header_of_the_wrong_kinds_is_reviewed_in_printable_lines(front: str) -> None:
    assert all(problem.isprintable() for problem in review_card(f"---\n{front}\n---\n"))


def test_the_header_of_a_card_survives_taking_apart() -> None:
    card = render_card(CONFIG, name="clinic/x")
    assert split_card(card).join() == card
