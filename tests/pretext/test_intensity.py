"""The non-linear map of intensities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext import Intensity, draw_seeds
from modelsgenesis.pretext.deformations import Curves

UNIT = st.floats(0, 1, width=32)


def parameters(control: list[list[float]], *, increasing: bool, applied: bool = True) -> Curves:
    return Curves(
        applied=torch.tensor([applied]),
        control=torch.tensor([control]),
        increasing=torch.tensor([increasing]),
    )


RAMP = torch.linspace(0, 1, 1000).view(1, 1, 50, 20)


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("control", [[[0.2, 0.7], [0.6, 0.1]], [[0.9, 0.05], [0.3, 0.95]], [[0.5, 0.5], [0.5, 0.5]]])
def test_it_is_the_curve_evaluated_densely(control: list[list[float]], increasing: bool) -> None:
    t = np.linspace(0, 1, 100_000)
    points = [np.zeros(2), *np.array(control), np.ones(2)]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = sum(weight[:, None] * point for weight, point in zip(weights, points, strict=True)).T
    expected = np.interp(RAMP.numpy(), x, y if increasing else y[::-1])
    deformed = Intensity().apply(RAMP, parameters(control, increasing=increasing))
    assert deformed.numpy() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=50)
@given(control=st.lists(st.lists(UNIT, min_size=2, max_size=2), min_size=2, max_size=2), increasing=st.booleans())
def test_every_map_is_monotone_from_end_to_end(control: list[list[float]], increasing: bool) -> None:
    deformed = Intensity().apply(RAMP, parameters(control, increasing=increasing))
    steps = deformed.flatten().diff() * (1 if increasing else -1)
    assert steps.min() > -1e-5
    assert deformed.min() >= 0
    assert deformed.max() <= 1
    assert deformed.flatten()[[0, -1]].tolist() == pytest.approx([1.0 - increasing, float(increasing)], abs=1e-5)


def test_a_sample_without_a_map_is_kept_exactly() -> None:
    deformed = Intensity().apply(RAMP, parameters([[0.1, 0.9], [0.2, 0.8]], increasing=True, applied=False))
    assert torch.equal(deformed, RAMP)


def test_probabilities_are_kept() -> None:
    drawn = Intensity().draw((8, 8), draw_seeds(10_000, torch.Generator().manual_seed(0)))
    assert drawn.applied.float().mean().item() == pytest.approx(0.9, abs=4 * 0.003)
    assert drawn.increasing.float().mean().item() == pytest.approx(0.5, abs=4 * 0.005)
    assert drawn.control.mean(dim=0).flatten().tolist() == pytest.approx([0.5] * 4, abs=4 * 0.0029)
    assert not Intensity(PretextConfig(intensity_probability=0)).draw((8, 8), draw_seeds(9)).applied.any()
