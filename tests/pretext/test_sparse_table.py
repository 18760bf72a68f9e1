"""What is known of the windows of local shuffling."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.sparse_table import BlockCover, last_window_per_voxel, ravel, window_table

CPU = torch.device("cpu")


@given(longest=st.integers(1, 120), adjacent=st.booleans())
def test_blocks_cover_windows_of_every_side(longest: int, adjacent: bool) -> None:
    cover = BlockCover.of(longest, adjacent=adjacent)
    assert len(cover.lengths) <= 2
    for side in range(1, longest + 1):
        length = cover.lengths[cover.level(side)]
        starts = cover.starts(side)
        assert len(starts) == cover.blocks
        assert {start + step for start in starts for step in range(length)} == set(range(side))


@pytest.mark.parametrize("shape", [(40, 30), (33, 20, 21), (128, 128)])
def test_the_last_window_is_found_over_every_voxel(shape: tuple[int, ...]) -> None:
    table = window_table(shape, 5, CPU)
    generator = torch.Generator().manual_seed(0)
    axes = range(len(shape))
    sides = torch.stack([torch.randint(1, table.longest[a] + 1, (2, 200), generator=generator) for a in axes], 1)
    space = torch.tensor(shape)[:, None] - sides + 1
    origins = (torch.rand(sides.shape, generator=generator) * space).long()
    expected = torch.zeros(2, *shape, dtype=torch.int64)
    for sample in range(2):
        for window in range(200):
            corners = zip(origins[sample, :, window], sides[sample, :, window], strict=True)
            expected[sample][tuple(slice(first, first + side) for first, side in corners)] = window + 1
    last = last_window_per_voxel(table, sides, ravel(origins, shape))
    assert torch.equal(last.view(2, *shape).long(), expected)


def test_very_many_windows_can_be_counted() -> None:
    table = window_table((20, 20), 10, CPU)
    sides = torch.ones(1, 2, 40_000, dtype=torch.int64)
    last = last_window_per_voxel(table, sides, torch.arange(40_000)[None] % 400)
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


def test_the_permutations_of_the_table_are_uniform() -> None:
    table = window_table((30, 20), 10, CPU)
    start = table.starts[-1].item()  # of windows of 3 × 2
    rows = table.sources[start : start + 12 * table.permutations].view(-1, 12)[:, :6]
    _, places = rows.unique(return_inverse=True)
    counts = torch.bincount(places[:, 0] * 6 + places[:, 1], minlength=36).view(6, 6)
    different = counts[~torch.eye(6, dtype=torch.bool)]
    expected = len(rows) / 30
    assert counts.diagonal().sum() == 0
    assert ((different - expected) ** 2 / expected).sum() < 29 + 4 * (2 * 29) ** 0.5


def test_the_table_is_the_same_in_every_process() -> None:
    table = window_table((64, 64, 32), 10, CPU)
    assert table.longest == (6, 6, 3)
    assert table.permutations == 198
    weights = torch.arange(len(table.sources)) % 1009
    assert (table.sources.long() * weights).sum().item() == 6165614645454


def test_windows_out_of_proportion_are_refused() -> None:
    message = r"sides \(2048, 2048\): expected .* smaller than up to \(204, 204\); use .* shuffle_fraction above 10"
    with pytest.raises(ShapeError, match=message):
        window_table((2048, 2048), 10, CPU)
