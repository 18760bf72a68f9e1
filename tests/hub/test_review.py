"""The check of a card."""

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
    import dataclasses

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
    assert review_card(card) == [
        "header: license 'nonsense' is no identifier of the Hub; use other with license_name",
        "header: library_name is not modelsgenesis",
        "header: no pipeline_tag",
        "header: no tags",
        "header: no datasets; name those on the Hub, or give [] and describe the data in the text",
        "results: none in model-index",
        "text: says nowhere that it is not a medical device",
        "text: no intended use",
        "text: no limits",
        "text: no word on consent or ethics approval",
        "text: no word on the licences of data and weights",
        "text: no snippet that loads it",
        "text: no citation",
        "text: no figure",
    ]
    assert (
        review_card(card.replace("nonsense", "other"))[0] == "header: license other needs license_name and license_link"
    )
    assert review_card("---\n[\n---\n")[0].startswith("README.md: the front matter is no YAML")


def test_the_header_of_a_card_survives_taking_apart() -> None:
    card = render_card(CONFIG, name="clinic/x")
    assert split_card(card).join() == card
