"""The whole deformation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelsgenesis.configs import SCHEMES, PretextConfig, scheme
from modelsgenesis.pretext import Deformation, draw_seeds

SEEDS = draw_seeds(6, torch.Generator().manual_seed(1))
THREE_DIMENSIONS = [0.448809, 0.290552, 0.511643, 0.279063, 0.430377, 0.274986, 0.528536, 0.276807]
TWO_DIMENSIONS = [0.412943, 0.288227, 0.502396, 0.276887, 0.385424, 0.252203, 0.547815, 0.284909]


def ramps(count: int, *shape: int) -> Tensor:
    """Images whose every voxel has a value of its own: [count, 1, *shape]."""
    return torch.linspace(0, 1, torch.Size(shape).numel()).view(1, 1, *shape).repeat(count, 1, *(1 for _ in shape))


def moments(batch: Tensor) -> list[float]:
    """Mean and standard deviation of each sample in turn."""
    return [moment.item() for sample in batch for moment in (sample.mean(), sample.std())]


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 8), (48, 48, 12)])
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


def test_a_batch_beyond_the_cache_comes_out_the_same_as_its_samples() -> None:
    batch = torch.rand(3, 1, 96, 96, 64)
    deform = Deformation(PretextConfig(shuffle_probability=1))
    whole, target = deform(batch, SEEDS[:3])
    for index in range(3):
        deformed, original = deform(batch[index, None], SEEDS[index, None])
        assert torch.equal(deformed[0], whole[index])
        assert torch.equal(original[0], target[index])


def test_the_layout_in_memory_does_not_matter() -> None:
    batch = torch.rand(6, 2, 32, 32, 16)
    deform = Deformation()
    plain = deform(batch, SEEDS)
    for strided in (batch.to(memory_format=torch.channels_last_3d), batch.mT.contiguous().mT):
        assert not strided.is_contiguous()
        for deformed, expected in zip(deform(strided, SEEDS), plain, strict=True):
            assert torch.equal(deformed, expected)


def test_the_steps_follow_one_another_and_the_batch_is_left_alone() -> None:
    batch = ramps(6, 32, 32, 16)
    before, deform = batch.clone(), Deformation()
    expected = target = deform.flip(batch, SEEDS)
    for step in deform.steps:
        expected = step(expected, SEEDS)
    deformed, flipped = deform(batch, SEEDS)
    assert torch.equal(deformed, expected)
    assert torch.equal(flipped, target)
    assert torch.equal(batch, before)


def test_the_deformations_of_four_seeds_are_pinned() -> None:
    deformed, _ = Deformation()(ramps(4, 32, 32, 16), torch.arange(4))
    assert moments(deformed) == pytest.approx(THREE_DIMENSIONS, abs=1e-5)
    deformed, _ = Deformation()(ramps(4, 40, 30), torch.arange(4))
    assert moments(deformed) == pytest.approx(TWO_DIMENSIONS, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(1, 24), min_size=2, max_size=3), seed=st.integers(-(2**63), 2**63 - 1))
def test_any_shape_and_seed_stays_in_range(shape: list[int], seed: int) -> None:
    batch = torch.rand(1, 1, *shape)
    for config in (PretextConfig(shuffle_windows=20, shuffle_fraction=3), scheme("III"), scheme("IV")):
        deformed, target = Deformation(config)(batch, torch.tensor([seed]))
        assert deformed.shape == target.shape == batch.shape
        assert deformed.min() >= 0
        assert deformed.max() <= 1
        assert torch.equal(target.flatten().sort().values, batch.flatten().sort().values)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_does_its_deformations_only(name: str) -> None:
    config = scheme(name)
    seeds = draw_seeds(60, torch.Generator().manual_seed(0))
    deform = Deformation(config)
    windows, curves, boxes = (step.draw((24, 24), seeds) for step in deform.steps)
    painted = boxes.outside | (boxes.stops > boxes.starts).any(dim=(1, 2))
    assert deform.flip.draw((24, 24), seeds).any()
    assert windows.applied.any() == (config.shuffle_probability > 0)
    assert curves.applied.any() == (config.intensity_probability > 0)
    assert painted.any() == (config.painting_probability > 0)
    assert boxes.outside.any() == (config.painting_probability > 0 and config.inpainting_share < 1)


def test_the_identity_scheme_returns_its_target() -> None:
    deformed, target = Deformation(scheme("identity"))(torch.rand(6, 1, 24, 24), SEEDS)
    assert torch.equal(deformed, target)


def test_a_batch_that_wants_gradients_is_deformed_without() -> None:
    deformed, target = Deformation()(torch.rand(2, 1, 24, 24, requires_grad=True), SEEDS[:2])
    assert not deformed.requires_grad
    assert not target.requires_grad


@pytest.mark.gpu
def test_the_gpu_deforms_as_the_cpu_does() -> None:
    batch = torch.rand(6, 1, 64, 64, 32)
    for there, here in zip(Deformation()(batch.cuda(), SEEDS), Deformation()(batch, SEEDS), strict=True):
        torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)
