"""Random numbers by seed alone."""

import pytest
import torch

from modelsgenesis.pretext.random import draw_seeds, draw_words, take, uniform

SEEDS = draw_seeds(2000, torch.Generator().manual_seed(0))


def chi_squared(counts: torch.Tensor) -> float:
    """How far counts are from even ones, in standard deviations of what chance makes."""
    expected, freedom = counts.sum() / len(counts), len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum().item() - freedom) / (2 * freedom) ** 0.5


def test_the_numbers_of_a_seed_are_pinned() -> None:
    words = draw_words(torch.tensor([0, 1, -1]), "flip", 2)
    assert words.tolist() == [[1338052920, 274180947], [1985536393, 556768551], [96021023, 4215167520]]
    assert draw_words(torch.tensor([0]), "a name of its own", 1).item() == 1298408499


def test_uniform_numbers_streams_and_seeds_are_uncorrelated() -> None:
    flip, windows = (uniform(draw_words(SEEDS, stream, 5, 10)) for stream in ("flip", "windows"))
    assert flip.shape == (2000, 5, 10)
    assert flip.min() >= 0
    assert flip.max() < 1
    assert flip.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / 1e5) ** 0.5)
    assert flip.var().item() == pytest.approx(1 / 12, abs=0.001)
    neighbours = uniform(draw_words(torch.arange(2000), "flip", 1))[:, 0]
    for pair in (flip[:, 0, :2].T, (flip[:, 0, 0], windows[:, 0, 0]), (neighbours[1:], neighbours[:-1])):
        assert abs(torch.corrcoef(torch.stack([*pair]))[0, 1]) < 4 / 2000**0.5


def test_taken_numbers_reach_both_ends_equally_often_and_leave_uniform_independent_words() -> None:
    numbers, rest = take(draw_words(SEEDS, "flip", 50).flatten(), 12)
    assert chi_squared(torch.bincount(numbers, minlength=12)) < 4
    assert torch.corrcoef(torch.stack([numbers.double(), rest.double()]))[0, 1].abs() < 4 / 1e5**0.5
    assert chi_squared(torch.bincount(take(rest, 100)[0], minlength=100)) < 4
