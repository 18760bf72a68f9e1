"""The nnU-Net family against the package that nnU-Net itself uses."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from einops import rearrange
from torch import nn

from modelsgenesis.checkpoints import export_bundle
from modelsgenesis.configs import NNUNET_V1_GENESIS, RESENC_L, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.networks import NnUNet, build_network
from tiny_bundles import make_bundle

CONFIGURATIONS = {
    "plain_3d": PlainUNetConfig(widths=(4, 6, 8), out_channels=2),
    "plain_2d": PlainUNetConfig(dims=2, widths=(4, 8, 8), in_channels=3, convolutions=(1, 2, 3), norm="batch"),
    "plain_anisotropic": PlainUNetConfig(
        widths=(4, 6, 8),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 5)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        decoder_convolutions=(1, 3),
        negative_slope=0.1,
    ),
    "residual_3d": ResidualUNetConfig(widths=(4, 8, 8), blocks=(1, 2, 3)),
    "residual_2d": ResidualUNetConfig(dims=2, widths=(4, 8, 12), in_channels=2, decoder_convolutions=(2, 1)),
    "residual_anisotropic": ResidualUNetConfig(
        widths=(4, 6, 6),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (2, 1, 2)),
        convolution_bias=False,
        upsampling_bias=False,
    ),
}


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def built_by_nnunet(plan: dict[str, Any], in_channels: int, out_channels: int) -> nn.Module:
    """The network that the package of nnU-Net builds from a plan."""
    arguments = dict(plan["arch_kwargs"])
    for name in plan["arch_kwargs_requiring_import"]:
        arguments[name] = imported(arguments[name]) if arguments[name] else None
    architecture = imported(plan["arch_class_name"])
    return architecture(in_channels, num_classes=out_channels, deep_supervision=False, **arguments).eval()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_export_is_the_network_of_nnunet_key_for_key_and_number_for_number(tmp_path: Path, name: str) -> None:
    """Of arrays x, y, z, which nnU-Net's network takes as z, y, x."""
    config = CONFIGURATIONS[name]
    bundle = make_bundle(config)
    with torch.no_grad():  # norms begin as ones and zeros, with which a mistake could hide
        for parameter in bundle.network.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    content = torch.load(export_bundle(bundle, tmp_path / "x.pth", to="nnunet"), weights_only=True)
    plan = content["nnssl_adaptation_plan"]["architecture_plans"]
    theirs = built_by_nnunet(plan, config.in_channels, config.out_channels)
    theirs.load_state_dict(content["network_weights"], strict=True)

    ours = cast("NnUNet", bundle.network)
    turned = partial(rearrange, pattern="b c x y z -> b c z y x" if config.dims == 3 else "b c x y -> b c x y")
    x = torch.randn(2, config.in_channels, *(2 * step for step in ours.size_divisor))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), turned(theirs(turned(x))), atol=1e-4, rtol=0)
        for mine, other in zip(ours.features(x), theirs.encoder(turned(x)), strict=True):
            torch.testing.assert_close(mine, turned(other), atol=1e-4, rtol=0)


def test_heads_of_lower_stages_are_frozen_so_that_every_trained_parameter_gets_a_gradient() -> None:
    network = NnUNet(CONFIGURATIONS["plain_3d"])
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"]


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"), [(RESENC_L, 102_348_965, 264), (NNUNET_V1_GENESIS, 30_785_184, 98)]
)
def test_published_sizes(config: PlainUNetConfig | ResidualUNetConfig, parameters: int, tensors: int) -> None:
    network = build_network(config, "meta")
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


def test_sides_divide_by_the_product_of_the_strides_of_each_axis() -> None:
    with pytest.raises(ShapeError, match=r"sides \(3, 8, 9\) must divide by \(2, 4, 4\): pad to \(4, 8, 12\)"):
        NnUNet(CONFIGURATIONS["plain_anisotropic"])(torch.rand(1, 1, 3, 8, 9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4,)}, "widths: received 1 levels"),
        ({"kernels": ((3, 3, 3),)}, r"kernels: received 1 entries, expected 2"),
        ({"strides": ((1, 1), (2, 2))}, r"\(1, 1\) is not one number"),
        ({"strides": ((2, 2, 2), (2, 2, 2))}, "the first stage must keep the resolution"),
        ({"kernels": ((2, 2, 2), (3, 3, 3))}, "expected odd sizes"),
        ({"convolutions": (2, 0)}, "convolutions: received 0"),
    ],
)
def test_configurations_that_cannot_be_right(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PlainUNetConfig(**{"widths": (4, 8), **changes})


def test_dimensions_change_on_the_last_axis() -> None:
    flat = NNUNET_V1_GENESIS.with_dims(2)
    assert (flat.dims, flat.strides) == (2, ((1, 1), *((2, 2),) * 4, (1, 2)))
    assert flat.with_dims(3).strides == NNUNET_V1_GENESIS.strides
    assert CONFIGURATIONS["plain_anisotropic"].with_dims(2).kernels == ((1, 3), (3, 3), (3, 3))
