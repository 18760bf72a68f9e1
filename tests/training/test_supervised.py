"""The network to begin with, its patch, and the losses, validations and scores of segmentation and classification."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from labelled_cases import CLASSIFY, SEGMENT, data_of, masked, prepared
from modelsgenesis import __version__, configs
from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, PlainUNetConfig, SegmentationConfig
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.networks import build_network
from modelsgenesis.training import supervised
from modelsgenesis.training.supervised import choose_patch_size, initial_model, make_objective, resolve_patch_size
from recorded_notes import Notes

HARDWARE = choose_hardware("cpu", "float32")
LABELS = ("background", "square", "stripe")
BOTH = [prepared(index, (index % 2,)) for index in range(6)]
DATA = data_of(BOTH[:2], ("none", "square"))
STEM = "encoder.levels.0.0.convolution.weight"


def genesis(modality="xray", channels=("image",), **shape):
    config = GenesisUNetConfig(**{"dims": 2, "widths": (4, 8), "norm": "batch", "statistics": "batch", **shape})
    contract = configs.CONTRACTS[modality].override(channels=channels)
    origin = configs.Provenance(origin="pretrained", library_version=__version__)
    described = {"network": config, "input": contract, "patch_size": (16,) * config.dims, "provenance": origin}
    return Bundle(build_network(config), configs.BundleConfig(task="restoration", **described))


def start(bundle, data=DATA, config=CLASSIFY, notes=None):
    return initial_model(bundle, data, config, notes or Notes(), name="genesis")


def test_a_classifier_takes_the_encoder_and_names_what_it_took():
    notes = Notes()
    begun = start(genesis(), notes=notes)
    assert (begun.init, begun.network.config.levels) == ("genesis", (0, 1))
    assert begun.network.config.encoder.statistics == "running"
    assert STEM in begun.pretrained
    assert not any(name.startswith("head.") for name in begun.pretrained)
    assert "does not depend on other images" in notes.notes[0]
    assert notes.notes[-1].startswith("genesis: ")


def test_a_network_of_its_own_follows_the_data():
    volumes = data_of(BOTH[:2], ("none", "square"), channels=("t1", "t2"))
    begun = start(None, volumes, CLASSIFY.override(network=GenesisUNetConfig(dims=3, widths=(4, 8), norm="instance")))
    assert (begun.network.config.encoder.dims, begun.network.config.encoder.in_channels) == (2, 2)
    assert begun.contract.channels == ("t1", "t2")
    masks = data_of([masked(0)], LABELS, "segmentation")
    begun = start(None, masks, SEGMENT)
    assert (begun.network.config.out_channels, begun.network.config.output) == (3, "linear")


@pytest.mark.parametrize(
    ("weights", "named", "taken", "said"),
    [
        ({}, ("t1", "t2"), ("t1", "t2"), "stem of 1 channels repeated to 2"),
        ({"channels": ("t1", "flair")}, ("FLAIR", "T1"), ("t1", "flair"), "channels by name in the order of genesis"),
        ({"channels": ("t1", "flair")}, ("T1", "T2"), ("T1", "T2"), "T1, T2, are not the model's t1, flair"),
    ],
)
def test_channels_are_matched_by_name_and_what_is_done_is_said(weights, named, taken, said):
    notes, bundle = Notes(), genesis(in_channels=1 + bool(weights), **weights)
    begun = start(bundle, data_of(BOTH[:2], ("none", "square"), channels=named), notes=notes)
    assert begun.contract.channels == taken
    assert STEM in begun.pretrained
    assert any(said in note for note in notes.notes)


def test_weights_of_another_modality_are_warned_of_and_unknown_data_is_prepared_as_they_expect():
    notes = Notes()
    begun = start(genesis(modality="ultrasound"), notes=notes)
    assert begun.contract.modality == "xray"
    assert "trained on ultrasound, the data is xray" in " ".join(notes.notes)
    unknown = data_of(BOTH[:2], ("none", "square"))
    object.__setattr__(unknown, "modality", None)
    begun = start(genesis(), unknown, notes=notes)
    assert begun.contract.modality == "xray"
    assert "squares does not say what its images are: preparing them as xray" in notes.notes
    with pytest.raises(DataError, match="modality is unknown"):
        start(None, unknown)


def test_refuses_weights_and_dims_for_other_dimensions():
    with pytest.raises(ConfigurationError, match=r"genesis is for images of 3 dimensions, .* squares have 2: .*dims=2"):
        start(genesis(modality="ct", dims=3))
    with pytest.raises(ConfigurationError, match="dims: received 3, but the images of squares have 2"):
        start(None, config=CLASSIFY.override(dims=3))


def test_the_patch_is_the_median_image_in_steps_that_the_network_can_take():
    assert choose_patch_size([(100, 90, 40)], divisor=(32, 32, 16)) == (32, 64, 48)
    assert choose_patch_size([(5, 5, 5)], divisor=(64, 64, 64)) == (64, 64, 64)
    network, notes = build_network(GenesisUNetConfig(dims=2, widths=(4, 8, 16, 32, 64))), Notes()
    assert resolve_patch_size(SegmentationConfig(), network, [masked(0)], notes).patch_size == (16, 16)
    assert notes.notes == ["patch of 16 × 16 pixels, by the median image"]
    for patch, message in (((16, 16, 16), "expected 2 sides"), ((16, 17), r"sides that divide by \(16, 16\)")):
        with pytest.raises(ConfigurationError, match=message):
            resolve_patch_size(SegmentationConfig(patch_size=patch), network, [masked(0)], notes)


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


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_step_never_waits_for_the_device(task):
    cases = [masked(index) for index in range(4)] if task == "segmentation" else BOTH[:4]
    labels, config = (LABELS, SEGMENT) if task == "segmentation" else (("none", "square"), CLASSIFY)
    # Of a tensor of this device nothing can be read: `item()`, `nonzero()` and the like raise.
    hardware, network = Hardware(torch.device("meta")), (unet() if task == "segmentation" else classifier(2)).to("meta")
    parts = {"config": config.override(augment=True, flip=True), "training": cases, "validation": ()}
    objective = make_objective(data_of([], labels, task), hardware=hardware, **parts)
    loss = objective.loss(network, default_collate([objective.dataset[item] for item in range(4)]), range(4))
    loss.backward()
    assert (loss.device.type, loss.shape) == ("meta", ())
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("config", [SEGMENT.network, PlainUNetConfig(dims=2, widths=(4, 8), strides=((1, 1), (2, 2)))])
def test_a_head_expects_each_class_as_often_as_it_is(config):
    torch.manual_seed(0)
    network = build_network(config.override(out_channels=3, output="linear"))
    cases = [masked(index) for index in range(4)]
    segmentation(cases).begin(network)
    held = np.concatenate([case.label.ravel() for case in cases])
    head = next(module for name, module in network.named_modules() if name.startswith(network.head_prefix[:-1]))
    head = head if isinstance(head, torch.nn.Conv2d) else head[-1]
    expected = [(held == number).mean() for number in range(3)]
    assert head.bias.softmax(dim=0).tolist() == pytest.approx(expected, abs=1e-4)
    before = classifier(2)
    weights = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    classification(BOTH[:4]).begin(before)  # the classes of images may be drawn as often as one likes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.state_dict().items())


def unet(**changes):
    return build_network(SEGMENT.network.override(out_channels=3, output="linear", **changes)).eval()


def test_the_loss_is_the_cross_entropy_and_weights_make_up_for_rare_classes():
    training, network = [prepared(index, (int(index == 0),)) for index in range(4)], classifier(2)
    batch = torch.stack([torch.from_numpy(case.image) for case in training]), torch.tensor([1, 0, 0, 0])
    each = nn.functional.cross_entropy(network(batch[0]), batch[1], reduction="none")
    torch.testing.assert_close(classification(training).loss(network, batch, ()), each.mean())
    weighted = classification(training, class_weights=True)
    torch.testing.assert_close(weighted.loss(network, batch, ()), (each[0] + each[1:].mean()) / 2)
    assert weighted.notes == ["weights of the classes: none 0.667, square 2"]


def test_labels_that_may_hold_together_are_learnt_each_by_itself():
    training, network = [prepared(0, (0, 1)), prepared(1, ()), prepared(2, (0,))], classifier(2)
    objective = classification(training, training, ("a", "b"), multilabel=True)
    image, truth = (torch.stack(items) for items in zip(*(objective.dataset[item] for item in range(3)), strict=True))
    expected = nn.functional.binary_cross_entropy_with_logits(network(image), torch.tensor([[1.0, 1], [0, 0], [1, 0]]))
    torch.testing.assert_close(objective.loss(network, (image, truth), ()), expected)
    assert validated(objective, network)[1]["loss"] == pytest.approx(expected.item(), rel=1e-5)


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
    score, found = validated(objective, classifier(len(labels)))
    assert list(found) == metrics
    expected = -found["auc"] if "auc" in found else found.get("loss", -math.inf)
    assert score == expected
    undefined = any("all 2 validation cases are of one class" in remark for remark in objective.remarks)
    assert ("no validation case is of the class stripe" in "".join(objective.remarks)) is ("stripe" in labels)
    assert undefined is (metrics == ["loss", "accuracy"])


def test_a_class_needs_an_example_and_images_get_the_patch_size():
    with pytest.raises(DataError, match="no training example of 'stripe': take more labels"):
        classification(BOTH, labels=LABELS)
    objective = classification(BOTH, BOTH, patch_size=(8, 8))
    assert objective.dataset[0][0].shape == (1, 8, 8)
    assert 0 <= validated(objective, classifier(2))[1]["auc"] <= 1


def test_a_segmentation_is_validated_by_its_dice_and_where_it_is_undefined_the_newest_network_is_kept():
    score, metrics = validated(segmentation([masked(0)], [masked(1)]), unet())
    assert list(metrics) == ["dice", "dice square", "dice stripe", "loss"]
    assert score == -metrics["dice"]
    assert segmentation([masked(0)]).validate(unet()) == (-math.inf, {})


def test_the_loss_of_a_validation_is_that_of_training_over_all_cases_at_once(monkeypatch):
    monkeypatch.setattr(supervised, "_SLAB", 5)  # does not divide the image
    network, cases = unet(), [masked(1), masked(2, (1,))]
    objective = segmentation([masked(0)], cases)
    images, labels = (
        torch.from_numpy(np.stack([getattr(case, name) for case in cases])) for name in ("image", "label")
    )
    with torch.no_grad():
        expected = objective.loss(network, (images, labels[:, None]), ())
    assert validated(objective, network)[1]["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"norm": "batch"}, {"norm": "batch", "statistics": "batch"}])
def test_planes_of_one_shape_are_validated_together_and_each_as_if_alone(changes, monkeypatch):
    wide = masked(3)
    cases = [masked(1), replace(wide, image=wide.image[:, :, :12], label=wide.label[:, :12]), masked(2, (1,))]
    network, seen = unet(**changes), []
    network.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    together = validated(segmentation([masked(0)], cases), network)[1]
    assert [shape[0] for shape in seen] == ([1] * 3 if "statistics" in changes else [2, 1])
    monkeypatch.setattr(supervised, "_PLANES", 1)
    assert validated(segmentation([masked(0)], cases), network)[1] == pytest.approx(together, rel=1e-5)
    assert [shape[0] for shape in seen[-3:]] == [1, 1, 1]


def test_masks_that_teach_little_are_remarks_and_those_that_teach_nothing_are_refused():
    objective = segmentation([masked(0, (1,)), masked(1, ())], [masked(2, ())])
    assert objective.notes == ["a training mask without a labelled voxel: image_1"]
    assert objective.remarks == [  # without names of cases: they go into the card
        "1 of 2 training masks are empty: treated as all background",
        "no training mask has stripe: the network cannot learn it",
        "no validation case has square: it has no say in which network is kept",
    ]
    assert segmentation([masked(0)]).notes == segmentation([masked(0)]).remarks == []
    with pytest.raises(DataError, match="none of 2 training masks has a labelled voxel"):
        segmentation([masked(0, ()), masked(1, ())])


def test_a_frozen_part_stays_in_evaluation_mode_under_the_loop():
    network = unet(norm="batch")
    objective = segmentation([masked(0)], frozen=network.encoder)
    network.train()
    image, label = objective.dataset[0]
    objective.loss(network, (image[None], label[None]), ()).backward()
    norms = [module for module in network.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.decoder.parameters())
