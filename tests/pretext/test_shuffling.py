"""Local shuffling."""

import pytest
import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext import Shuffling, draw_seeds
from modelsgenesis.pretext.shuffling import Windows
from modelsgenesis.pretext.sparse_table import window_table

CPU = torch.device("cpu")


def one_by_one(volume: Tensor, parameters: Windows, sample: int) -> Tensor:
    """Permute window after window as the parameters say: [*spatial] to the same."""
    table = window_table(tuple(volume.shape), 10, CPU)
    result = volume.clone()
    windows = (parameters.origins[sample].T, parameters.sides[sample].T, parameters.variants[sample])
    for origin, sides, variant in zip(*(tensor.tolist() for tensor in windows), strict=True):
        box = tuple(slice(first, first + side) for first, side in zip(origin, sides, strict=True))
        window = volume[box]
        number = 0
        for side, longest in zip(sides, table.longest, strict=True):
            number = number * longest + side - 1
        permutation, entry = divmod(variant, window.numel())
        start = table.starts[number].item() + 2 * permutation * window.numel() + entry
        distances = table.sources[start : start + window.numel()].long()
        shifted = torch.arange(volume.numel()).view(volume.shape)[box].flatten()[0] + distances
        values = volume.flatten()[shifted]
        assert torch.equal(values.sort().values, window.flatten().sort().values)
        result[box] = values.view(sides)
    return result


@pytest.mark.parametrize("shape", [(64, 64), (30, 21), (32, 32, 8), (48, 48, 12), (20, 70, 33), (9, 110, 20)])
def test_it_does_what_permuting_window_after_window_does(shape: tuple[int, ...]) -> None:
    batch = torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    shuffling = Shuffling(PretextConfig(shuffle_probability=1, shuffle_windows=300))
    parameters = shuffling.draw(shape, draw_seeds(3, torch.Generator().manual_seed(1)))
    deformed = shuffling.apply(batch, parameters)
    for sample in range(3):
        for channel in range(2):
            assert torch.equal(deformed[sample, channel], one_by_one(batch[sample, channel], parameters, sample))


def test_only_the_chosen_samples_are_shuffled() -> None:
    batch = torch.rand(40, 1, 32, 32)
    shuffling = Shuffling()
    parameters = shuffling.draw((32, 32), draw_seeds(40, torch.Generator().manual_seed(0)))
    deformed = shuffling.apply(batch, parameters)
    changed = (deformed != batch).flatten(1).any(dim=1)
    assert torch.equal(changed, parameters.applied)
    assert 8 < parameters.applied.sum() < 32


def test_windows_lie_inside_with_sides_up_to_a_tenth() -> None:
    shape = (64, 40, 15)
    parameters = Shuffling(PretextConfig(shuffle_probability=1)).draw(shape, draw_seeds(2))
    size, longest = torch.tensor(shape)[:, None], torch.tensor([6, 4, 1])
    assert parameters.origins.min() == 0
    assert (parameters.origins + parameters.sides <= size).all()
    assert parameters.sides.amax(dim=(0, 2)).tolist() == longest.tolist()
    counts = torch.bincount(parameters.sides[:, 0].flatten())[1:] / 20_000
    assert counts.tolist() == pytest.approx([1 / 6] * 6, abs=4 * (5 / 36 / 20_000) ** 0.5)
    assert (parameters.origins + parameters.sides == size).any(dim=2).all()


def test_a_voxel_takes_the_value_of_any_in_its_window_equally_often() -> None:
    """Of one window of 3 × 3 over the whole image, from many seeds."""
    config = PretextConfig(shuffle_probability=1, shuffle_windows=1, shuffle_fraction=1)
    image = (torch.arange(9) / 8).view(1, 1, 3, 3)
    seeds = draw_seeds(30_000, torch.Generator().manual_seed(0))
    shuffling = Shuffling(config)
    whole = (shuffling.draw((3, 3), seeds).sides == 3).all(dim=(1, 2))
    deformed = shuffling(image.expand(int(whole.sum()), 1, 3, 3), seeds[whole])
    sources = (deformed.view(-1, 9) * 8).round().long()
    joint = torch.zeros(9, 9).index_put((torch.arange(9).expand_as(sources), sources), torch.ones(()), accumulate=True)
    expected = len(sources) / 9
    assert ((joint - expected) ** 2 / expected).sum() < 64 + 4 * (2 * 64) ** 0.5


def test_a_small_sub_volume_has_windows_of_one_voxel_and_stays() -> None:
    batch = torch.rand(2, 1, 16, 16, 16)
    deformed = Shuffling(PretextConfig(shuffle_probability=1))(batch, draw_seeds(2))
    assert torch.equal(deformed, batch)
