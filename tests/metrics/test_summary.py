import time

import numpy as np
import pytest

from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.metrics.classification import auc, classification_row
from modelsgenesis.metrics.summary import flat, intervals, mean_ignoring_nan, summarize_rows, weighted_means

NAN = float("nan")


def interval_of_mean(values, patients, resamples=1000, seed=0):
    (ends,) = intervals(lambda weights: weighted_means(values[:, None], weights), patients, resamples, seed)
    return ends


def each_alone(count):
    return [f"p{index}" for index in range(count)]


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    (low, high), error = interval_of_mean(values, each_alone(400), 4000), values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)


def test_the_images_of_a_patient_are_resampled_together():
    values = np.repeat(np.random.default_rng(1).normal(0, 1, 50), 8)
    together = [str(index // 8) for index in range(400)]
    widths = [high - low for low, high in (interval_of_mean(values, who) for who in (together, each_alone(400)))]
    assert widths[0] / widths[1] == pytest.approx(8**0.5, rel=0.15)


def test_each_resample_holds_whole_patients():
    seen = []
    intervals(lambda weights: seen.append(weights) or weights, ["a", "b", "a", "c"], 50)
    weights = np.concatenate(seen)
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_seed_is_the_whole_of_the_randomness_also_in_blocks(monkeypatch):
    values, patients = np.arange(20.0), [str(index // 2) for index in range(20)]
    whole = interval_of_mean(values, patients, seed=3)
    assert interval_of_mean(values, patients, seed=4) != whole
    monkeypatch.setattr("modelsgenesis.metrics.summary._BLOCK", 60)
    assert interval_of_mean(values, patients, seed=3) == whole


def test_one_patient_has_no_interval_and_undefined_resamples_are_left_out():
    assert interval_of_mean(np.ones(3), ["a", "a", "a"]) == (None, None)

    def statistics(weights):
        return np.column_stack([np.where(weights[:, 0] > 0, 1.0, np.nan), weights[:, 0] * np.nan])

    assert intervals(statistics, ["a", "b"], 1000) == [(1, 1), (None, None)]


def test_refuses_nothing_to_resample():
    with pytest.raises(ConfigurationError, match="received 0 cases and 10 resamples"):
        interval_of_mean(np.ones(0), [], 10)


def test_means_leave_out_what_is_undefined():
    means = weighted_means(np.array([[0.5, NAN], [1.0, NAN]]), np.ones((1, 2)))
    assert means[0].tolist() == [0.75, pytest.approx(NAN, nan_ok=True)]
    assert mean_ignoring_nan(means).tolist() == [0.75]


def test_is_quick_enough_for_every_run_of_a_comparison():
    started, values = time.process_time(), np.random.default_rng(0).random((40, 3))
    intervals(lambda weights: weighted_means(values, weights), each_alone(40), 1000)
    assert time.process_time() - started < 2


def test_the_mean_of_a_segmentation_is_over_structures_and_leaves_out_what_is_undefined():
    rows = [
        {"dice a": 0.8, "dice b": NAN, "iou a": 0.7, "iou b": NAN, "hausdorff95 a": 2.0, "hausdorff95 b": NAN},
        {"dice a": 0.6, "dice b": 0.4, "iou a": 0.5, "iou b": 0.3, "hausdorff95 a": NAN, "hausdorff95 b": NAN},
    ]
    rows = [{"patient": patient, **row} for patient, row in zip("pq", rows, strict=True)]
    found = summarize_rows(rows, ["background", "a", "b"], task="segmentation", resamples=200)
    assert found["dice"]["value"] == pytest.approx((0.7 + 0.4) / 2)
    assert found["dice a"] == {"value": pytest.approx(0.7), "low": pytest.approx(0.6), "high": pytest.approx(0.8)}
    assert found["dice b"]["undefined"] == 1
    assert (found["hausdorff95 a"]["value"], found["hausdorff95 a"]["undefined"]) == (2.0, 1)
    assert found["hausdorff95 b"]["value"] is None
    assert "no case has the structure" in found["hausdorff95 b"]["reason"]
    assert "hausdorff95 b" not in flat(found)


def summary_of(probabilities, truth, labels, *, multilabel=False, folds=None, **options):
    rows = [
        {"patient": f"p{case}", **classification_row(np.flatnonzero(held), soft, labels, multilabel=multilabel)}
        for case, (soft, held) in enumerate(zip(probabilities, truth, strict=True))
    ]
    rows = [{**row, "fold": fold} for row, fold in zip(rows, folds, strict=True)] if folds else rows
    return summarize_rows(rows, labels, task="classification", multilabel=multilabel, **options)


def test_two_classes_are_measured_by_the_second():
    random = np.random.default_rng(0)
    truth = random.random(150) < 0.5
    score = np.clip(0.3 * truth + random.random(150) * 0.7, 0, 1)
    found = summary_of(np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["normal", "ill"])
    assert list(found) == ["auc", "average_precision", "sensitivity", "accuracy"]
    assert found["auc"]["value"] == pytest.approx(auc(score, truth))
    assert found["accuracy"]["value"] == ((score > 0.5) == truth).mean()
    for entry in found.values():
        assert entry["low"] < entry["value"] < entry["high"]


def test_several_classes_are_measured_each_against_the_rest():
    random = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 60)]
    probabilities = random.dirichlet(np.ones(3), 60) + 0.2 * truth
    found = summary_of(probabilities, truth, ["a", "b", "c"], resamples=100)
    each = [auc(probabilities[:, index], truth[:, index]) for index in range(3)]
    assert found["auc"]["value"] == pytest.approx(np.mean(each))
    assert [found[f"auc {name}"]["value"] for name in "abc"] == pytest.approx(each)
    assert found["accuracy"]["value"] == (probabilities.argmax(1) == truth.argmax(1)).mean()


def test_scores_of_different_networks_are_not_ranked_together():
    truth = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.8, 0.9])  # each network is right about its own two cases
    pair = np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["a", "b"]
    together = summary_of(*pair, resamples=50)
    apart = summary_of(*pair, folds=[0, 0, 1, 1], resamples=50)
    assert together["auc"]["value"] == 0.75
    assert apart["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert apart["accuracy"]["value"] == together["accuracy"]["value"]


@pytest.mark.parametrize("names", [("a", "b"), ("a; b", "b; c")])
def test_several_labels_a_case(names):
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    probabilities = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.9], [0.2, 0.4]])
    found = summary_of(probabilities, truth, names, multilabel=True, resamples=100)
    assert [found[name]["value"] for name in (f"auc {names[0]}", f"auc {names[1]}", "auc")] == [1, 0.75, 0.875]
    assert found["accuracy"]["value"] == 7 / 8


def test_a_test_set_of_one_class_says_so_and_gives_no_nan():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = summary_of(probabilities, np.array([[True, False]] * 3), ["normal", "ill"], resamples=50)
    assert found["auc"] == {"value": None, "low": None, "high": None, "reason": "all 3 cases are of one class"}
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert list(flat(found)) == ["accuracy"]


def test_a_class_without_a_case_is_left_out_of_the_mean_and_said():
    truth = np.eye(3, dtype=bool)[[0, 1, 0, 1]]
    found = summary_of(np.random.default_rng(0).dirichlet(np.ones(3), 4), truth, ["a", "b", "c"], resamples=50)
    assert found["auc c"]["reason"] == "0 of 4 cases are of this class"
    assert found["auc"]["undefined_classes"] == 1
    assert found["auc"]["value"] is not None


def test_refuses_probabilities_that_are_not_numbers():
    with pytest.raises(ShapeError, match="not finite"):
        summary_of(np.full((2, 2), np.nan), np.eye(2, dtype=bool), ["a", "b"])
