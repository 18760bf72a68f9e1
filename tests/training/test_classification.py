import math

import numpy as np
import pytest
import torch
from modelsgenesis.training.classification import Classification
from modelsgenesis.training.finetuning import make_objective

from labelled_cases import CLASSIFY, data_of, prepared
from modelsgenesis.configs import ClassifierConfig
from modelsgenesis.errors import DataError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.metrics.summary import summarize_rows
from modelsgenesis.networks import build_network

HARDWARE = choose_hardware("cpu", "float32")


def objective_of(training, validation=(), labels=("none", "square"), multilabel=False, **changes):
    data = data_of([], labels, multilabel=multilabel)
    return make_objective(
        CLASSIFY.override(**changes), data, training=training, validation=validation, hardware=HARDWARE
    )


def network_of(classes):
    torch.manual_seed(0)
    return build_network(ClassifierConfig(encoder=CLASSIFY.network, num_classes=classes, hidden=0)).eval()


BOTH = [prepared(index, (index % 2,)) for index in range(6)]


def test_the_loss_is_the_cross_entropy_and_weights_make_up_for_rare_classes():
    training = [prepared(index, (int(index == 0),)) for index in range(4)]
    network = network_of(2)
    image = torch.stack([torch.from_numpy(case.image) for case in training])
    truth = torch.tensor([1, 0, 0, 0])
    each = torch.nn.functional.cross_entropy(network(image), truth, reduction="none")
    plain = objective_of(training).loss(network, (image, truth))
    torch.testing.assert_close(plain, each.mean())
    weighted = objective_of(training, class_weights=True)
    torch.testing.assert_close(weighted.loss(network, (image, truth)), (each[0] + each[1:].mean()) / 2)
    assert weighted.notes() == ["weights of the classes: none 0.667, square 2"]


def test_labels_that_may_hold_together_are_learnt_each_by_itself():
    training = [prepared(0, (0, 1)), prepared(1, ()), prepared(2, (0,))]
    objective = objective_of(training, training, ("a", "b"), multilabel=True)
    network = network_of(2)
    image, truth = (torch.stack(items) for items in zip(*(objective.dataset[item] for item in range(3)), strict=True))
    assert truth.tolist() == [[1, 1], [0, 0], [1, 0]]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(network(image), truth)
    torch.testing.assert_close(objective.loss(network, (image, truth)), expected)
    metrics = objective.validate(network)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    rows = objective.measure(network, training)
    assert [row["class"] for row in rows] == ["a; b", "", "a"]
    summary = summarize_rows(rows, ("a", "b"), task="classification", multilabel=True, resamples=50)
    assert {"auc", "auc a", "auc b", "accuracy"} <= set(summary)


def test_an_answer_does_not_depend_on_what_else_is_measured():
    objective, network = objective_of(BOTH, batch_size=4), network_of(2)
    together = objective.measure(network, BOTH)
    for case, row in zip(BOTH, together, strict=True):
        alone = objective.measure(network, [case])[0]
        assert alone["probability square"] == pytest.approx(row["probability square"], abs=1e-6)
    assert [row["class"] for row in together] == ["none", "square"] * 3
    assert objective.measure(network, []) == []


def test_validates_by_the_auc_and_without_cases_by_nothing():
    objective, network = objective_of(BOTH, BOTH), network_of(2)
    metrics = objective.validate(network)
    assert list(metrics) == ["auc", "loss", "accuracy"]
    assert objective.score(metrics) == -metrics["auc"]
    nothing = objective_of(BOTH)
    assert nothing.validate(network) == {}
    assert nothing.score({}) == -math.inf


def test_validation_cases_of_one_class_are_said_and_the_loss_decides():
    objective = objective_of(BOTH, [prepared(9, (1,)), prepared(10, (1,))])
    metrics = objective.validate(network_of(2))
    assert list(metrics) == ["loss", "accuracy"]
    assert objective.score(metrics) == metrics["loss"]
    assert "all 2 validation cases are of one class, so their AUC is undefined" in objective.notes()[0]


def test_a_class_that_validation_lacks_is_left_out_of_its_auc():
    objective = objective_of([*BOTH, prepared(7, (2,))], BOTH, ("none", "square", "stripe"))
    assert 0 <= objective.validate(network_of(3))["auc"] <= 1


def test_refuses_a_class_without_example():
    with pytest.raises(DataError, match="no training example of 'stripe': take more labels"):
        objective_of(BOTH, labels=("none", "square", "stripe"))


def test_images_of_another_size_are_brought_to_the_patch():
    objective = objective_of(BOTH, patch_size=(8, 8))
    assert isinstance(objective, Classification)
    assert objective.dataset[0][0].shape == (1, 8, 8)
    assert objective.logits(network_of(2), BOTH, HARDWARE).shape == (6, 2)


def test_a_test_set_of_one_class_gives_no_auc_but_says_why():
    rows = [
        {"case": "a", "patient": "a", "class": "square", "probability none": 0.2, "probability square": 0.8},
        {"case": "b", "patient": "b", "class": "square", "probability none": 0.6, "probability square": 0.4},
    ]
    summary = summarize_rows(rows, ("none", "square"), task="classification", resamples=50)
    assert summary["auc"]["value"] is None
    assert summary["auc"]["reason"] == "all 2 cases are of one class"
    assert summary["accuracy"]["value"] == 0.5
    assert not np.isnan([entry["value"] for entry in summary.values() if entry["value"] is not None]).any()
