"""Local shuffling against permuting one window after another, and its tables."""

from itertools import product

import pytest
import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext import draw_seeds
from modelsgenesis.pretext.shuffling import draw_windows, last_window_per_voxel, shuffle, window_table

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
        permutation, entry = divmod(variant, window.numel())
        number = sum((side - 1) * each for side, each in zip(lengths, table.shapes, strict=True))
        start = table.records[0, number].item() + 2 * permutation * window.numel() + entry
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
    for sample, channel in product(range(3), range(2)):
        assert torch.equal(deformed[sample, channel], one_by_one(batch[sample, channel], windows, sample))
    assert torch.equal(shuffle(batch, seeds, ALWAYS.override(shuffle_probability=0.0)), batch)


def test_windows_lie_inside_with_sides_up_to_a_tenth() -> None:
    shape = (64, 40, 15)
    origins, sides, _ = draw_windows(window_table(shape, 10, CPU), draw_seeds(2), 10_000)
    size = torch.tensor(shape)[:, None]
    assert (origins.min(), (origins + sides <= size).all()) == (0, True)
    assert sides.amax(dim=(0, 2)).tolist() == [6, 4, 1]
    counts = torch.bincount(sides[:, 0].flatten())[1:] / 20_000
    assert counts.tolist() == pytest.approx([1 / 6] * 6, abs=4 * (5 / 36 / 20_000) ** 0.5)
    assert (origins + sides == size).any(dim=2).all()
    small = torch.rand(1, 1, 16, 16)  # whose windows are of one voxel
    assert torch.equal(shuffle(small, draw_seeds(1), ALWAYS), small)


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


def test_very_many_windows_can_be_counted() -> None:
    points = (torch.arange(40_000) % 400).view(1, 1, -1)  # of windows of one voxel
    last = last_window_per_voxel(window_table((20, 20), 10, CPU), points, torch.tensor([True]))
    assert last.dtype == torch.int32
    assert last.max() == 40_000


def test_the_permutations_of_the_table_are_the_same_in_every_process() -> None:
    table = window_table((64, 64, 32), 10, CPU)
    assert (table.longest, table.permutations) == ((6, 6, 3), 198)
    weights = torch.arange(len(table.sources)) % 1009
    assert (table.sources.long() * weights).sum().item() == 6165614645454


def test_windows_out_of_proportion_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"smaller than up to \(204, 204\); use .* shuffle_fraction above 10"):
        window_table((2048, 2048), 10, CPU)
