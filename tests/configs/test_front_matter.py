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


def test_a_card_without_a_header_or_section_is_all_prose() -> None:
    assert split_card("# Words\n") == CardParts(after="# Words\n")
    assert split_card("") == CardParts()


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    assert split_card("\ufeff---\r\na: 1\r\n---\r\ntext\r\n") == CardParts({"a": 1}, after="text\n")


def test_a_rule_in_the_prose_is_no_header() -> None:
    assert split_card("text\n---\na: 1\n---\n").front == {}


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("---\na: [\n---\n", r"x\.md: the front matter is no YAML: .*; mend it by hand"),
        ("---\n- a\n---\n", r"x\.md: the front matter is a list, expected a YAML mapping"),
        (
            "---\na: !!python/object/apply:os.system [ls]\n---\n",
            r"no YAML: could not determine a constructor",
        ),
    ],
)
def test_a_header_that_is_no_mapping_is_refused(card: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        split_card(card, "x.md")
    assert "\n" not in str(caught.value)
