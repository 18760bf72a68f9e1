import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.stats import mannwhitneyu

from modelsgenesis.errors import RangeError, ShapeError
from modelsgenesis.metrics.classification import auc, chosen_classes, classification_row
from modelsgenesis.metrics.segmentation import (
    dice_per_class,
    hausdorff95_per_class,
    mean_ignoring_nan,
    measure_segmentation,
)


def test_dice_and_iou_of_known_overlaps():
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    predicted = np.zeros_like(truth)
    predicted[1:3] = 1
    assert dice_per_class(predicted, truth, 2) == [pytest.approx(0.5)]
    assert measure_segmentation(predicted, truth, ("background", "a"), None)["iou a"] == pytest.approx(1 / 3)
    assert dice_per_class(truth, truth, 2) == [1.0]


def test_dice_of_an_absent_structure_is_undefined_and_left_out_of_the_mean():
    truth = np.array([[0, 1], [0, 1]])
    values = dice_per_class(truth, truth, 3)
    assert values[0] == 1.0
    assert np.isnan(values[1])
    assert mean_ignoring_nan(values) == 1.0
    assert np.isnan(mean_ignoring_nan([np.nan]))


def test_the_distance_is_in_mm_along_each_axis():
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[2:5, 2:5, 2:5] = 1
    for axis, size in enumerate((1.0, 2.0, 3.5)):
        moved = np.roll(truth, 4, axis=axis)
        found = hausdorff95_per_class(moved, truth, 2, spacing=(1.0, 2.0, 3.5))
        assert found == [pytest.approx(4 * size)]
    assert hausdorff95_per_class(truth, truth, 2, (1, 1, 1)) == [0.0]


def test_the_distance_is_the_percentile_of_the_surfaces():
    random = np.random.default_rng(0)
    spacing = (0.7, 1.3)
    truth, predicted = (np.zeros((40, 40), np.uint8) for _ in range(2))
    truth[8:22, 9:25] = 1
    predicted[10:30, 5:20] = 1
    predicted[random.integers(0, 40, 5), random.integers(0, 40, 5)] = 1
    eroded = [distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > 1 for mask in (predicted, truth)]
    edges = [mask.astype(bool) & ~inner for mask, inner in zip((predicted, truth), eroded, strict=True)]
    directed = [
        np.percentile(distance_transform_edt(~theirs, sampling=spacing)[ours], 95)
        for ours, theirs in (edges, edges[::-1])
    ]
    assert hausdorff95_per_class(predicted, truth, 2, spacing) == [pytest.approx(max(directed), rel=1e-5)]


def test_there_is_no_distance_to_nothing():
    truth = np.zeros((6, 6), np.uint8)
    truth[2, 2], truth[4, 4] = 1, 2
    predicted = np.where(truth == 1, 0, truth)  # 1 is missed, 2 is right, 3 is invented
    predicted[0, 0] = 3
    found = measure_segmentation(predicted, truth, ["background", "a", "b", "c"], (1.0, 1.0))
    assert found["dice a"] == 0
    assert np.isnan(found["hausdorff95 a"])
    assert (found["dice b"], found["iou b"], found["hausdorff95 b"]) == (1, 1, 0)
    assert np.isnan([found["dice c"], found["iou c"], found["hausdorff95 c"]]).all()


@pytest.mark.parametrize("metric", [dice_per_class, lambda *a: hausdorff95_per_class(*a, (1, 1))])
def test_refuses_other_shapes(metric):
    with pytest.raises(ShapeError, match=r"prediction of shape \(2, 2\): expected the label's \(3, 2\)"):
        metric(np.zeros((2, 2)), np.zeros((3, 2)), 2)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_auc_is_that_of_the_rank_test_ties_included(levels):
    random = np.random.default_rng(levels)
    truth = random.random(60) < 0.4
    scores = random.integers(0, levels, 60) / levels + 0.2 * truth
    statistic = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert auc(scores, truth) == pytest.approx(statistic / (truth.sum() * (~truth).sum()), abs=1e-12)


def test_an_auc_needs_both_kinds_and_finite_scores():
    scores = np.array([0.1, 0.2])
    for truth in (np.array([True, True]), np.array([False, False])):
        assert np.isnan(auc(scores, truth))
    with pytest.raises(RangeError, match="1 of 2 are not finite; the network diverged"):
        auc(np.array([0.1, np.nan]), np.array([True, False]))


def test_a_half_counts_as_positive_wherever_classes_are_independent():
    assert chosen_classes(np.array([[0.5, 0.5, 0.4]]), multilabel=True).tolist() == [[True, True, False]]
    assert chosen_classes(np.array([[0.5, 0.5, 0.4]]), multilabel=False).tolist() == [[True, False, False]]
    row = classification_row((2,), np.array([0.5, 0.5, 0.4]), ("a", "b", "c"), multilabel=True)
    assert (row["class"], row["predicted"], row["probability c"]) == ("c", "a; b", 0.4)
