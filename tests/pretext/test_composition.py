"""The whole deformation."""

import pytest
import torch

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import RangeError, ShapeError
from modelsgenesis.pretext import Deformation, draw_seeds


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 8), (48, 48, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_split_of_a_batch_gives_the_same_deformation(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    batch = torch.rand(6, 2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    seeds = draw_seeds(6, torch.Generator().manual_seed(1))
    deform = Deformation(PretextConfig(shuffle_windows=500))
    whole, target = deform(batch, seeds)
    assert whole.dtype == dtype
    assert not torch.equal(whole, target)
    for order in ([0, 1], [5, 2, 3], [4]):
        part, part_target = deform(batch[order], seeds[order])
        assert torch.equal(part, whole[order])
        assert torch.equal(part_target, target[order])


def test_bad_batches_are_refused() -> None:
    deform, seeds = Deformation(), draw_seeds(1)
    with pytest.raises(RangeError, match=r"values in \[-3, 2\]: the deformations assume \[0, 1\]"):
        deform(torch.tensor([-3.0, 2.0]).expand(1, 1, 8, 2), seeds)
    with pytest.raises(RangeError, match="nan"):
        deform(torch.full((1, 1, 8, 8), torch.nan), seeds)
    with pytest.raises(ShapeError, match=r"batch of shape \(8, 8, 8\): expected \[batch, channels"):
        deform(torch.rand(8, 8, 8), seeds)
    with pytest.raises(ShapeError, match="received 1 for a batch of 2"):
        deform(torch.rand(2, 1, 8, 8), seeds)
