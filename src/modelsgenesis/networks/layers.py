"""Layers for two and three spatial dimensions, one definition each, and what all networks here have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelsgenesis.configs import GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.networks.batch_norm import BatchNorm


def layer(name: str, dims: int) -> Any:
    """Return torch's class of a layer for `dims` dimensions, such as `nn.Conv3d` for `"Conv"`."""
    return getattr(nn, f"{name}{dims}d")


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
    padding = tuple(size // 2 for size in sizes)  # torch's own "same" refuses a stride
    return layer("Conv", dims)(in_channels, out_channels, sizes, stride, padding, bias=bias)


def upsampling(dims: int, channels: int, kind: Literal["transposed", "nearest"]) -> nn.Module:
    """Return 2x up-sampling that keeps the channels: [b, c, *spatial] to [b, c, *spatial * 2]."""
    # Kernel = stride: the patches that neighbouring inputs paint do not overlap, so no checkerboard arises.
    return nn.Upsample(scale_factor=2) if kind == "nearest" else layer("ConvTranspose", dims)(channels, channels, 2, 2)


def normalization(config: UNetConfig, channels: int) -> nn.Module:
    """Return the normalisation that `config` names, for [b, channels, *spatial]."""
    if config.norm == "batch":
        return BatchNorm(channels, config.norm_epsilon, config.statistics)
    if config.norm == "instance":
        # Affine, as in nnU-Net: without a scale and an offset of its own, a channel could not be switched off.
        return layer("InstanceNorm", config.dims)(channels, eps=config.norm_epsilon, affine=True)
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


class Network(nn.Module, ABC):
    """The base of every network: an encoder whose levels can be seen.

    Attributes:
        config: Its shape.
        head_prefix: Beginning of the names of the tensors that belong to the task alone.
        size_divisor: What each side of an input must divide by.
        encoder: [b, in_channels, *spatial] to one tensor per level, highest resolution first.
    """

    config: NetworkConfig
    head_prefix: str = "head."
    size_divisor: tuple[int, ...]
    encoder: nn.Module

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of `features()`, highest resolution first."""
        return self.config.unet.widths

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level of the encoder.

        Args:
            x: [b, in_channels, *spatial], prepared as the input contract says.

        Returns:
            One tensor per level, [b, feature_channels[i], *spatial / stride], highest resolution first.

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        unet, steps = self.config.unet, self.size_divisor
        if x.ndim != unet.dims + 2:
            axes = "batch channels height width" if unet.dims == 2 else "batch channels x y z"
            raise ShapeError(f"input of shape {tuple(x.shape)}: expected {unet.dims + 2} axes [{axes}]")
        if x.shape[1] != unet.in_channels:
            raise ShapeError(
                f"input of shape {tuple(x.shape)}: expected {unet.in_channels} channels on axis 1, not {x.shape[1]}"
            )
        # A side that does not divide would be floored on the way down and not meet its skip on the way up.
        sides = tuple(x.shape[2:])
        fitting = tuple(max(-(-side // step), 1) * step for side, step in zip(sides, steps, strict=True))
        if sides != fitting:
            raise ShapeError(f"input sides {sides} must divide by {steps}: pad to {fitting}")
        return self.encoder(x)

    def initialize(self, module: nn.Module) -> None:
        """Give the parameters that `module` itself holds random values."""
        module.reset_parameters()  # pyright: ignore[reportCallIssue] - every layer with parameters has it


class UNet(Network):
    """An encoder-decoder with skip connections. A subclass decodes."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Go from the features of every level to [b, out_channels, *spatial], before the last activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in_channels, *spatial] to [b, out_channels, *spatial].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        x = self.decode(self.features(x))
        return torch.sigmoid(x) if self.config.unet.output == "sigmoid" else x


def concatenate(skip: Tensor, upsampled: Tensor) -> Tensor:
    """Join two tensors of equal spatial shape along the channels."""
    return torch.cat([upsampled, skip], dim=1)  # in this order in both families: published kernels depend on it
