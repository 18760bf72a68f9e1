"""Random numbers by seed alone."""

import pytest
import torch

from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.random import CounterRNG, Stream, draw_seeds, mix, take

SEEDS = draw_seeds(2000, torch.Generator().manual_seed(0))


def test_the_numbers_of_a_seed_are_pinned() -> None:
    words = CounterRNG(torch.tensor([0, 1, -1]), Stream.FLIP, 2).words(2)
    assert words.tolist() == [[1338052920, 274180947], [1985536393, 556768551], [96021023, 4215167520]]


def test_mix_is_one_to_one_on_neighbours_and_moves_half_of_the_bits() -> None:
    numbers = torch.arange(4096)
    assert len(mix(numbers).unique()) == 4096
    changed = mix(numbers) ^ mix(numbers ^ 1)
    share = torch.stack([(changed >> bit) & 1 for bit in range(64)]).float().mean(dim=1)
    assert share.min() > 0.45
    assert share.max() < 0.55


def test_uniform_numbers_have_the_moments_of_the_uniform_distribution() -> None:
    numbers = CounterRNG(SEEDS, Stream.FLIP, 50).uniform(5, 10)
    assert numbers.shape == (2000, 5, 10)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / 1e5) ** 0.5)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_successive_numbers_streams_and_seeds_are_uncorrelated() -> None:
    flip, windows = CounterRNG(SEEDS, Stream.FLIP, 2).uniform(2), CounterRNG(SEEDS, Stream.WINDOWS, 2).uniform(2)
    neighbours = CounterRNG(torch.arange(2000), Stream.FLIP, 2).uniform(2)
    pairs = [flip.T, torch.stack([flip[:, 0], windows[:, 0]]), torch.stack([neighbours[1:, 0], neighbours[:-1, 0]])]
    for pair in pairs:
        assert abs(torch.corrcoef(pair)[0, 1]) < 4 / 2000**0.5


def test_integers_reach_both_bounds_equally_often_and_broadcast_them() -> None:
    numbers = CounterRNG(SEEDS, Stream.FLIP, 30).integers(-1, 1, 30)
    share = torch.bincount(numbers.flatten() + 1) / numbers.numel()
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=4 * (2 / 9 / 6e4) ** 0.5)
    numbers = CounterRNG(SEEDS, Stream.FLIP, 2).integers(torch.tensor([1, 2]), torch.tensor([1, 5]), 2)
    assert (numbers.amin(dim=0).tolist(), numbers.amax(dim=0).tolist()) == ([1, 2], [1, 5])


def test_what_take_leaves_is_uniform_and_independent() -> None:
    numbers, rest = take(CounterRNG(SEEDS, Stream.FLIP, 50).words(50).flatten(), 12)
    assert torch.corrcoef(torch.stack([numbers.double(), rest.double()]))[0, 1].abs() < 4 / 1e5**0.5
    counts = torch.bincount(take(rest, 100)[0], minlength=100)
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 4 * (2 * 99) ** 0.5  # chi-squared


def test_draw_seeds_follows_its_generator() -> None:
    first, again = (draw_seeds(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, draw_seeds(4, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("seeds", [torch.tensor(1), torch.tensor([1.0]), torch.tensor([[1]])])
def test_seeds_that_are_no_vector_of_integers_are_refused(seeds: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"seeds: received .* expected int64 \[batch\]; draw_seeds makes them"):
        CounterRNG(seeds, Stream.FLIP, 1)
