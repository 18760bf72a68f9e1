"""Implants: how many, how large, how grey; and that nothing else is touched."""

import pytest
import torch

from modelsgenesis.configs import SCHEMES, PretextConfig
from modelsgenesis.pretext import Deformation, draw_seeds
from modelsgenesis.pretext.implants import implant

PLANES = [0.016362, 0.025494, 0.022085, 0.03244]
VOLUMES = [0.001707, 0.000445, 0.001784, 0.003759]
ALWAYS = PretextConfig(implant_probability=1)
SEEDS = draw_seeds(200, torch.Generator().manual_seed(0))


def test_no_recipe_of_the_paper_has_them() -> None:
    batch = torch.rand(4, 1, 24, 24)
    assert implant(batch, SEEDS[:4], SCHEMES["V"]) is batch


def test_as_many_samples_have_them_as_asked_and_the_others_stay() -> None:
    batch = torch.rand(200, 1, 32, 32)
    implanted = implant(batch, SEEDS, PretextConfig(implant_probability=0.5))
    changed = (implanted != batch).flatten(1).any(dim=1)
    assert 70 < changed.sum() < 130
    assert torch.equal(implanted[changed], implant(batch[changed], SEEDS[changed], ALWAYS))


@pytest.mark.parametrize("shape", [(64, 64), (48, 64, 40), (5, 4), (1, 1, 1)])
def test_they_are_a_small_part_of_a_patch_and_their_grey_values_any(shape: tuple[int, ...]) -> None:
    black, white = (implant(torch.full((60, 2, *shape), value), SEEDS[:60], ALWAYS) for value in (0.0, 1.0))
    assert 0 <= black.min() <= white.max() <= 1
    cover = 1 - (white - black)  # opacity at each voxel: what is left of the difference shines through
    torch.testing.assert_close(cover[:, 0], cover[:, 1])  # channels lie at the same voxels
    if min(shape) > 30:
        share = (cover[:, 0] > 0.01).float().mean().item()
        assert 0.05 < share < 0.25 if len(shape) == 2 else 0.01 < share < 0.1
        opaque = black[:, 0][cover[:, 0] > 0.95] / cover[:, 0][cover[:, 0] > 0.95]
        assert opaque.std() > 0.2  # uniform in 0 to 1 has 0.29
        assert (black[:, 0] != black[:, 1]).any()


def test_one_alone_is_an_ellipsoid_with_a_soft_border() -> None:
    """Along a line through its middle it rises over a few voxels, stays, and falls."""
    black, white = (implant(torch.full((200, 1, 96, 96), value), SEEDS, ALWAYS) for value in (0.0, 1.0))
    cover = 1 - (white - black)[:, 0]
    single = [one for one in cover if (one > 0).float().mean() < 0.01 and one.max() > 0.3]
    assert len(single) > 5
    for one in single:
        highest = one.flatten().argmax().item()
        line = one[highest // 96]
        top = int(line.argmax())
        assert (line[: top + 1].diff() >= -1e-5).all()
        assert (line[top:].diff() <= 1e-5).all()


@pytest.mark.parametrize("shape", [(40, 30), (24, 32, 16)])
def test_a_sample_does_not_depend_on_its_batch_and_its_values_are_pinned(shape: tuple[int, ...]) -> None:
    batch = torch.linspace(0, 1, torch.Size(shape).numel()).view(1, 1, *shape).repeat(4, 1, *(1 for _ in shape))
    deform = Deformation(SCHEMES["VI"])
    deformed, target = deform(batch, torch.arange(4))
    assert torch.equal(deform(batch[2:3], torch.tensor([2]))[0], deformed[2:3])
    assert torch.equal(target.flatten().sort().values, batch.flatten().sort().values)
    expected = {2: PLANES, 3: VOLUMES}[len(shape)]
    assert [(one - other).abs().mean().item() for one, other in zip(deformed, target, strict=True)] == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.gpu
def test_the_gpu_implants_as_the_cpu_does() -> None:
    batch = torch.rand(6, 1, 64, 64, 32)
    there = implant(batch.cuda(), SEEDS[:6], ALWAYS)
    torch.testing.assert_close(there.cpu(), implant(batch, SEEDS[:6], ALWAYS), atol=1e-5, rtol=0)
