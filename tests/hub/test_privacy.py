"""What must not leave the house."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.hub import push


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
    assert found in " ".join(push.private_text(text, "card"))


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
    assert [*push.private_text(text, "card")] == []


def test_values_and_keys_are_searched_at_any_depth():
    values = {"a": [{"b": ("ok", "ct_0001.dcm")}], "patient_id": 3}
    assert list(push.private_values(values, "config.json")) == [
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
    assert list(push.private_values(values, "x")) == []
