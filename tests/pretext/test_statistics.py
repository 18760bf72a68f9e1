"""The distributions of the deformations against those measured on the released ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext import draw_seeds
from modelsgenesis.pretext.deformations import change_intensity, paint
from modelsgenesis.pretext.shuffling import shuffle

pytestmark = pytest.mark.shared

SHAPES = [(64, 64, 32), (128, 128, 64)]
LEVELS = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


@pytest.fixture(scope="module")
def statistics(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "reference" / "transform_statistics.json").read_text())


def assert_same_mean(values: Tensor, expected: dict[str, float], draws: int) -> None:
    error = expected["std"] * (1 / len(values) + 1 / draws) ** 0.5
    assert values.mean().item() == pytest.approx(expected["mean"], abs=4 * error)


@pytest.mark.parametrize("shape", SHAPES)
def test_shuffling_moves_and_loses_as_many_voxels(statistics: dict[str, Any], shape: tuple[int, ...]) -> None:
    expected = statistics["x".join(map(str, shape))]["local_shuffle"]
    voxels, count = torch.Size(shape).numel(), 48 if shape == SHAPES[0] else 12
    numbers = torch.arange(voxels)
    batch = (numbers / voxels).view(1, 1, *shape).expand(count, 1, *shape)
    seeds = draw_seeds(count, torch.Generator().manual_seed(0))
    deformed = shuffle(batch, seeds, PretextConfig(shuffle_probability=1))
    sources = (deformed.view(count, -1) * voxels).round().long()

    assert_same_mean((sources != numbers).float().mean(dim=1), expected["changed_fraction"], expected["draws"])
    kept = torch.zeros(count, voxels).scatter_(1, sources, 1.0).mean(dim=1)
    assert_same_mean(1 - kept, expected["duplicated_fraction"], expected["draws"])
    pairs = zip(torch.unravel_index(sources, shape), torch.unravel_index(numbers, shape), strict=True)
    for (source, place), displacement in zip(pairs, expected["mean_displacement_voxels"], strict=True):
        assert_same_mean((source - place).abs().float().mean(dim=1), displacement, expected["draws"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "inside"), [("in_painting", 1.0), ("out_painting", 0.0)])
def test_painting_replaces_as_many_voxels(
    statistics: dict[str, Any], shape: tuple[int, ...], name: str, inside: float
) -> None:
    expected = statistics["x".join(map(str, shape))][name]
    # Where it paints does not depend on what with, and noise takes longest.
    config = PretextConfig(painting_probability=1, inpainting_share=inside, painting_fill="constant")
    seeds = draw_seeds(1000 if shape == SHAPES[0] else 400, torch.Generator().manual_seed(0))
    white = torch.ones(1, 1, *shape)  # a value that no fill has
    painted = (paint(white.expand(len(part), 1, *shape), part, config) != 1 for part in seeds.split(2))
    shares = torch.cat([mask.flatten(1).float().mean(dim=1) for mask in painted])
    assert_same_mean(shares, expected["replaced_fraction"], expected["draws"])
    for level in ("q25", "q50", "q75"):
        assert shares.quantile(LEVELS[level]).item() == pytest.approx(expected["replaced_fraction"][level], abs=0.02)


def test_curves_have_the_same_means_and_quantiles(statistics: dict[str, Any]) -> None:
    expected = statistics["nonlinear"]
    draws = expected["draws"] // 2
    places = [float(name.removeprefix("value_at_")) for name in expected["increasing_curves"]]
    heights = []
    for seeds in draw_seeds(20_000, torch.Generator().manual_seed(0)).split(200):
        ramp = torch.tensor([0, *places, 1]).view(1, 1, 1, -1).expand(len(seeds), 1, 1, -1)
        heights.append(change_intensity(ramp, seeds, PretextConfig(intensity_probability=1))[:, 0, 0])
    ends, mapped = torch.cat(heights)[:, [0, -1]], torch.cat(heights)[:, 1:-1]
    upwards = ends[:, 1] > ends[:, 0]
    assert upwards.float().mean().item() == pytest.approx(expected["decreasing_fraction"], abs=0.03)
    pairs = [*zip(mapped[upwards].T, expected["increasing_curves"].values(), strict=True)]
    pairs += zip(mapped[~upwards].T, expected["decreasing_curves"].values(), strict=True)
    for values, curve in pairs:
        assert_same_mean(values, curve, draws)
        for level, rank in LEVELS.items():
            # Where its curves are sparse the reference itself is off by more: 4 of its standard errors.
            around = values.quantile(rank + 0.02) - values.quantile(rank - 0.02)
            error = (rank * (1 - rank) / draws) ** 0.5 * around.item() / 0.04
            assert values.quantile(rank).item() == pytest.approx(curve[level], abs=max(0.02, 4 * error))
