"""Adapting a pretrained network to a task."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelsgenesis.configs import (
    ClassifierConfig,
    GenesisUNetConfig,
    PlainUNetConfig,
    ResidualUNetConfig,
    UNetConfig,
)
from modelsgenesis.errors import CheckpointError, ConfigurationError
from modelsgenesis.networks import adapt, build_network, transfer

CONFIGURATIONS: list[UNetConfig] = [
    GenesisUNetConfig(widths=(8, 16), statistics="batch"),
    PlainUNetConfig(widths=(4, 8, 8)),
    ResidualUNetConfig(widths=(4, 8, 8)),
]
KINDS = [config.kind for config in CONFIGURATIONS]


@pytest.fixture(params=CONFIGURATIONS, ids=KINDS)
def pretrained(request: pytest.FixtureRequest) -> nn.Module:
    return build_network(request.param).eval()


def equal_tensors(network: nn.Module, other: nn.Module, names: tuple[str, ...]) -> bool:
    mine, theirs = network.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in names)


def test_segmentation_keeps_all_but_the_head(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=3)
    assert network(torch.rand(2, 1, 8, 8, 8)).shape == (2, 3, 8, 8, 8)
    assert network.config.output == "linear"
    assert report.encoder_share == 1
    assert all(name.startswith(network.head_prefix) for name in report.new)
    assert set(report.loaded) | set(report.new) == set(network.state_dict())
    assert equal_tensors(network, pretrained, report.loaded)
    assert not network.training


@pytest.mark.parametrize("hidden", [1024, 0])
def test_classification_keeps_the_encoder(pretrained: nn.Module, hidden: int) -> None:
    network, report = adapt(pretrained, task="classification", num_classes=5, hidden=hidden)
    assert network.config == ClassifierConfig(encoder=pretrained.config, num_classes=5, hidden=hidden)
    x = torch.rand(2, 1, 8, 8, 8)
    assert network(x).shape == (2, 5)
    torch.testing.assert_close(network.features(x)[-1], pretrained.features(x)[-1])
    assert {name.split(".")[0] for name in report.new} == {"head"}
    assert all(not name.startswith("encoder.") for name in report.unused)


def test_restoration_changes_nothing(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="restoration")
    x = torch.rand(1, 1, 8, 8, 8)
    torch.testing.assert_close(network(x), pretrained(x))
    assert report.new == report.unused == ()
    assert report.loaded_parameters == report.parameters


def test_encoder_only_starts_the_decoder_anew(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="segmentation", num_classes=2, encoder_only=True)
    assert all(name.startswith("encoder.") for name in report.loaded)
    assert any(name.startswith("decoder.") for name in report.new)
    assert torch.isfinite(network(torch.rand(1, 1, 8, 8, 8))).all()


def test_a_classifier_can_be_adapted_again(pretrained: nn.Module) -> None:
    classifier, _ = adapt(pretrained, task="cls", num_classes=2, hidden=4)
    again, report = adapt(classifier, task="cls", num_classes=7, hidden=4)
    assert again(torch.rand(1, 1, 8, 8, 8)).shape == (1, 7)
    assert equal_tensors(again, pretrained, report.loaded)
    segmentation, report = adapt(classifier, task="seg", num_classes=2)
    assert segmentation(torch.rand(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)
    assert report.encoder_share == 1


@settings(max_examples=10, deadline=None)
@given(old=st.integers(1, 3), new=st.integers(1, 6), data=st.data())
def test_a_repeated_stem_gives_for_equal_channels_what_one_gave(old: int, new: int, data: st.DataObject) -> None:
    """With one channel, or a multiple of the old number: [c] to k·[c] divides each by k."""
    new = new * old if old > 1 else new
    network = build_network(data.draw(st.sampled_from(CONFIGURATIONS)).override(in_channels=old)).eval()
    widened, report = adapt(network, task="restoration", in_channels=new)
    x = torch.rand(1, old, 8, 8, 8)
    torch.testing.assert_close(widened(x.repeat(1, new // old, 1, 1, 1)), network(x), atol=1e-5, rtol=1e-5)
    assert len(report.adapted) == (new != old)


def test_an_averaged_stem_gives_each_channel_the_average(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=2, in_channels=3, stem="average")
    [(name, way)] = report.adapted.items()
    weight = network.state_dict()[name]
    assert way == "stem of 1 channels averaged for 3"
    for channel in range(3):
        assert torch.equal(weight[:, channel], pretrained.state_dict()[name][:, 0])


def test_a_new_stem_is_random_and_reported() -> None:
    pretrained = build_network(GenesisUNetConfig(widths=(16, 32)))
    network, report = adapt(pretrained, task="seg", num_classes=2, in_channels=2, stem="new")
    assert "encoder.levels.0.0.convolution.weight" in report.new
    assert network(torch.rand(1, 2, 8, 8, 8)).shape == (1, 2, 8, 8, 8)
    assert 0.9 < report.encoder_share < 1


def test_dimensions_change_only_when_asked_for(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=2)
    assert network.config.dims == 3
    assert not report.adapted


@pytest.mark.parametrize("depth_axis", [-1, 0])
def test_an_inflated_network_repeats_the_flat_one_on_constant_data(depth_axis: int) -> None:
    """In the middle of the new axis, where the zeros beyond the border do not reach."""
    config = GenesisUNetConfig(dims=2, widths=(4, 8), norm="batch", statistics="running")
    flat = build_network(config).eval()
    deep, report = adapt(flat, task="restoration", dims=3, depth_axis=depth_axis)
    image = torch.rand(1, 1, 8, 8)
    axis = 2 + depth_axis % 3
    volume = image.unsqueeze(axis).repeat_interleave(32, axis)
    restored = deep(volume).select(axis, 16)
    torch.testing.assert_close(restored, flat(image), atol=1e-5, rtol=1e-5)
    assert set(report.adapted.values()) == {"inflated along a new axis"}


def test_to_three_dimensions_and_back_is_exact(pretrained: nn.Module) -> None:
    flat, report = adapt(pretrained, task="restoration", dims=2)
    assert flat(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    assert set(report.adapted.values()) == {"averaged along an axis"}
    deep, _ = adapt(flat, task="restoration", dims=3)
    again, _ = adapt(deep, task="restoration", dims=2)
    for name, tensor in flat.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)


def test_dimensions_and_channels_change_together(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=2, dims=2, in_channels=3)
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert "averaged along an axis and stem of 1 channels repeated to 3" in report.adapted.values()


def test_statistics_are_chosen() -> None:
    pretrained = build_network(GenesisUNetConfig(widths=(4, 8), statistics="batch"))
    running, _ = adapt(pretrained, task="restoration", statistics="running")
    x = torch.rand(2, 1, 8, 8, 8)
    torch.testing.assert_close(running(x)[:1], running(x[:1]))
    assert not torch.allclose(pretrained.eval()(x)[:1], pretrained.eval()(x[:1]))


def test_weights_are_copied_unless_told_otherwise(pretrained: nn.Module) -> None:
    copied, _ = adapt(pretrained, task="restoration")
    shared, _ = adapt(pretrained, task="restoration", copy=False)
    name = next(iter(pretrained.state_dict()))
    pointer = pretrained.state_dict()[name].data_ptr()
    assert copied.state_dict()[name].data_ptr() != pointer
    assert shared.state_dict()[name].data_ptr() == pointer


def test_the_summary_counts(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=3)
    total = sum(parameter.numel() for parameter in network.parameters())
    head = sum(p.numel() for n, p in network.named_parameters() if n.startswith(network.head_prefix))
    assert report.summary().startswith(f"{total - head:,} of {total:,} parameters")
    assert "100.00% of the encoder; new: " in report.summary()


def test_less_than_nine_tenths_of_the_encoder_is_an_error() -> None:
    weights = build_network(GenesisUNetConfig(widths=(8, 16))).state_dict()
    target = build_network(GenesisUNetConfig(widths=(8, 32)))
    with pytest.raises(
        CheckpointError,
        match=r"only .*% of the encoder fits the checkpoint, expected 90% or more: encoder\.levels\.1\.0\."
        r"convolution\.weight has shape \(8, 8, 3, 3, 3\) instead of \(16, 8, 3, 3, 3\)",
    ):
        transfer(weights, target)
    with pytest.raises(CheckpointError, match=r"only 0.0% .*missing encoder\.stages"):
        transfer(weights, build_network(PlainUNetConfig(widths=(8, 16))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "segment"}, "received 'segment'; did you mean segmentation"),
        ({"task": "seg"}, "num_classes: received None, expected 1 or more to train a segmentation"),
        ({"task": "cls", "num_classes": 0}, "num_classes: received 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        adapt(build_network(CONFIGURATIONS[0]), **arguments)


def test_no_weight_of_the_checkpoint_is_initialised_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained = build_network(GenesisUNetConfig(widths=(4, 8)))
    initialised = []

    def remember(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        if not tensor.is_meta:
            initialised.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(nn.init, "kaiming_uniform_", remember)
    adapt(pretrained, task="seg", num_classes=3)
    assert initialised == [(3, 4, 1, 1, 1)]
