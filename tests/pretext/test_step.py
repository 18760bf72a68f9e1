"""What is checked before a deformation."""

import pytest
import torch

from modelsgenesis.errors import RangeError, ShapeError
from modelsgenesis.pretext import Deformation, Flip, Intensity, Painting, Shuffling, draw_seeds

STEPS = [Deformation, Flip, Shuffling, Intensity, Painting]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("low", "high"), [(-3.0, 2.0), (0.0, 1.001), (-0.001, 1.0)])
def test_values_outside_the_range_are_refused_by_name(step: type, low: float, high: float) -> None:
    batch = torch.tensor([low, high]).expand(1, 1, 8, 2)
    message = rf"values in \[{low:g}, {high:g}\]: the deformations assume \[0, 1\]; prepare scans by"
    with pytest.raises(RangeError, match=message):
        step()(batch, draw_seeds(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_is_refused(dtype: torch.dtype) -> None:
    batch = torch.rand(2, 1, 8, 8)
    batch[1, 0, 3, 3] = torch.nan
    with pytest.raises(RangeError, match=r"values in \[nan, nan\]"):
        Deformation()(batch.to(dtype), draw_seeds(2))


@pytest.mark.parametrize("shape", [(8, 8, 8), (8,), (1, 1, 8, 8, 8, 8), (1, 1, 0, 8), (0, 1, 8, 8)])
def test_a_batch_of_another_number_of_axes_or_an_empty_one_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"batch of shape .*: expected \[batch, channels, \*spatial\].*batch\[None\]"):
        Deformation()(torch.rand(shape), draw_seeds(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int16])
def test_a_batch_of_another_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ShapeError, match=r"batch of torch\..*: expected float32 or bfloat16; convert it"):
        Deformation()(torch.zeros(1, 1, 8, 8, dtype=dtype), draw_seeds(1))


def test_seeds_must_be_one_for_each_sample() -> None:
    with pytest.raises(ShapeError, match="received 1 for a batch of 2, expected one per sample"):
        Deformation()(torch.rand(2, 1, 8, 8), draw_seeds(1))
