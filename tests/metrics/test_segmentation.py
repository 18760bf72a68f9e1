import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from scipy.ndimage import distance_transform_edt

from modelsgenesis.errors import ShapeError
from modelsgenesis.metrics.segmentation import dice_per_class, measure_segmentation
from modelsgenesis.metrics.summary import mean_ignoring_nan


def distance(predicted, truth, spacing):
    return measure_segmentation(predicted, truth, ("background", "a"), spacing)["hausdorff95 a"]


def test_dice_and_iou_of_known_overlaps():
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    predicted = np.roll(truth, 1, axis=0)
    found = measure_segmentation(predicted, truth, ("background", "a"), None)
    assert found == {"dice a": 0.5, "iou a": pytest.approx(1 / 3)}


def test_dice_is_that_of_monai():
    predicted, truth = np.random.default_rng(0).integers(0, 4, (2, 9, 8, 7))
    one_hot = (torch.from_numpy(labels == np.arange(4)[:, None, None, None])[None] for labels in (predicted, truth))
    expected = compute_dice(*one_hot, include_background=False)[0]
    torch.testing.assert_close(torch.tensor(dice_per_class(predicted, truth, 4)), expected)


def test_dice_of_an_absent_structure_is_undefined_and_left_out_of_the_mean():
    truth = np.array([[0, 1], [0, 1]])
    values = dice_per_class(truth, truth, 3)
    assert values == [1, pytest.approx(np.nan, nan_ok=True)]
    assert mean_ignoring_nan(values) == 1
    assert np.isnan(mean_ignoring_nan([np.nan]))


def test_the_distance_is_in_mm_along_each_axis():
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[2:5, 2:5, 2:5] = 1
    for axis, size in enumerate(spacing := (1.0, 2.0, 3.5)):
        assert distance(np.roll(truth, 4, axis=axis), truth, spacing) == pytest.approx(4 * size)
    assert distance(truth, truth, spacing) == 0


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
    assert distance(predicted, truth, spacing) == pytest.approx(max(directed), rel=1e-5)


def test_there_is_no_distance_to_nothing():
    truth = np.zeros((6, 6), np.uint8)
    truth[2, 2], truth[4, 4] = 1, 2
    predicted = np.where(truth == 1, 0, truth)  # a is missed, b is right, c is invented
    predicted[0, 0] = 3
    found = measure_segmentation(predicted, truth, ["background", "a", "b", "c"], (1.0, 1.0))
    assert found["dice a"] == 0
    assert (found["dice b"], found["iou b"], found["hausdorff95 b"]) == (1, 1, 0)
    assert np.isnan([found["hausdorff95 a"], found["dice c"], found["iou c"], found["hausdorff95 c"]]).all()


def test_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"prediction of shape \(2, 2\).* \(3, 2\)"):
        dice_per_class(np.zeros((2, 2)), np.zeros((3, 2)), 2)
