"""No patient on both sides."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.data import split_by_group
from modelsgenesis.errors import ConfigurationError, DataError


@dataclass
class Scan:
    group: str


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda names: len(set(names)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_splits(groups: list[str], fraction: float, seed: int) -> None:
    scans = [Scan(group) for group in groups]
    training, held_out = split_by_group(scans, fraction, seed)
    assert sorted(training + held_out) == list(range(len(scans)))
    assert training
    assert held_out
    assert not {groups[index] for index in training} & {groups[index] for index in held_out}
    backwards = split_by_group(scans[::-1], fraction, seed)[1]
    assert {groups[::-1][index] for index in backwards} == {groups[index] for index in held_out}


def test_splits_that_cannot_be() -> None:
    with pytest.raises(DataError, match=r"2 scans of 1 patient; expected at least 2 to hold one out"):
        split_by_group([Scan("a"), Scan("a")], 0.2, 0)
    with pytest.raises(ConfigurationError, match=r"fraction: received 1, expected between 0 and 1"):
        split_by_group([Scan("a"), Scan("b")], 1, 0)
