"""Layers for two and three spatial dimensions: one definition each, `dims` chooses."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelsgenesis.configs import GenesisUNetConfig, UNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.networks.batch_norm import BatchNorm

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLING = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOLING = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def convolution(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    bias: bool = True,
) -> nn.Module:
    """Return a padded convolution: [b, in, *spatial] to [b, out, *spatial / stride]; kernels are odd."""
    sizes = (kernel,) * dims if isinstance(kernel, int) else tuple(kernel)
    padding = tuple(size // 2 for size in sizes)
    return _CONVOLUTION[dims](in_channels, out_channels, sizes, stride, padding, bias=bias)


def pooling(dims: int) -> nn.Module:
    """Return 2x max pooling: [b, c, *spatial] to [b, c, *spatial / 2]."""
    return _POOLING[dims](2)


def average_pooling(dims: int, stride: Sequence[int]) -> nn.Module:
    """Return average pooling: [b, c, *spatial] to [b, c, *spatial / stride]."""
    return _AVERAGE_POOLING[dims](tuple(stride))


def transposed_convolution(
    dims: int, in_channels: int, out_channels: int, stride: Sequence[int], bias: bool = True
) -> nn.Module:
    """Return one with kernel = stride: [b, in, *spatial] to [b, out, *spatial * stride]."""
    return _TRANSPOSED[dims](in_channels, out_channels, tuple(stride), tuple(stride), bias=bias)


def upsampling(dims: int, channels: int, kind: Literal["transposed", "nearest"]) -> nn.Module:
    """Return 2x up-sampling that keeps the channels: [b, c, *spatial] to [b, c, *spatial * 2]."""
    if kind == "nearest":
        return nn.Upsample(scale_factor=2, mode="nearest")
    return transposed_convolution(dims, channels, channels, (2,) * dims)


def normalization(config: UNetConfig, channels: int) -> nn.Module:
    """Return the normalisation that `config` names, for [b, channels, *spatial]."""
    if config.norm == "batch":
        return BatchNorm(channels, config.norm_epsilon, config.statistics)
    if config.norm == "instance":
        return _INSTANCE_NORM[config.dims](channels, eps=config.norm_epsilon, affine=True)
    return nn.GroupNorm(config.norm_groups, channels, eps=config.norm_epsilon)


class ConvNormReLU(nn.Module):
    """3³ convolution, normalisation, ReLU: [b, in, *spatial] to [b, out, *spatial]."""

    def __init__(self, config: GenesisUNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = convolution(config.dims, in_channels, out_channels)
        self.norm = normalization(config, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three in turn."""
        return functional.relu(self.norm(self.convolution(x)))


def check_input(x: Tensor, dims: int, channels: int, divisor: int | Sequence[int]) -> None:
    """Refuse an input that a U-Net cannot take and say which shape it could.

    Args:
        x: Input, expected [b, channels, *spatial] with `dims` spatial axes.
        dims: Spatial dimensions of the network.
        channels: Channels of the network.
        divisor: What each side must divide by: one number, or one an axis.

    Raises:
        ShapeError: The number of axes, the channels or a side does not fit.
    """
    axes = "batch channels height width" if dims == 2 else "batch channels x y z"
    if x.ndim != dims + 2:
        raise ShapeError(f"input of shape {tuple(x.shape)}: expected {dims + 2} axes [{axes}]")
    if x.shape[1] != channels:
        raise ShapeError(f"input of shape {tuple(x.shape)}: expected {channels} channels on axis 1, not {x.shape[1]}")
    sides = tuple(x.shape[2:])
    divisors = (divisor,) * dims if isinstance(divisor, int) else tuple(divisor)
    if any(side % step or side == 0 for side, step in zip(sides, divisors, strict=True)):
        fitting = tuple(max(-(-side // step), 1) * step for side, step in zip(sides, divisors, strict=True))
        raise ShapeError(f"input sides {sides} must divide by {divisors}: pad to {fitting}")


def concatenate(skip: Tensor, upsampled: Tensor) -> Tensor:
    """Join two tensors of equal spatial shape along the channels."""
    return torch.cat([upsampled, skip], dim=1)
