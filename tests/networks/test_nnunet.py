"""The nnU-Net family against the package that nnU-Net itself uses."""

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from modelsgenesis.configs import (
    NNUNET_V1_GENESIS,
    RESENC_L,
    PlainUNetConfig,
    ResidualUNetConfig,
)
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.networks import NnUNet, build_network

CONFIGURATIONS = {
    "plain_3d": PlainUNetConfig(widths=(4, 6, 8), out_channels=2),
    "plain_2d": PlainUNetConfig(dims=2, widths=(4, 8, 8, 8), in_channels=3, convolutions=(1, 2, 3, 2)),
    "plain_2d_batch_norm": PlainUNetConfig(
        dims=2, widths=(4, 8), norm="batch", convolution_bias=False, upsampling_bias=False
    ),
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


def oracle(config: PlainUNetConfig | ResidualUNetConfig) -> nn.Module:
    norms = {
        ("instance", 2): nn.InstanceNorm2d,
        ("instance", 3): nn.InstanceNorm3d,
        ("batch", 2): nn.BatchNorm2d,
    }
    residual = isinstance(config, ResidualUNetConfig)
    arguments: dict[str, Any] = {
        "input_channels": config.in_channels,
        "n_stages": len(config.widths),
        "features_per_stage": config.widths,
        "conv_op": nn.Conv2d if config.dims == 2 else nn.Conv3d,
        "kernel_sizes": config.kernels,
        "strides": config.strides,
        "num_classes": config.out_channels,
        "n_conv_per_stage_decoder": config.decoder_convolutions,
        "conv_bias": config.convolution_bias,
        "norm_op": norms[config.norm, config.dims],
        "norm_op_kwargs": {"eps": config.norm_epsilon, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": config.negative_slope, "inplace": True},
    }
    if residual:
        return ResidualEncoderUNet(**arguments, n_blocks_per_stage=config.blocks)
    return PlainConvUNet(**arguments, n_conv_per_stage=config.convolutions)


def without_aliases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    aliases = ("decoder.encoder.", ".all_modules.")
    return {name: tensor for name, tensor in weights.items() if not any(part in name for part in aliases)}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_is_the_network_of_nnunet_key_for_key_and_number_for_number(name: str) -> None:
    config = CONFIGURATIONS[name]
    theirs, ours = oracle(config).eval(), NnUNet(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    weights = without_aliases(theirs.state_dict())
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in weights.items()}
    ours.load_state_dict(weights)

    x = torch.randn(2, config.in_channels, *(2 * step for step in ours.size_divisor))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
        for mine, other in zip(ours.features(x), theirs.encoder(x), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


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
    assert build_network(NNUNET_V1_GENESIS, "meta").size_divisor == (16, 32, 32)
    network = NnUNet(CONFIGURATIONS["plain_anisotropic"])
    with pytest.raises(ShapeError, match=r"sides \(3, 8, 9\) must divide by \(2, 4, 4\): pad to \(4, 8, 12\)"):
        network(torch.rand(1, 1, 3, 8, 9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4,)}, "widths: received 1 levels"),
        ({"widths": (4, 8), "kernels": ((3, 3, 3),)}, r"kernels: received 1 entries, expected 2"),
        ({"widths": (4, 8), "strides": ((1, 1), (2, 2))}, r"\(1, 1\) is not one number"),
        ({"widths": (4, 8), "strides": ((2, 2, 2), (2, 2, 2))}, "the first stage must keep the resolution"),
        ({"widths": (4, 8), "kernels": ((2, 2, 2), (3, 3, 3))}, "expected odd sizes"),
        ({"widths": (4, 8), "convolutions": (2, 0)}, "convolutions: received 0"),
        ({"widths": (4, 8), "norm": "group"}, r"8 does not divide .4. channels"),
        ({"widths": (4, 8), "out_channels": 0}, "out_channels: received 0"),
    ],
)
def test_configurations_that_cannot_be_right(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PlainUNetConfig(**changes)


def test_dimensions_change_on_the_last_axis() -> None:
    flat = NNUNET_V1_GENESIS.with_dims(2)
    assert (flat.dims, flat.strides) == (2, ((1, 1), *((2, 2),) * 4, (1, 2)))
    assert flat.with_dims(3).strides == NNUNET_V1_GENESIS.strides
    assert CONFIGURATIONS["plain_anisotropic"].with_dims(2).kernels == ((1, 3), (3, 3), (3, 3))
