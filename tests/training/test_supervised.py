"""The losses, validations and scores of segmentation and classification."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from labelled_cases import CLASSIFY, SEGMENT, data_of, masked, prepared
from modelsgenesis.configs import ClassifierConfig
from modelsgenesis.data import PreparedCase
from modelsgenesis.errors import DataError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import build_network
from modelsgenesis.training.supervised import make_objective

HARDWARE = choose_hardware("cpu", "float32")
LABELS = ("background", "square", "stripe")
BOTH = [prepared(index, (index % 2,)) for index in range(6)]


def classification(training, validation=(), labels=("none", "square"), multilabel=False, **changes):
    data, config = data_of([], labels, multilabel=multilabel), CLASSIFY.override(**changes)
    return make_objective(data, config=config, training=training, validation=validation, hardware=HARDWARE)


def segmentation(training, validation=(), **options):
    parts = {"training": training, "validation": validation}
    return make_objective(data_of([], LABELS, "segmentation"), config=SEGMENT, hardware=HARDWARE, **parts, **options)


def classifier(classes):
    torch.manual_seed(0)
    return build_network(ClassifierConfig(encoder=CLASSIFY.network, num_classes=classes, hidden=0)).eval()


def validated(objective, network):
    """What the loop would record."""
    with torch.no_grad():
        return objective.validate(network)


def unet(**changes):
    return build_network(SEGMENT.network.override(out_channels=3, output="linear", **changes)).eval()


def test_the_loss_is_the_cross_entropy_and_weights_make_up_for_rare_classes():
    training, network = [prepared(index, (int(index == 0),)) for index in range(4)], classifier(2)
    batch = torch.stack([torch.from_numpy(case.image) for case in training]), torch.tensor([1, 0, 0, 0])
    each = nn.functional.cross_entropy(network(batch[0]), batch[1], reduction="none")
    torch.testing.assert_close(classification(training).loss(network, batch), each.mean())
    weighted = classification(training, class_weights=True)
    torch.testing.assert_close(weighted.loss(network, batch), (each[0] + each[1:].mean()) / 2)
    assert weighted.notes == ["weights of the classes: none 0.667, square 2"]


def test_labels_that_may_hold_together_are_learnt_each_by_itself():
    training, network = [prepared(0, (0, 1)), prepared(1, ()), prepared(2, (0,))], classifier(2)
    objective = classification(training, training, ("a", "b"), multilabel=True)
    image, truth = (torch.stack(items) for items in zip(*(objective.dataset[item] for item in range(3)), strict=True))
    assert truth.tolist() == [[1, 1], [0, 0], [1, 0]]
    expected = nn.functional.binary_cross_entropy_with_logits(network(image), truth)
    torch.testing.assert_close(objective.loss(network, (image, truth)), expected)
    assert validated(objective, network)["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("validation", "labels", "metrics"),
    [
        (BOTH, ("none", "square"), ["auc", "loss", "accuracy"]),
        ([], ("none", "square"), []),
        ([prepared(9, (1,)), prepared(10, (1,))], ("none", "square"), ["loss", "accuracy"]),
        (BOTH, (*("none", "square"), "stripe"), ["auc", "loss", "accuracy"]),  # validation lacks a class
    ],
)
def test_a_classification_is_validated_by_its_auc_else_by_its_loss(validation, labels, metrics):
    training = BOTH if len(labels) == 2 else [*BOTH, prepared(7, (2,))]
    objective = classification(training, validation, labels)
    found = validated(objective, classifier(len(labels)))
    assert list(found) == metrics
    expected = -found["auc"] if "auc" in found else found.get("loss", -math.inf)
    assert objective.score(found) == expected
    undefined = any("all 2 validation cases are of one class" in note for note in objective.notes)
    assert undefined is (metrics == ["loss", "accuracy"])


def test_a_class_needs_an_example_and_images_get_the_patch_size():
    with pytest.raises(DataError, match="no training example of 'stripe': take more labels"):
        classification(BOTH, labels=LABELS)
    objective = classification(BOTH, BOTH, patch_size=(8, 8))
    assert objective.dataset[0][0].shape == (1, 8, 8)
    assert 0 <= validated(objective, classifier(2))["auc"] <= 1


def test_a_segmentation_is_validated_by_its_dice_and_where_it_is_undefined_the_newest_network_is_kept():
    metrics = validated(segmentation([masked(0)], [masked(1)]), unet())
    assert list(metrics) == ["dice", "dice square", "dice stripe"]
    objective = segmentation([masked(0)])
    assert objective.validate(unet()) == {}
    assert objective.score({"dice": 0.5}) == -0.5
    assert objective.score({"dice": math.nan}) == objective.score({}) == -math.inf


def test_masks_that_teach_little_are_notes_and_those_that_teach_nothing_are_refused():
    assert segmentation([masked(0, (1,)), masked(1, ())]).notes == [
        "1 of 2 training masks are empty, such as image_1: learnt as all background",
        "no training mask has stripe: the network cannot learn it",
    ]
    assert segmentation([masked(0)]).notes == []
    with pytest.raises(DataError, match="none of 2 training masks has a labelled voxel"):
        segmentation([masked(0, ()), masked(1, ())])
    with pytest.raises(DataError, match="bare: has no mask"):
        segmentation([PreparedCase(name="bare", patient="p", image=np.zeros((1, 16, 16), np.float32))])


def test_without_scipy_a_note_says_that_there_is_no_distance(monkeypatch):
    monkeypatch.setattr("modelsgenesis.training.supervised.find_spec", lambda _name: None)
    assert "the Hausdorff distance needs an optional dependency" in segmentation([masked(0)]).notes[0]


def test_a_frozen_part_stays_in_evaluation_mode_under_the_loop():
    network = unet(norm="batch")
    objective = segmentation([masked(0)], frozen=network.encoder)
    network.train()
    image, label = objective.dataset[0]
    objective.loss(network, (image[None], label[None])).backward()
    norms = [module for module in network.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.decoder.parameters())
