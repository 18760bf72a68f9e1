import time

import numpy as np
import pytest

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.metrics.summary import interval, intervals, mean_of_columns, weighted_means


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    found = interval(mean_of(values), [str(index) for index in range(400)], 4000)
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)


def test_the_images_of_a_patient_are_resampled_together():
    values = np.repeat(np.random.default_rng(1).normal(0, 1, 50), 8)
    together = [str(index // 8) for index in range(400)]
    apart = [str(index) for index in range(400)]
    widths = []
    for patients in (together, apart):
        found = interval(mean_of(values), patients, 2000)
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(8**0.5, rel=0.15)


def test_each_resample_holds_whole_patients():
    seen = []
    patients = ["a", "b", "a", "c"]

    def statistic(weights):
        seen.append(weights)
        return weights.sum(axis=1)

    interval(statistic, patients, 50)
    weights = np.concatenate(seen)
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_seed_is_the_whole_of_the_randomness():
    values, patients = np.arange(10.0), [str(index) for index in range(10)]
    assert interval(mean_of(values), patients, seed=3) == interval(mean_of(values), patients, seed=3)
    assert interval(mean_of(values), patients, seed=3) != interval(mean_of(values), patients, seed=4)


def test_many_cases_go_through_in_blocks_and_give_the_same(monkeypatch):
    values, patients = np.arange(20.0), [str(index // 2) for index in range(20)]
    whole = interval(mean_of(values), patients, 100)
    monkeypatch.setattr("modelsgenesis.metrics.summary._BLOCK", 60)
    assert interval(mean_of(values), patients, 100) == whole


def test_one_patient_has_no_interval_and_undefined_resamples_are_counted():
    assert interval(mean_of(np.ones(3)), ["a", "a", "a"]).low is None

    def statistics(weights):
        return np.column_stack([np.where(weights[:, 0] > 0, 1.0, np.nan), weights[:, 0] * np.nan])

    half = intervals(statistics, ["a", "b"], 1000)
    assert (half[0].low, half[0].high) == (1, 1)
    assert half[0].undefined == pytest.approx(250, abs=50)
    assert (half[1].low, half[1].high, half[1].undefined) == (None, None, 1000)


def test_refuses_nothing_to_resample():
    with pytest.raises(ConfigurationError, match="received 0 cases and 10 resamples, expected at least one of each"):
        interval(mean_of(np.ones(0)), [], 10)


def test_means_leave_out_what_is_undefined():
    values = np.array([[0.5, np.nan], [1.0, np.nan]])
    means = weighted_means(values, np.ones((1, 2)))
    assert means[0, 0] == 0.75
    assert np.isnan(means[0, 1])
    assert mean_of_columns(means).tolist() == [0.75]


def test_is_quick_enough_for_every_run_of_a_comparison():
    random = np.random.default_rng(0)
    started = time.process_time()
    values = random.random((40, 3))
    intervals(lambda weights: weighted_means(values, weights), [str(index) for index in range(40)], 1000)
    assert time.process_time() - started < 2
