"""Flips."""

import pytest
import torch

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext import Flip, draw_seeds

SEEDS = draw_seeds(20_000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", [2, 3])
def test_each_axis_is_reversed_where_the_parameters_say(axes: int) -> None:
    batch = torch.rand(16, 2, *range(3, 3 + axes))
    flip = Flip(PretextConfig(flip_probability=0.9))
    drawn = flip.draw(batch.shape[2:], SEEDS[:16])
    deformed = flip.apply(batch, drawn)
    for sample, flipped, given in zip(deformed, drawn, batch, strict=True):
        reversed_axes = [axis + 1 for axis in range(axes) if flipped[axis]]
        assert torch.equal(sample, given.flip(reversed_axes))


def test_axes_are_reversed_as_often_as_the_coins_say() -> None:
    flipped = Flip().draw((8, 8, 8), SEEDS).float()
    # An odd number of the 0, 1, 2 or 3 flips falls on a given axis.
    odd = [(1 - (1 - 2 / 3) ** flips) / 2 for flips in range(4)]
    expected = sum(share * chance for share, chance in zip((0.6, 0.24, 0.096, 0.064), odd, strict=True))
    assert flipped.mean(dim=0).tolist() == pytest.approx([expected] * 3, abs=4 * (0.15 / 20_000) ** 0.5)


def test_no_flip_is_drawn_when_the_limit_is_zero() -> None:
    assert not Flip(PretextConfig(flip_limit=0)).draw((8, 8), SEEDS[:10]).any()
