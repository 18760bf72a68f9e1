"""Between grids of one field of view."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.data.preparation import interpolate, nearest, resampled_shape, source_positions


def test_a_linear_ramp_stays_one() -> None:
    ramp = np.arange(10, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    for length, step in [(20, 0.5), (5, 2.0), (7, 10 / 7)]:
        result = interpolate(ramp, (length, 3), (step, 1.0))[:, 0]
        inside = slice(2, -2)  # at the border the nearest voxels count
        np.testing.assert_allclose(result[inside], source_positions(10, length, step)[inside], atol=1e-2)


def test_shrinking_averages_what_a_voxel_covers() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), 16)[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(interpolate(stripes, (8, 2), (4.0, 1.0))[1:-1], 0.5, atol=1e-6)


def test_channels_come_first() -> None:
    array = np.random.default_rng(0).random((2, 4, 6)).astype(np.float32)
    both = interpolate(array, (8, 3), (0.5, 2.0))
    assert both.shape == (2, 8, 3)
    np.testing.assert_allclose(both[1], interpolate(array[1], (8, 3), (0.5, 2.0)), atol=1e-6)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    steps=st.tuples(*[st.floats(0.2, 5)] * 3),
    seed=st.integers(0, 99),
)
def test_values_stay_in_their_range(shape: tuple, steps: tuple, seed: int) -> None:
    array = np.random.default_rng(seed).random(shape).astype(np.float32)
    new = resampled_shape(shape, (1.0,) * 3, steps)
    result = interpolate(array, new, steps)
    assert result.shape == new
    assert array.min() - 1e-6 <= result.min() <= result.max() <= array.max() + 1e-6
    assert np.isin(nearest(array, new, steps), array).all()
    np.testing.assert_array_equal(interpolate(array, shape, (1.0,) * 3), array)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_labels_survive_a_whole_factor(factor: int) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (4, 5, 6))
    larger = nearest(labels, tuple(side * factor for side in labels.shape), (1 / factor,) * 3)
    np.testing.assert_array_equal(nearest(larger, labels.shape, (float(factor),) * 3), labels)
