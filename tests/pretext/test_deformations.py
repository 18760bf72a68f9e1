"""Each deformation, and all of them in their order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelsgenesis.configs import SCHEMES, PretextConfig
from modelsgenesis.configs.base import apply_settings
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.pretext import Deformation, draw_seeds
from modelsgenesis.pretext.deformations import DEFORMATIONS, change_intensity, draw_boxes, flip, paint
from modelsgenesis.pretext.random import draw_words, uniform
from modelsgenesis.pretext.shuffling import shuffle

SEEDS = draw_seeds(6, torch.Generator().manual_seed(1))
MANY = draw_seeds(5000, torch.Generator().manual_seed(0))
THREE_DIMENSIONS = [0.448809, 0.290552, 0.511643, 0.279063, 0.430377, 0.274986, 0.528536, 0.276807]
TWO_DIMENSIONS = [0.412943, 0.288227, 0.502396, 0.276887, 0.385424, 0.252203, 0.547815, 0.284909]


def ramps(count: int, *shape: int) -> Tensor:
    """Images whose every voxel has a value of its own: [count, 1, *shape]."""
    return torch.linspace(0, 1, torch.Size(shape).numel()).view(1, 1, *shape).repeat(count, 1, *(1 for _ in shape))


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 8), (48, 48, 12), (96, 96, 64)])  # the last beyond the cache
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_split_and_order_of_a_batch_gives_the_same(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    batch = torch.rand(6, 2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    deform = Deformation(PretextConfig(shuffle_windows=500))
    whole, target = deform(batch, SEEDS)
    assert whole.dtype == target.dtype == dtype
    assert not torch.equal(whole, target)
    for order in ([0, 1], [5, 2, 3], [4]):
        part, part_target = deform(batch[order], SEEDS[order])
        assert torch.equal(part, whole[order])
        assert torch.equal(part_target, target[order])


def test_the_deformations_follow_one_another_whatever_the_layout_and_the_batch_is_left_alone() -> None:
    config, batch = PretextConfig(), torch.rand(6, 2, 32, 32, 16)
    before = batch.clone()
    target = flip(batch, SEEDS, config)
    expected = paint(change_intensity(shuffle(target, SEEDS, config), SEEDS, config), SEEDS, config)
    for strided in (batch, batch.to(memory_format=torch.channels_last_3d), batch.mT.contiguous().mT):
        deformed, flipped = Deformation()(strided.requires_grad_(), SEEDS)
        assert torch.equal(deformed, expected)
        assert torch.equal(flipped, target)
        assert not deformed.requires_grad
    assert torch.equal(batch, before)


def test_the_deformations_of_four_seeds_are_pinned() -> None:
    for shape, expected in (((32, 32, 16), THREE_DIMENSIONS), ((40, 30), TWO_DIMENSIONS)):
        deformed, _ = Deformation()(ramps(4, *shape), torch.arange(4))
        moments = [moment.item() for sample in deformed for moment in (sample.mean(), sample.std())]
        assert moments == pytest.approx(expected, abs=1e-5)


def test_a_deformation_is_added_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(batch: Tensor, seeds: Tensor, config: PretextConfig) -> Tensor:
        applied = uniform(draw_words(seeds, "invert", 1, device=batch.device)[:, 0]) < config.others["invert"]
        return torch.where(applied.view(-1, 1, 1, 1), 1 - batch, batch)

    config = apply_settings(SCHEMES["identity"], ["others.invert=0.5"])
    for others in (config, PretextConfig(others={"painting": 1.0})):
        with pytest.raises(ConfigurationError, match=r"pretext.others: received '.*pretext\.painting_probability"):
            Deformation(others)
    monkeypatch.setitem(DEFORMATIONS, "invert", invert)
    deformed, target = Deformation(config)(ramps(200, 4, 5), MANY[:200])
    inverted = (deformed == 1 - target).all(dim=(1, 2, 3))
    assert torch.equal(deformed[~inverted], target[~inverted])
    assert 60 < inverted.sum() < 140


@settings(max_examples=25)
@given(shape=st.lists(st.integers(1, 24), min_size=2, max_size=3), seed=st.integers(-(2**63), 2**63 - 1))
def test_any_shape_and_seed_stays_in_range(shape: list[int], seed: int) -> None:
    batch = torch.rand(1, 1, *shape)
    for config in (PretextConfig(shuffle_windows=20, shuffle_fraction=3), SCHEMES["III"], SCHEMES["IV"], SCHEMES["VI"]):
        deformed, target = Deformation(config)(batch, torch.tensor([seed]))
        assert deformed.shape == target.shape == batch.shape
        assert 0 <= deformed.min() <= deformed.max() <= 1
        assert torch.equal(target.flatten().sort().values, batch.flatten().sort().values)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_does_its_deformations_only(name: str) -> None:
    config, batch = SCHEMES[name], ramps(60, 24, 24)
    seeds = MANY[:60]
    steps, kinds = (flip, *DEFORMATIONS.values()), DEFORMATIONS
    changes = [not torch.equal(deform(batch, seeds, config), batch) for deform in steps]
    assert changes == [True, *(getattr(config, f"{kind}_probability") > 0 for kind in kinds)]
    assert torch.equal(*Deformation(config)(batch, seeds)) is (name == "identity")


@pytest.mark.parametrize(
    ("batch", "seeds", "words"),
    [
        *((torch.rand(shape), SEEDS[:1], "batch of .* shape") for shape in ((8, 8), (1,) * 6, (1, 1, 0, 8))),
        *((torch.ones(1, 1, 8, 8).to(d), SEEDS[:1], "batch of") for d in (torch.float64, torch.float16, torch.int16)),
        *((torch.rand(2, 1, 8, 8), seeds, "draw_seeds") for seeds in (SEEDS[:1], SEEDS[:2, None], SEEDS[:2].int())),
        (torch.tensor([-3.0, 2.0]).expand(1, 1, 8, 2), SEEDS[:1], r"values in \[-3, 2\]"),
        (torch.tensor([0.0, 1.001]).expand(1, 1, 8, 2), SEEDS[:1], r"values in \[0, 1\.001\]"),
        *((torch.full((1, 1, 8, 8), torch.nan).to(d), SEEDS[:1], "nan") for d in (torch.float32, torch.bfloat16)),
    ],
)
def test_what_the_deformations_would_spoil_is_refused(batch: Tensor, seeds: Tensor, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        Deformation()(batch, seeds)


@pytest.mark.gpu
def test_the_gpu_deforms_as_the_cpu_does() -> None:
    batch = torch.rand(6, 1, 64, 64, 32)
    for there, here in zip(Deformation()(batch.cuda(), SEEDS), Deformation()(batch, SEEDS), strict=True):
        torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)


def test_samples_are_deformed_as_often_as_they_should() -> None:
    config, ramp = PretextConfig(), ramps(5000, 1, 64)
    mapped = change_intensity(ramp, MANY, config)
    is_mapped = (mapped != ramp).any(dim=(1, 2, 3))
    is_increasing = mapped[is_mapped, 0, 0, -1] > mapped[is_mapped, 0, 0, 0]
    outside, starts, stops, _ = draw_boxes((24, 24, 24), MANY, config)
    painted = outside | (stops > starts).all(dim=2).any(dim=1)
    shuffled = uniform(draw_words(MANY, "shuffle", 1)[:, 0]) < 0.5
    # In-painting stops before its first box one time in twenty.
    shares = {0.9: is_mapped, 0.5: is_increasing, 0.9 * (0.8 + 0.2 * 0.95): painted, 0.9 * 0.8: outside}
    for share, drawn in [*shares.items(), (0.5, shuffled)]:
        assert drawn.float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / len(drawn)) ** 0.5)
    batch = torch.rand(40, 1, 32, 32)
    assert torch.equal((shuffle(batch, MANY[:40], config) != batch).any(dim=(1, 2, 3)), shuffled[:40])


# Flips.


def test_axes_are_reversed_as_often_as_the_coins_say() -> None:
    batch = ramps(5000, 2, 2, 2)
    flipped = flip(batch, MANY, PretextConfig())
    # Along each axis one step from the first voxel tells the direction.
    steps = torch.stack([flipped[:, 0, 1, 0, 0], flipped[:, 0, 0, 1, 0], flipped[:, 0, 0, 0, 1]], dim=1)
    is_reversed = (steps < flipped[:, 0, :1, 0, 0]).float()
    # An odd number of the 0, 1, 2 or 3 flips falls on a given axis.
    odd = [(1 - (1 - 2 / 3) ** flips) / 2 for flips in range(4)]
    expected = sum(share * chance for share, chance in zip((0.6, 0.24, 0.096, 0.064), odd, strict=True))
    assert is_reversed.mean(dim=0).tolist() == pytest.approx([expected] * 3, abs=4 * (0.15 / 5000) ** 0.5)
    for sample, axes, given_ in zip(flipped[:50], is_reversed[:50], batch, strict=False):
        assert torch.equal(sample, given_.flip([axis + 1 for axis in range(3) if axes[axis]]))
    assert torch.equal(flip(batch, MANY, PretextConfig(flip_limit=0)), batch)


# Non-linear intensity.


def test_each_map_is_its_curve_evaluated_densely_and_monotone() -> None:
    ramp, seeds, t = torch.linspace(0, 1, 1000), MANY[:100], np.linspace(0, 1, 100_000)
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    config = PretextConfig(intensity_probability=1)
    mapped = change_intensity(ramp.expand(len(seeds), 1, 1, 1000), seeds, config)[:, 0, 0].numpy()
    draws = uniform(draw_words(seeds, "intensity", 6)).numpy()
    for (_, direction, *control), values in zip(draws, mapped, strict=True):
        points = [np.zeros(2), *np.reshape(control, (2, 2)), np.ones(2)]
        x, y = sum(weight[:, None] * point for weight, point in zip(weights, points, strict=True)).T
        error = np.abs(values - np.interp(ramp.numpy(), x, y if direction < 0.5 else y[::-1]))
        assert np.quantile(error, 0.99) < 1e-5
        assert error.max() < 1e-4  # where a curve is nearly vertical
        assert (np.diff(values) * (1 if direction < 0.5 else -1)).min() > -1e-5


# In- and out-painting.

INSIDE = PretextConfig(painting_probability=1, inpainting_share=1)
OUTSIDE = PretextConfig(painting_probability=1, inpainting_share=0)


@pytest.mark.parametrize(
    ("config", "fewest", "bounds"),
    [(INSIDE, 0, ((10, 21), (6, 13), (4, 9))), (OUTSIDE, 1, ((28, 37), (18, 23), (12, 16)))],
)
def test_boxes_go_on_with_their_probability_keep_off_the_borders_and_have_their_sides(
    config: PretextConfig, fewest: int, bounds: tuple
) -> None:
    shape = torch.tensor((64, 40, 28))
    _, starts, stops, _ = draw_boxes(shape.tolist(), MANY, config)
    used = (stops > starts).all(dim=2)
    shares = torch.bincount(used.sum(dim=1), minlength=6)[fewest:] / len(MANY)
    expected = [0.05 * 0.95**count for count in range(5 - fewest)] + [0.95 ** (5 - fewest)]
    assert shares.tolist() == pytest.approx(expected, abs=4 * 0.0062)
    sides = (stops - starts)[used]
    assert list(zip(sides.amin(dim=0).tolist(), sides.amax(dim=0).tolist(), strict=True)) == list(bounds)
    assert starts[used].amin(dim=0).tolist() == (shape - stops[used]).amin(dim=0).tolist() == [3, 3, 3]


@pytest.mark.parametrize("config", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("fill", ["noise", "constant"])
@pytest.mark.parametrize("shape", [(20, 30, 16), (1, 1), (2, 64), (3, 4, 5)])
def test_the_union_of_the_boxes_or_all_else_is_painted(config: PretextConfig, fill: str, shape: tuple) -> None:
    _, starts, stops, _ = draw_boxes(shape, MANY[:20], config)
    painted = paint(torch.ones(20, 2, *shape), MANY[:20], config.override(painting_fill=fill))  # no fill is 1
    for sample, boxes in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        union = torch.zeros(shape, dtype=torch.bool)
        for start, stop in zip(*boxes, strict=True):
            room = [(a, side - b) for a, b, side in zip(start, stop, shape, strict=True) if b > a]
            assert all(min(ends) >= min(sum(ends) // 2, 3) for ends in room)  # thin axes give up border
            union[tuple(map(slice, start, stop))] = True
        mask = ~union if config is OUTSIDE else union
        assert torch.equal(painted[sample] != 1, mask.expand(2, *shape))
        values = painted[sample, :, mask]
        assert (len(values.unique()) <= 1) if fill == "constant" else len(values.unique()) >= 0.8 * values.numel()


def test_the_noise_is_uniform_and_white() -> None:
    values = paint(-torch.ones(1, 1, 512, 512), MANY[:1], OUTSIDE).flatten()
    painted = values >= 0
    counts = torch.histc(values[painted], 64, 0, 1)
    assert ((counts / counts.mean() - 1) ** 2).sum() * counts.mean() < 63 + 4 * (2 * 63) ** 0.5
    for lag in (1, 2, 32, 2048):
        both = painted[lag:] & painted[:-lag]
        pair = torch.stack([values[lag:][both], values[:-lag][both]])
        assert torch.corrcoef(pair)[0, 1].abs() < 4 / int(both.sum()) ** 0.5
