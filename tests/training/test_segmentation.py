import math

import numpy as np
import pytest
from modelsgenesis.training.finetuning import make_objective
from modelsgenesis.training.outcome import summarize_rows
from torch import nn

from labelled_cases import SEGMENT, data_of, masked
from modelsgenesis.data import PreparedCase
from modelsgenesis.errors import DataError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.metrics.segmentation import measure_segmentation
from modelsgenesis.networks import build_network

LABELS = ("background", "square", "stripe")
DATA = data_of([], LABELS, "segmentation")


def objective_of(training, validation=()):
    hardware = choose_hardware("cpu", "float32")
    return make_objective(SEGMENT, DATA, training=training, validation=validation, hardware=hardware)


def test_rows_hold_every_metric_and_without_a_voxel_size_no_distance():
    objective = objective_of([masked(0)])
    network = build_network(SEGMENT.network.override(out_channels=3, output="linear")).eval()
    rows = objective.measure(network, [masked(1), masked(2, (1,))])
    assert list(rows[0]) == ["case", "patient", "dice square", "dice stripe", "iou square", "iou stripe"]
    assert math.isnan(rows[1]["dice stripe"])
    summary = summarize_rows(rows, DATA, SEGMENT)
    assert summary["dice stripe"]["undefined"] == 1
    assert summary["dice"]["value"] == pytest.approx(
        (summary["dice square"]["value"] + summary["dice stripe"]["value"]) / 2
    )


def test_empty_masks_and_absent_structures_are_said():
    notes = objective_of([masked(0, (1,)), masked(1, ())]).notes()
    assert notes == [
        "1 of 2 training masks are empty, such as image_1: learnt as all background",
        "no training mask has stripe: the network cannot learn it",
    ]
    assert objective_of([masked(0)]).notes() == []


def test_without_scipy_there_is_no_distance_and_that_is_said(monkeypatch):
    for room in ("training.segmentation", "metrics.segmentation"):
        monkeypatch.setattr(f"modelsgenesis.{room}.find_spec", lambda _name: None)
    assert objective_of([masked(0)]).notes() == [
        "the Hausdorff distance needs an optional dependency: pip install 'modelsgenesis[report]'"
    ]
    found = measure_segmentation(np.eye(3), np.eye(3), LABELS[:2], (1.0, 1.0))
    assert list(found) == ["dice square", "iou square"]


def test_refuses_to_learn_from_empty_masks_alone():
    with pytest.raises(DataError, match="none of 2 training masks has a labelled voxel; there is nothing to learn"):
        objective_of([masked(0, ()), masked(1, ())])


def test_validation_is_the_dice_and_where_it_is_undefined_the_newest_network_is_kept():
    network = build_network(SEGMENT.network.override(out_channels=3, output="linear")).eval()
    metrics = objective_of([masked(0)], [masked(1)]).validate(network)
    assert list(metrics) == ["dice", "dice square", "dice stripe"]
    objective = objective_of([masked(0)])
    assert objective.validate(network) == {}
    assert objective.score({"dice": 0.5}) == -0.5
    assert objective.score({"dice": math.nan}) == objective.score({}) == -math.inf


def test_a_frozen_part_stays_in_evaluation_mode_under_the_loop():
    objective = objective_of([masked(0)])
    network = build_network(SEGMENT.network.override(out_channels=3, output="linear", norm="batch"))
    objective.freeze(network.encoder)
    network.train()
    image, label = objective.dataset[0]
    objective.loss(network, (image[None], label[None])).backward()
    norms = [module for module in network.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.decoder.parameters())


def test_refuses_a_case_without_a_mask():
    with pytest.raises(DataError, match="bare: has no mask"):
        objective_of([PreparedCase(name="bare", patient="p", image=np.zeros((1, 16, 16), np.float32))])
