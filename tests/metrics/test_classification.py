import numpy as np
import pytest
import torch
from monai.metrics.average_precision import compute_average_precision
from monai.metrics.rocauc import compute_roc_auc
from scipy.stats import mannwhitneyu

from modelsgenesis.errors import ShapeError
from modelsgenesis.metrics.classification import auc, chosen_classes, classification_row, rank


@pytest.mark.parametrize("levels", [3, 1000])
def test_weighted_metrics_equal_monai_on_repeated_cases(levels):
    random = np.random.default_rng(levels)
    truth, scores = random.random(30) < 0.4, random.integers(0, levels, 30) / levels
    weights = random.multinomial(30, np.full(30, 1 / 30), size=5)
    for row, (area, precision, _) in zip(weights, rank(scores, truth, weights), strict=True):
        repeated = np.repeat(np.arange(30), row)
        as_monai = torch.from_numpy(scores[repeated]), torch.from_numpy(truth[repeated].astype(int))
        assert area == pytest.approx(compute_roc_auc(*as_monai))
        assert precision == pytest.approx(compute_average_precision(*as_monai))


@pytest.mark.parametrize(("specificity", "sensitivity"), [(1.0, 1 / 3), (0.9, 1 / 3), (0.6, 1.0), (0.0, 1.0)])
def test_sensitivity_at_a_specificity_by_hand(specificity, sensitivity):
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, True, False, False])
    assert rank(scores, truth, np.ones((1, 6)), specificity)[0, 2] == pytest.approx(sensitivity)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_auc_is_that_of_the_rank_test_ties_included(levels):
    random = np.random.default_rng(levels)
    truth = random.random(60) < 0.4
    scores = random.integers(0, levels, 60) / levels + 0.2 * truth
    statistic = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert auc(scores, truth) == pytest.approx(statistic / (truth.sum() * (~truth).sum()), abs=1e-12)


def test_an_auc_needs_both_kinds_and_finite_scores():
    for truth in (np.array([True, True]), np.array([False, False])):
        assert np.isnan(rank(np.array([0.1, 0.2]), truth, np.ones((1, 2)))).all()
    with pytest.raises(ShapeError, match="1 of 2 are not finite"):
        auc(np.array([0.1, np.nan]), np.array([True, False]))


def test_a_half_counts_as_positive_wherever_classes_are_independent():
    assert chosen_classes(np.array([[0.5, 0.5, 0.4]]), multilabel=True).tolist() == [[True, True, False]]
    assert chosen_classes(np.array([[0.5, 0.5, 0.4]]), multilabel=False).tolist() == [[True, False, False]]
    row = classification_row((2,), np.array([0.5, 0.5, 0.4]), ("a", "b", "c"), multilabel=True)
    assert (row["class"], row["predicted"], row["probability c"]) == ("c", "a; b", 0.4)
