"""Cards taken apart and put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.configs.front_matter import BEGIN, END, CardParts, split_card
from modelsgenesis.errors import ConfigurationError

PROSE = st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff", exclude_categories=("Cs",)), max_size=60)
FRONT = st.dictionaries(
    st.sampled_from(["license", "tags", "a"]), st.text("abc:#'\n-é", max_size=8) | st.integers(), max_size=3
)


@given(FRONT, PROSE, PROSE)
def test_joining_and_taking_apart_are_inverse(front: dict[str, object], before: str, after: str) -> None:
    before = f"{before}\n".lstrip("\n-")
    section = f"{BEGIN} -->\nours\n{END}\n"
    parts = CardParts(front, before, section, after)
    assert split_card(parts.join()) == parts


@pytest.mark.parametrize(
    ("card", "parts"),
    [
        ("# Words\n", CardParts(after="# Words\n")),
        ("", CardParts()),
        ("\ufeff---\r\na: 1\r\n---\r\ntext\r\n", CardParts({"a": 1}, after="text\n")),  # as Windows writes it
        ("text\n---\na: 1\n---\n", CardParts(after="text\n---\na: 1\n---\n")),
    ],
)
def test_what_is_header_and_what_is_prose(card: str, parts: CardParts) -> None:
    assert split_card(card) == parts


def test_a_header_that_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"x\.md: the front matter is a list, expected a YAML mapping"):
        split_card("---\n- a\n---\n", "x.md")
