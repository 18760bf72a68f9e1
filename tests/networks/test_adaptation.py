"""Networks from configurations, with and without weights; pretrained ones adapted to a task."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, PlainUNetConfig, ResidualUNetConfig, UNetConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.networks.adaptation import rescale_kernels

UNET = GenesisUNetConfig(widths=(4, 8, 12), norm="instance")
CONFIGURATIONS: list[UNetConfig] = [
    GenesisUNetConfig(widths=(8, 16), statistics="batch"),
    PlainUNetConfig(widths=(4, 8, 8)),
    ResidualUNetConfig(widths=(4, 8, 8)),
]
VOLUME = torch.rand(2, 1, 8, 8, 8)


@pytest.fixture(params=CONFIGURATIONS, ids=lambda config: config.kind)
def pretrained(request: pytest.FixtureRequest) -> nn.Module:
    return build_network(request.param).eval()


# --- building -----------------------------------------------------------------------------------------------


FLAT = [
    GenesisUNetConfig(dims=2, widths=(16, 32), norm="group", upsampling="nearest"),
    ResidualUNetConfig(dims=2, widths=(4, 8), norm="batch"),
]


@pytest.mark.parametrize("config", [*CONFIGURATIONS, *FLAT, ClassifierConfig(encoder=FLAT[1], num_classes=2)])
def test_a_network_on_meta_has_every_tensor_and_no_memory(config: UNetConfig | ClassifierConfig) -> None:
    empty, built = build_network(config, "meta"), build_network(config)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert all(buffer.is_meta for buffer in empty.buffers())  # none beside the state dict is left uninitialised
    shapes = [{k: (v.shape, v.dtype) for k, v in network.state_dict().items()} for network in (empty, built)]
    assert shapes[0] == shapes[1]
    assert [p.requires_grad for p in empty.parameters()] == [p.requires_grad for p in built.parameters()]


@pytest.mark.parametrize("encoder", [UNET, ResidualUNetConfig(widths=(4, 8, 12))], ids=["genesis", "residual"])
def test_a_classifier_sees_the_averages_of_the_chosen_levels_in_their_order(encoder: UNetConfig) -> None:
    network = build_network(ClassifierConfig(encoder=encoder, num_classes=3, hidden=5, levels=(-1, 0))).eval()
    features = network.features(VOLUME)
    expected = torch.cat([features[level].flatten(2).mean(2) for level in (2, 0)], dim=1)
    torch.testing.assert_close(network.embed(VOLUME), expected)
    assert network(VOLUME).shape == (2, 3)


# --- tasks --------------------------------------------------------------------------------------------------


def test_segmentation_keeps_all_but_the_head_or_the_encoder_alone(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="seg", num_classes=3)
    assert network(VOLUME).shape == (2, 3, 8, 8, 8)
    assert (network.config.output, network.training) == ("linear", False)
    assert all(name.startswith(network.head_prefix) for name in report.new)
    mine, theirs = network.state_dict(), pretrained.state_dict()
    assert {*report.loaded, *report.new} == mine.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in report.loaded)
    head = sum(p.numel() for n, p in network.named_parameters() if n.startswith(network.head_prefix))
    assert report.summary().startswith(f"{report.parameters - head:,} of {report.parameters:,} parameters")
    assert "from the checkpoint; new: " in report.summary()
    network, report = adapt(pretrained, task="seg", num_classes=3, encoder_only=True)
    assert {name.split(".")[0] for name in report.loaded} == {"encoder"}
    assert any(name.startswith("decoder.") for name in report.new)
    assert torch.isfinite(network(VOLUME)).all()


@pytest.mark.parametrize(("hidden", "levels"), [(1024, None), (0, None), (0, (0, 1))])
def test_classification_keeps_the_encoder(pretrained: nn.Module, hidden: int, levels: Any) -> None:
    network, report = adapt(pretrained, task="classification", num_classes=5, hidden=hidden, levels=levels)
    config = ClassifierConfig(encoder=pretrained.config, num_classes=5, hidden=hidden, levels=levels)
    assert network.config == config
    assert network(VOLUME).shape == (2, 5)
    torch.testing.assert_close(network.features(VOLUME)[-1], pretrained.features(VOLUME)[-1])
    assert {name.split(".")[0] for name in report.new} == {"head"}
    assert all(not name.startswith("encoder.") for name in report.unused)
    again, report = adapt(network, task="seg", num_classes=2)
    assert again(VOLUME).shape == (2, 2, 8, 8, 8)
    assert not any(name.startswith("encoder.") for name in report.new)


def test_restoration_changes_nothing_and_copies_unless_told_otherwise(pretrained: nn.Module) -> None:
    network, report = adapt(pretrained, task="restoration")
    torch.testing.assert_close(network(VOLUME), pretrained(VOLUME))
    assert report.new == report.unused == ()
    assert report.loaded_parameters == report.parameters
    shared, _ = adapt(pretrained, task="restoration", copy=False)
    name = next(iter(pretrained.state_dict()))
    pointers = [made.state_dict()[name].data_ptr() for made in (pretrained, shared, network)]
    assert pointers[0] == pointers[1] != pointers[2]


# --- channels and dimensions --------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(old=st.integers(1, 3), new=st.integers(1, 6), data=st.data())
def test_a_repeated_stem_gives_for_equal_channels_what_one_gave(old: int, new: int, data: st.DataObject) -> None:
    """With one channel, or a multiple of the old number: [c] to k·[c] divides each by k."""
    new = new * old if old > 1 else new
    network = build_network(data.draw(st.sampled_from(CONFIGURATIONS)).override(in_channels=old)).eval()
    network = network.double()  # in float32 a normalisation of little makes rounding visible
    widened, report = adapt(network, task="restoration", in_channels=new)
    x = torch.rand(1, old, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(widened(x.repeat(1, new // old, 1, 1, 1)), network(x), atol=1e-9, rtol=1e-9)
    assert len(report.adapted) == (new != old)


def test_an_inflated_network_repeats_the_flat_one_on_constant_data() -> None:
    """In the middle of the new axis, where the zeros beyond the border do not reach."""
    flat = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), norm="batch", statistics="running")).eval()
    deep, report = adapt(flat, task="restoration", dims=3)
    image = torch.rand(1, 1, 8, 8)
    restored = deep(image.unsqueeze(-1).repeat_interleave(32, -1)).select(-1, 16)
    torch.testing.assert_close(restored, flat(image), atol=1e-5, rtol=1e-5)
    assert set(report.adapted.values()) == {"inflated along a new axis"}


def test_to_two_dimensions_and_back_is_exact_and_goes_with_channels(pretrained: nn.Module) -> None:
    assert not adapt(pretrained, task="seg", num_classes=2)[1].adapted
    flat, report = adapt(pretrained, task="restoration", dims=2)
    assert flat(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    assert set(report.adapted.values()) == {"averaged along an axis"}
    deep, _ = adapt(flat, task="restoration", dims=3)
    again, _ = adapt(deep, task="restoration", dims=2)
    for name, tensor in flat.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    both, report = adapt(pretrained, task="seg", num_classes=2, dims=2, in_channels=3)
    assert both(torch.rand(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert "averaged along an axis and stem of 1 channels repeated to 3" in report.adapted.values()


# --- what is refused, and what is not done ------------------------------------------------------------------


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
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, *_, **__: initialised.append(tensor))
    adapt(pretrained, task="seg", num_classes=3)
    assert [tuple(tensor.shape) for tensor in initialised if not tensor.is_meta] == [(3, 4, 1, 1, 1)]


# --- kernels of the size of random ones ---------------------------------------------------------------------


@pytest.mark.parametrize("config", [UNET, *CONFIGURATIONS[:2], UNET.with_dims(2), CONFIGURATIONS[0].with_dims(2)])
def test_rescaled_kernels_have_the_size_of_random_ones_and_the_output_stays(config: UNetConfig) -> None:
    torch.manual_seed(0)
    network = build_network(config.override(norm_epsilon=1e-10))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "conv" in name and "norm" not in name:
                parameter.mul_(6)  # as they grow in training
    x = torch.rand(4, 1, *(16,) * config.dims)
    network.train()(x)  # batch norm: averages of the grown kernels
    before = network.eval()(x)
    adapted, report = adapt(network, task="restoration", rescale=True)
    factors = rescale_kernels(network)
    assert f"{len(factors)} kernels rescaled" in report.summary()
    assert torch.allclose(network(x), before, atol=2e-4)
    assert torch.allclose(adapted(x), before, atol=2e-4)
    for name, factor in factors.items():
        kernel = network.get_submodule(name).get_parameter("weight")
        assert factor < 1
        assert kernel.norm().item() == pytest.approx((kernel.shape[0] / 3) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("config", [UNET, *CONFIGURATIONS[:2]])
def test_renewed_norms_are_those_of_a_new_network_and_kernels_stay(config: UNetConfig) -> None:
    network, new = build_network(config), dict(build_network(config).named_parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.25)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    adapted, report = adapt(network, task="cls", num_classes=2, fresh_norms=True)
    assert f"{report.renewed} norms begin anew" in report.summary()
    found = {name: one for name, one in adapted.named_parameters() if not name.startswith(adapted.head_prefix)}
    norms = {name for name in found if ".norm." in name}
    assert len(norms) == 2 * report.renewed > 0
    assert all(torch.equal(one, (new if name in norms else before)[name]) for name, one in found.items())
    assert all(torch.equal(one, before[name]) for name, one in network.named_parameters())  # a copy was changed
