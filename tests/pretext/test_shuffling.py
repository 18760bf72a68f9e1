"""Local shuffling against permuting one window after another, and its tables."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext import draw_seeds
from modelsgenesis.pretext.random import draw_words, uniform
from modelsgenesis.pretext.shuffling import (
    cover_by_blocks,
    draw_windows,
    last_window_per_voxel,
    ravel,
    shuffle,
    window_table,
)

CPU = torch.device("cpu")
ALWAYS = PretextConfig(shuffle_probability=1)


def one_by_one(volume: Tensor, windows: tuple[Tensor, ...], sample: int) -> Tensor:
    """Permute window after window as they were drawn: [*spatial] to the same."""
    table = window_table(tuple(volume.shape), 10, CPU)
    result = volume.clone()
    origins, sides, variants = (drawn[sample] for drawn in windows)
    for origin, lengths, variant in zip(origins.T.tolist(), sides.T.tolist(), variants.tolist(), strict=True):
        box = tuple(slice(first, first + side) for first, side in zip(origin, lengths, strict=True))
        window = volume[box]
        number = 0
        for side, longest in zip(lengths, table.longest, strict=True):
            number = number * longest + side - 1
        permutation, entry = divmod(variant, window.numel())
        start = table.starts[number].item() + 2 * permutation * window.numel() + entry
        distances = table.sources[start : start + window.numel()].long()
        shifted = torch.arange(volume.numel()).view(volume.shape)[box].flatten()[0] + distances
        values = volume.flatten()[shifted]
        assert torch.equal(values.sort().values, window.flatten().sort().values)
        result[box] = values.view(lengths)
    return result


@pytest.mark.parametrize("shape", [(64, 64), (30, 21), (32, 32, 8), (48, 48, 12), (20, 70, 33), (9, 110, 20)])
def test_it_does_what_permuting_window_after_window_does(shape: tuple[int, ...]) -> None:
    batch = torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    seeds = draw_seeds(3, torch.Generator().manual_seed(1))
    windows = draw_windows(window_table(shape, 10, CPU), seeds, 300)
    deformed = shuffle(batch, seeds, ALWAYS.override(shuffle_windows=300))
    for sample in range(3):
        for channel in range(2):
            assert torch.equal(deformed[sample, channel], one_by_one(batch[sample, channel], windows, sample))


def test_half_of_the_samples_are_shuffled_and_small_patches_are_not() -> None:
    batch, seeds = torch.rand(40, 1, 32, 32), draw_seeds(40, torch.Generator().manual_seed(0))
    changed = (shuffle(batch, seeds, PretextConfig()) != batch).flatten(1).any(dim=1)
    assert torch.equal(changed, uniform(draw_words(seeds, "shuffle", 1)[:, 0]) < 0.5)
    assert 8 < changed.sum() < 32
    small = batch[:, :, :16, :16]  # whose windows are of one voxel
    assert torch.equal(shuffle(small, seeds, ALWAYS), small)


def test_windows_lie_inside_with_sides_up_to_a_tenth() -> None:
    shape = (64, 40, 15)
    origins, sides, _ = draw_windows(window_table(shape, 10, CPU), draw_seeds(2), 10_000)
    size, longest = torch.tensor(shape)[:, None], torch.tensor([6, 4, 1])
    assert origins.min() == 0
    assert (origins + sides <= size).all()
    assert sides.amax(dim=(0, 2)).tolist() == longest.tolist()
    counts = torch.bincount(sides[:, 0].flatten())[1:] / 20_000
    assert counts.tolist() == pytest.approx([1 / 6] * 6, abs=4 * (5 / 36 / 20_000) ** 0.5)
    assert (origins + sides == size).any(dim=2).all()


def test_a_voxel_takes_the_value_of_any_in_its_window_equally_often() -> None:
    """Of one window of 3 × 3 over the whole image, from many seeds."""
    config = ALWAYS.override(shuffle_windows=1, shuffle_fraction=1)
    image = (torch.arange(9) / 8).view(1, 1, 3, 3)
    seeds = draw_seeds(30_000, torch.Generator().manual_seed(0))
    _, sides, _ = draw_windows(window_table((3, 3), 1, CPU), seeds, 1)
    whole = (sides == 3).all(dim=(1, 2))
    deformed = shuffle(image.expand(int(whole.sum()), 1, 3, 3), seeds[whole], config)
    sources = (deformed.view(-1, 9) * 8).round().long()
    joint = torch.zeros(9, 9).index_put((torch.arange(9).expand_as(sources), sources), torch.ones(()), accumulate=True)
    expected = len(sources) / 9
    assert ((joint - expected) ** 2 / expected).sum() < 64 + 4 * (2 * 64) ** 0.5


@given(longest=st.integers(1, 120), adjacent=st.booleans())
def test_blocks_cover_windows_of_every_side(longest: int, adjacent: bool) -> None:
    longer, starts = cover_by_blocks(longest, adjacent=adjacent)
    for side in range(1, longest + 1):
        steps = range(longer if longer <= side else 1)
        assert {start + step for start in starts[:, side - 1].tolist() for step in steps} == set(range(side))


@pytest.mark.parametrize("shape", [(40, 30), (33, 20, 21), (128, 128)])
def test_the_last_window_is_found_over_every_voxel(shape: tuple[int, ...]) -> None:
    table = window_table(shape, 5, CPU)
    origins, sides, _ = draw_windows(table, draw_seeds(2, torch.Generator().manual_seed(0)), 200)
    expected = torch.zeros(2, *shape, dtype=torch.int64)
    for sample in range(2):
        for window in range(200):
            corners = zip(origins[sample, :, window], sides[sample, :, window], strict=True)
            expected[sample][tuple(slice(first, first + side) for first, side in corners)] = window + 1
    last = last_window_per_voxel(table, sides, ravel(origins, shape))
    assert torch.equal(last.view(2, *shape).long(), expected)


def test_very_many_windows_can_be_counted() -> None:
    sides = torch.ones(1, 2, 40_000, dtype=torch.int64)
    last = last_window_per_voxel(window_table((20, 20), 10, CPU), sides, torch.arange(40_000)[None] % 400)
    assert last.dtype == torch.int32
    assert last.max() == 40_000


def test_the_table_holds_permutations_of_every_window_shape() -> None:
    table = window_table((40, 20, 30), 10, CPU)
    voxels = torch.arange(40 * 20 * 30).view(40, 20, 30)
    assert torch.equal(table.sources[: voxels.numel()], voxels.flatten().int())
    for number, start in enumerate(table.starts.tolist()):
        window = (number // 6 + 1, number // 3 % 2 + 1, number % 3 + 1)
        size = math.prod(window)
        rows = table.sources[start:][: 2 * size * table.permutations].view(table.permutations, 2, size)
        assert torch.equal(rows[:, 0], rows[:, 1])
        inside = voxels[tuple(slice(side) for side in window)].flatten()
        assert torch.equal(rows[:50, 0].sort(dim=1).values, inside.int().expand(min(50, len(rows)), -1))


def test_the_permutations_of_the_table_are_uniform_and_the_same_in_every_process() -> None:
    table = window_table((30, 20), 10, CPU)
    start = table.starts[-1].item()  # of windows of 3 × 2
    rows = table.sources[start : start + 12 * table.permutations].view(-1, 12)[:, :6]
    _, places = rows.unique(return_inverse=True)
    counts = torch.bincount(places[:, 0] * 6 + places[:, 1], minlength=36).view(6, 6)
    different = counts[~torch.eye(6, dtype=torch.bool)]
    expected = len(rows) / 30
    assert counts.diagonal().sum() == 0
    assert ((different - expected) ** 2 / expected).sum() < 29 + 4 * (2 * 29) ** 0.5
    table = window_table((64, 64, 32), 10, CPU)
    assert (table.longest, table.permutations) == ((6, 6, 3), 198)
    weights = torch.arange(len(table.sources)) % 1009
    assert (table.sources.long() * weights).sum().item() == 6165614645454


def test_windows_out_of_proportion_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"smaller than up to \(204, 204\); use .* shuffle_fraction above 10"):
        window_table((2048, 2048), 10, CPU)
