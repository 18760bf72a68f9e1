"""The check of a card, and what must not leave the house."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.checkpoints import render_card
from modelsgenesis.configs.front_matter import split_card
from modelsgenesis.hub import review
from modelsgenesis.hub.review import review_card
from runs_to_push import CONFIG, FIGURES


def test_a_generated_card_lacks_what_only_a_person_can_write():
    card = render_card(CONFIG, name="clinic/x", figures=FIGURES)
    assert split_card(card).join() == card
    header, *filled = review_card(card.replace("library_name:", "datasets: []\nlibrary_name:"))
    assert header.startswith("header: no license")
    assert len(filled) == 8
    assert "to fill in: Consent or ethics approval: FILL IN the basis on which the scans may be used for this" in filled


def test_a_complete_card_has_no_problem():
    card = render_card(CONFIG, name="clinic/x", figures=FIGURES).replace("FILL IN", "")
    licensed = "license: other\nlicense_name: ours\nlicense_link: LICENSE\ndatasets: []\nlibrary_name:"
    assert review_card(card.replace("library_name:", licensed)) == []


def test_each_gap_is_named():
    card = "---\nlicense: nonsense\nlibrary_name: timm\n---\n# A model\n"
    gaps = ("license 'nonsense'", "library_name", "pipeline_tag", "tags", "datasets", "model-index", "medical device")
    gaps += ("intended use", "limits", "consent", "licences of data", "snippet", "citation", "figure")
    found = review_card(card)
    assert [gap in problem for gap, problem in zip(gaps, found, strict=True)] == [True] * len(gaps)
    assert "license_link" in review_card(card.replace("nonsense", "other"))[0]
    assert review_card("---\n[\n---\n")[0].startswith("README.md: ")
    for front in ("license: [a]", "license: '\x1b[2J'", "model-index: x", "model-index: [{results: [1]}]"):
        assert all(problem.isprintable() for problem in review_card(f"---\n{front}\n---\n"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kept in /home/anna/runs/chest", "a path of this machine: '/home/anna/runs/chest'"),
        ("see ~/runs/a", "a path of this machine: '~/runs/a'"),
        ("C:\\Users\\anna\\scan", "a path of this machine: 'C:\\\\Users\\\\anna\\\\scan'"),
        ("\\\\server\\share\\scans", "a path of this machine"),
        ("for Mueller^Anna", "a person's name: 'Mueller^Anna'"),
        ("1.2.840.113619.2.55.3.604688119", "a DICOM UID: '1.2.840.113619.2.55.3.604688119'"),
    ],
)
def test_what_is_private_is_found(text, found):
    assert found in " ".join(review.private_text(text, "card"))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b/c and http://127.0.0.1:80/x/y",
        "and/or, he/she, 3/4, km/h, org/name, figures/curve.png",
        "loss 0.012, version 1.2.3, spacing 0.7 × 0.7 × 1.25 mm, 10^3",
        "[0, 1]; x^2; `a | b`; 2024-01-31T10:20:30",
        "genesis-chest-ct-3d from MrGiovanni/ModelsGenesis",
        "~5 mm, C: the third, `--output DIR`",
        "scan.nii.gz *.nii.gz or (.dcm) https://a.org/b.nii <case>.nii.gz hf_hub_download() hf_transfer",
    ],
)
def test_plain_prose_is_let_through(text):
    assert [*review.private_text(text, "card"), *review.scan_names(text, "card")] == []


def test_values_and_keys_are_searched_at_any_depth():
    values = {"a": [{"b": ("ok", "ct_0001.dcm")}], "patient_id": 3}
    assert list(review.private_values(values, "config.json")) == [
        "config.json.a.b holds the name of a scan: 'ct_0001.dcm'",
        "config.json.patient_id is data of a patient",
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from("abc"), v),
    )
)
def test_numbers_are_never_private(values):
    assert list(review.private_values(values, "x")) == []
