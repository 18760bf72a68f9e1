"""Metrics by hand and against MONAI and SciPy, intervals against theory, and the summary of rows."""

import numpy as np
import pytest
import torch
from monai.metrics.average_precision import compute_average_precision
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.rocauc import compute_roc_auc
from scipy.ndimage import distance_transform_edt
from scipy.stats import mannwhitneyu

from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.metrics import measures

NAN = float("nan")

# --- segmentation -------------------------------------------------------------------------------------------------


def measured(predicted, truth, spacing=None, labels=("background", "a")):
    return measures.measure_segmentation(predicted, truth, labels, spacing)


def test_dice_and_iou_by_hand_and_by_monai():
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    assert measured(np.roll(truth, 1, axis=0), truth) == {"dice a": 0.5, "iou a": pytest.approx(1 / 3)}
    predicted, truth = np.random.default_rng(0).integers(0, 4, (2, 9, 8, 7))
    one_hot = (torch.from_numpy(labels == np.arange(4)[:, None, None, None])[None] for labels in (predicted, truth))
    expected = compute_dice(*one_hot, include_background=False)[0]
    found = measured(predicted, truth, labels=("background", *"abc"))
    torch.testing.assert_close(torch.tensor([found[f"dice {name}"] for name in "abc"]), expected)
    with pytest.raises(ShapeError, match=r"prediction of shape \(2, 2\).* \(3, 2\)"):
        measured(np.zeros((2, 2)), np.zeros((3, 2)))


def test_the_distance_is_the_percentile_of_the_surfaces():
    random, spacing = np.random.default_rng(0), (0.7, 1.3)
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[8:22, 9:25] = 1
    predicted[10:30, 5:20] = 1
    predicted[random.integers(0, 40, 5), random.integers(0, 40, 5)] = 1
    eroded = [distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > 1 for mask in (predicted, truth)]
    edges = [mask.astype(bool) & ~inner for mask, inner in zip((predicted, truth), eroded, strict=True)]
    directed = [
        np.percentile(distance_transform_edt(~theirs, sampling=spacing)[ours], 95)
        for ours, theirs in (edges, edges[::-1])
    ]
    assert measured(predicted, truth, spacing)["hausdorff95 a"] == pytest.approx(max(directed), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")
@pytest.mark.parametrize("shape", [(24, 30), (9, 12, 10), (5, 1, 7)])
def test_the_distance_is_that_of_monai(shape):
    random, spacing = np.random.default_rng(1), [1.5, 2.0, 0.7][: len(shape)]
    predicted, truth = (random.random(shape) > 0.9 for _ in range(2))
    masks = (torch.from_numpy(mask)[None, None] for mask in (predicted, truth))
    expected = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing)
    assert measured(predicted * 1, truth * 1, spacing)["hausdorff95 a"] == pytest.approx(float(expected), rel=1e-5)


def test_what_is_absent_has_no_dice_and_no_distance():
    truth = np.zeros((6, 6), np.uint8)
    truth[2, 2], truth[4, 4] = 1, 2
    predicted = np.where(truth == 1, 0, truth)  # a is missed, b is right, c is invented
    predicted[0, 0] = 3
    found = measured(predicted, truth, (1.0, 1.0), ["background", "a", "b", "c"])
    assert found["dice a"] == 0
    assert (found["dice b"], found["iou b"], found["hausdorff95 b"]) == (1, 1, 0)
    assert np.isnan([found["hausdorff95 a"], found["dice c"], found["iou c"], found["hausdorff95 c"]]).all()


# --- classification -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, with hardly any
def test_ranking_metrics_are_those_of_monai_and_of_the_rank_test(levels):
    random = np.random.default_rng(levels)
    truth, scores = random.random(30) < 0.4, random.integers(0, levels, 30) / levels
    statistic = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert measures.auc(scores, truth) == pytest.approx(statistic / (truth.sum() * (~truth).sum()), abs=1e-12)
    weights = random.multinomial(30, np.full(30, 1 / 30), size=5)
    for row, (area, precision, _) in zip(weights, measures.rank(scores, truth, weights), strict=True):
        repeated = np.repeat(np.arange(30), row)
        as_monai = torch.from_numpy(scores[repeated]), torch.from_numpy(truth[repeated].astype(int))
        assert area == pytest.approx(compute_roc_auc(*as_monai))
        assert precision == pytest.approx(compute_average_precision(*as_monai))


@pytest.mark.parametrize(("specificity", "sensitivity"), [(1.0, 1 / 3), (0.9, 1 / 3), (0.6, 1.0), (0.0, 1.0)])
def test_sensitivity_at_a_specificity_by_hand(specificity, sensitivity):
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, True, False, False])
    assert measures.rank(scores, truth, np.ones((1, 6)), specificity)[0, 2] == pytest.approx(sensitivity)


def test_ranking_needs_both_kinds_and_finite_scores():
    for truth in (np.array([True, True]), np.array([False, False])):
        assert np.isnan(measures.rank(np.array([0.1, 0.2]), truth, np.ones((1, 2)))).all()
    with pytest.raises(ShapeError, match="1 of 2 are not finite"):
        measures.auc(np.array([0.1, np.nan]), np.array([True, False]))


# --- intervals ----------------------------------------------------------------------------------------------------


def interval_of_mean(values, patients, *draws):
    return measures.intervals(lambda weights: measures.weighted_means(values[:, None], weights), patients, *draws)[0]


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    (low, high), error = interval_of_mean(values, range(400), 4000), values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)


def test_the_images_of_a_patient_are_resampled_together():
    seen = []
    measures.intervals(lambda weights: seen.append(weights) or weights, ["a", "b", "a", "c"], 50)
    weights = np.concatenate(seen)
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_seed_is_the_whole_of_the_randomness_also_in_blocks(monkeypatch):
    values, patients = np.arange(20.0), [str(index // 2) for index in range(20)]
    whole = interval_of_mean(values, patients, 1000, 3)
    assert interval_of_mean(values, patients, 1000, 4) != whole
    monkeypatch.setattr("modelsgenesis.metrics.measures._BLOCK", 60)
    assert interval_of_mean(values, patients, 1000, 3) == whole


def test_one_patient_has_no_interval_and_undefined_resamples_are_left_out():
    assert interval_of_mean(np.ones(3), ["a", "a", "a"]) == (None, None)

    def statistics(weights):
        return np.column_stack([np.where(weights[:, 0] > 0, 1.0, np.nan), weights[:, 0] * np.nan])

    assert measures.intervals(statistics, ["a", "b"], 1000) == [(1, 1), (None, None)]
    with pytest.raises(ConfigurationError, match="received 0 resamples"):
        interval_of_mean(np.ones(1), ["a"], 0)


# --- summaries ----------------------------------------------------------------------------------------------------


def test_the_mean_of_a_segmentation_is_over_structures_and_leaves_out_what_is_undefined():
    rows = [
        {"dice a": 0.8, "dice b": NAN, "iou a": 0.7, "iou b": NAN, "hausdorff95 a": 2.0, "hausdorff95 b": NAN},
        {"dice a": 0.6, "dice b": 0.4, "iou a": 0.5, "iou b": 0.3, "hausdorff95 a": NAN, "hausdorff95 b": NAN},
    ]
    rows = [{"patient": patient, **row} for patient, row in zip("pq", rows, strict=True)]
    found = measures.summarize_rows(rows, ["background", "a", "b"], task="segmentation", resamples=200)
    assert found["dice"]["value"] == pytest.approx((0.7 + 0.4) / 2)
    assert found["dice a"] == {"value": pytest.approx(0.7), "low": pytest.approx(0.6), "high": pytest.approx(0.8)}
    assert found["dice b"]["undefined"] == 1
    assert (found["hausdorff95 a"]["value"], found["hausdorff95 a"]["undefined"]) == (2.0, 1)
    assert found["hausdorff95 b"]["value"] is None
    assert "no case has the structure" in found["hausdorff95 b"]["reason"]
    assert "hausdorff95 b" not in measures.flat(found)
    assert [line.partition(":")[0] for line in measures.explanations(found)][:2] == ["Dice of b", "IoU of b"]


def summary_of(probabilities, truth, labels, *, multilabel=False, folds=None, **options):
    rows = []
    for case, (soft, held) in enumerate(zip(probabilities, truth, strict=True)):
        row = measures.classification_row(np.flatnonzero(held), soft, labels, multilabel=multilabel)
        rows.append({"patient": f"p{case}", **row})
    rows = [{**row, "fold": fold} for row, fold in zip(rows, folds, strict=True)] if folds else rows
    return measures.summarize_rows(rows, labels, task="classification", multilabel=multilabel, **options)


def test_two_classes_are_measured_by_the_second():
    random = np.random.default_rng(0)
    truth = random.random(150) < 0.5
    score = np.clip(0.3 * truth + random.random(150) * 0.7, 0, 1)
    found = summary_of(np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["normal", "ill"])
    assert list(found) == ["auc", "average_precision", "sensitivity", "accuracy"]
    assert found["auc"]["value"] == pytest.approx(measures.auc(score, truth))
    assert found["accuracy"]["value"] == ((score > 0.5) == truth).mean()
    for entry in found.values():
        assert entry["low"] < entry["value"] < entry["high"]


def test_several_classes_are_measured_each_against_the_rest():
    random = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 60)]
    probabilities = random.dirichlet(np.ones(3), 60) + 0.2 * truth
    found = summary_of(probabilities, truth, ["a", "b", "c"], resamples=100)
    each = [measures.auc(probabilities[:, index], truth[:, index]) for index in range(3)]
    assert [found[f"auc {name}"]["value"] for name in "abc"] == pytest.approx(each)
    assert found["auc"]["value"] == pytest.approx(np.mean(each))


def test_scores_of_different_networks_are_not_ranked_together():
    truth = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.8, 0.9])  # each network is right about its own two cases
    pair = np.stack([1 - score, score], 1), np.stack([~truth, truth], 1), ["a", "b"]
    together = summary_of(*pair, resamples=50)
    apart = summary_of(*pair, folds=[0, 0, 1, 1], resamples=50)
    assert (together["auc"]["value"], apart["auc"]) == (0.75, {"value": 1.0, "low": 1.0, "high": 1.0})


@pytest.mark.parametrize("names", [("a", "b"), ("a; b", "b; c")])
def test_several_labels_a_case(names):
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    probabilities = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.9], [0.2, 0.4]])
    found = summary_of(probabilities, truth, names, multilabel=True, resamples=100)
    assert [found[name]["value"] for name in (f"auc {names[0]}", f"auc {names[1]}", "auc")] == [1, 0.75, 0.875]
    assert found["accuracy"]["value"] == 7 / 8


def test_classes_that_no_case_or_every_case_has():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = summary_of(probabilities, np.array([[True, False]] * 3), ["normal", "ill"], resamples=50)
    assert found["auc"] == {"value": None, "low": None, "high": None, "reason": "all 3 cases are of one class"}
    assert measures.flat(found) == {"accuracy": pytest.approx(2 / 3)}

    truth = np.eye(3, dtype=bool)[[0, 1, 0, 1]]
    found = summary_of(np.random.default_rng(0).dirichlet(np.ones(3), 4), truth, ["a", "b", "c"], resamples=50)
    assert found["auc c"]["reason"] == "0 of 4 cases are of this class"
    assert found["auc"]["undefined_classes"] == 1
    assert found["auc"]["value"] is not None
    assert np.isnan(measures.mean_ignoring_nan([NAN]))
