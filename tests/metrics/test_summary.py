from unittest.mock import ANY

import numpy as np
import pytest
import torch
from monai.metrics.average_precision import compute_average_precision
from monai.metrics.rocauc import compute_roc_auc

from modelsgenesis.errors import RangeError
from modelsgenesis.metrics import classification as ranking
from modelsgenesis.metrics.classification import auc
from modelsgenesis.metrics.summary import flat, summarize_classification, summarize_segmentation

NAN = float("nan")


def cases(count):
    return [f"p{index}" for index in range(count)]


@pytest.mark.parametrize("levels", [3, 1000])
def test_weighted_curves_equal_monai_on_repeated_cases(levels):
    random = np.random.default_rng(levels)
    truth, scores = random.random(30) < 0.4, random.integers(0, levels, 30) / levels
    weights = random.multinomial(30, np.full(30, 1 / 30), size=5)
    found = ranking.curve(scores, truth, weights)
    for row in range(5):
        repeated = np.repeat(np.arange(30), weights[row])
        as_monai = torch.from_numpy(scores[repeated]), torch.from_numpy(truth[repeated].astype(int))
        assert ranking.area(found)[row] == pytest.approx(compute_roc_auc(*as_monai))
        assert ranking.average_precision(found)[row] == pytest.approx(compute_average_precision(*as_monai))


def test_sensitivity_at_a_specificity_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, True, False, False])
    found = ranking.curve(scores, truth, np.ones((1, 6)))
    expected = {1.0: 1 / 3, 0.9: 1 / 3, 0.6: 1.0, 0.0: 1.0}
    assert {at: ranking.sensitivity_at(at)(found)[0] for at in expected} == pytest.approx(expected)


def test_the_mean_of_a_segmentation_is_over_structures_and_leaves_out_what_is_undefined():
    rows = [
        {"dice a": 0.8, "dice b": NAN, "iou a": 0.7, "iou b": NAN, "hausdorff95 a": 2.0, "hausdorff95 b": NAN},
        {"dice a": 0.6, "dice b": 0.4, "iou a": 0.5, "iou b": 0.3, "hausdorff95 a": NAN, "hausdorff95 b": NAN},
    ]
    found = summarize_segmentation(rows, ["background", "a", "b"], cases(2), resamples=200)
    assert found["dice"]["value"] == pytest.approx((0.7 + 0.4) / 2)
    assert found["dice a"] == {"value": pytest.approx(0.7), "low": pytest.approx(0.6), "high": pytest.approx(0.8)}
    assert found["dice b"]["undefined"] == 1
    assert found["dice b"]["undefined_resamples"] > 0
    assert found["hausdorff95 a"]["value"] == 2.0
    assert found["hausdorff95 a"]["undefined"] == 1
    assert found["hausdorff95 b"]["value"] is None
    assert "no case has the structure" in found["hausdorff95 b"]["reason"]
    assert "hausdorff95 b" not in flat(found)


def test_two_classes_are_measured_by_the_second():
    random = np.random.default_rng(0)
    truth = random.random(150) < 0.5
    score = np.clip(0.3 * truth + random.random(150) * 0.7, 0, 1)
    found = summarize_classification(
        np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["normal", "ill"], cases(150)
    )
    assert list(found) == ["auc", "average_precision", "sensitivity", "accuracy"]
    assert found["auc"]["value"] == pytest.approx(auc(score, truth))
    assert found["accuracy"]["value"] == ((score > 0.5) == truth).mean()
    for entry in found.values():
        assert entry["low"] < entry["value"] < entry["high"]


def test_several_classes_are_measured_each_against_the_rest():
    random = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 60)]
    probabilities = random.dirichlet(np.ones(3), 60) + 0.2 * truth
    found = summarize_classification(probabilities, truth, ["a", "b", "c"], cases(60), resamples=100)
    each = [auc(probabilities[:, index], truth[:, index]) for index in range(3)]
    assert found["auc"]["value"] == pytest.approx(np.mean(each))
    assert [found[f"auc {name}"]["value"] for name in "abc"] == pytest.approx(each)
    assert found["accuracy"]["value"] == (probabilities.argmax(1) == truth.argmax(1)).mean()


def test_scores_of_different_networks_are_not_ranked_together():
    truth = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.8, 0.9])  # each network is right about its own two cases
    pair = np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["a", "b"], cases(4)
    together = summarize_classification(*pair, resamples=50)
    apart = summarize_classification(*pair, groups=[0, 0, 1, 1], resamples=50)
    assert together["auc"]["value"] == 0.75
    assert apart["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "undefined_resamples": ANY}
    assert apart["accuracy"]["value"] == together["accuracy"]["value"]


def test_several_labels_a_case():
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    probabilities = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.9], [0.2, 0.4]])
    found = summarize_classification(probabilities, truth, ["a", "b"], cases(4), multilabel=True, resamples=100)
    assert found["auc a"]["value"] == 1
    assert found["auc b"]["value"] == 0.75
    assert found["auc"]["value"] == 0.875
    assert found["accuracy"]["value"] == 7 / 8


def test_a_test_set_of_one_class_says_so_and_gives_no_nan():
    truth = np.array([[True, False]] * 3)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = summarize_classification(probabilities, truth, ["normal", "ill"], cases(3), resamples=50)
    assert found["auc"] == {"value": None, "low": None, "high": None, "reason": "all 3 cases are of one class"}
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert list(flat(found)) == ["accuracy"]


def test_a_class_without_a_case_is_left_out_of_the_mean_and_said():
    truth = np.eye(3, dtype=bool)[[0, 1, 0, 1]]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    found = summarize_classification(probabilities, truth, ["a", "b", "c"], cases(4), resamples=50)
    assert found["auc c"]["reason"] == "0 of 4 cases are of this class"
    assert found["auc"]["undefined_classes"] == 1
    assert found["auc"]["value"] is not None


def test_refuses_what_is_no_number():
    with pytest.raises(RangeError, match="not finite"):
        summarize_classification(np.full((2, 2), np.nan), np.eye(2, dtype=bool), ["a", "b"], cases(2))
