"""In- and out-painting."""

import pytest
import torch

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext import Painting, draw_seeds
from modelsgenesis.pretext.deformations import hashed_noise, painted_mask

SEEDS = draw_seeds(5000, torch.Generator().manual_seed(0))
INSIDE = PretextConfig(painting_probability=1, inpainting_share=1)
OUTSIDE = PretextConfig(painting_probability=1, inpainting_share=0)


def test_kinds_are_drawn_as_often_as_they_should() -> None:
    drawn = Painting().draw((24, 24, 24), SEEDS)
    used = (drawn.stops > drawn.starts).all(dim=2).sum(dim=1)
    painted = drawn.outside | (used > 0)
    # In-painting stops before its first box one time in twenty.
    assert painted.float().mean().item() == pytest.approx(0.9 * (0.8 + 0.2 * 0.95), abs=4 * 0.0045)
    assert drawn.outside.float().mean().item() == pytest.approx(0.9 * 0.8, abs=4 * 0.0064)


@pytest.mark.parametrize(("config", "fewest"), [(INSIDE, 0), (OUTSIDE, 1)])
def test_boxes_go_on_with_their_probability(config: PretextConfig, fewest: int) -> None:
    drawn = Painting(config).draw((24, 24), SEEDS)
    used = (drawn.stops > drawn.starts).all(dim=2).sum(dim=1)
    coins = 5 - fewest
    expected = [0.05 * 0.95**count for count in range(coins)] + [0.95**coins]
    shares = torch.bincount(used, minlength=6)[fewest:] / len(SEEDS)
    assert shares.tolist() == pytest.approx(expected, abs=4 * 0.0062)


@pytest.mark.parametrize("config", [INSIDE, OUTSIDE])
def test_boxes_keep_off_the_borders_and_have_their_sides(config: PretextConfig) -> None:
    drawn = Painting(config).draw((64, 40, 28), SEEDS)
    used = (drawn.stops > drawn.starts).all(dim=2)
    starts, sides = drawn.starts[used], (drawn.stops - drawn.starts)[used]
    room = torch.tensor((64, 40, 28)) - drawn.stops[used]
    bounds = ((10, 21), (6, 13), (4, 9)) if config is INSIDE else ((28, 37), (18, 23), (12, 16))
    for axis, (low, high) in enumerate(bounds):
        assert (sides[:, axis].min(), sides[:, axis].max()) == (low, high)
    assert starts.amin(dim=0).tolist() == [3, 3, 3]
    assert room.amin(dim=0).tolist() == [3, 3, 3]


@pytest.mark.parametrize("config", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (64, 64), (48, 48, 12), (32, 32, 8), (3, 4, 5)])
def test_thin_axes_give_up_border_but_keep_boxes_inside(config: PretextConfig, shape: tuple[int, ...]) -> None:
    drawn = Painting(config).draw(shape, SEEDS[:500])
    assert (drawn.starts >= 0).all()
    assert (drawn.stops <= torch.tensor(shape)).all()
    used = (drawn.stops > drawn.starts).all(dim=2)
    before, after = drawn.starts[used], torch.tensor(shape) - drawn.stops[used]
    assert (torch.minimum(before, after) >= torch.minimum((before + after) // 2, torch.tensor(3))).all()


@pytest.mark.parametrize("config", [INSIDE, OUTSIDE])
def test_the_mask_is_the_union_of_the_boxes_or_all_else(config: PretextConfig) -> None:
    drawn = Painting(config).draw((20, 30, 16), SEEDS[:20])
    mask = painted_mask(drawn, (20, 30, 16))
    for sample in range(20):
        union = torch.zeros(20, 30, 16, dtype=torch.bool)
        for start, stop in zip(drawn.starts[sample].tolist(), drawn.stops[sample].tolist(), strict=True):
            union[tuple(slice(*ends) for ends in zip(start, stop, strict=True))] = True
        assert torch.equal(mask[sample], ~union if config is OUTSIDE else union)


def test_painted_voxels_are_noise_and_the_others_stay() -> None:
    batch = torch.rand(4, 2, 32, 32, 16)
    painting = Painting(OUTSIDE)
    drawn = painting.draw((32, 32, 16), SEEDS[:4])
    deformed = painting.apply(batch, drawn)
    mask = painted_mask(drawn, batch.shape[2:])[:, None].expand_as(batch)
    assert torch.equal(deformed[~mask], batch[~mask])
    fill = deformed[mask]
    assert fill.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / len(fill)) ** 0.5)
    assert fill.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_a_constant_fills_a_sample_when_asked() -> None:
    painting = Painting(OUTSIDE.override(painting_fill="constant"))
    drawn = painting.draw((32, 32), SEEDS[:50])
    deformed = painting.apply(torch.rand(50, 2, 32, 32), drawn)
    constants = [sample[:, mask].unique() for sample, mask in zip(deformed, painted_mask(drawn, (32, 32)), strict=True)]
    assert all(len(values) == 1 for values in constants)
    assert len(torch.cat(constants).unique()) == 50


def test_noise_is_uniform_white_and_pinned() -> None:
    values = hashed_noise(torch.tensor([7, 8]), 2**17 + 1)
    assert values.shape == (2, 2**17 + 1)
    assert values[0, :3].tolist() == [0.18267822265625, 0.5968170166015625, 0.6943511962890625]
    counts = torch.histc(values, 64, 0, 1)
    expected = values.numel() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 4 * (2 * 63) ** 0.5
    lags = [torch.stack([values[0, :-lag], values[0, lag:]]) for lag in (1, 2, 32, 2048)]
    for pair in [*lags, values]:
        assert torch.corrcoef(pair)[0, 1].abs() < 4 / 2**8.5
