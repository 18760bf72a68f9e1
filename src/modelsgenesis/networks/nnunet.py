"""The nnU-Net family, plain and residual, in two and three dimensions.

The names of the parameters are those of nnU-Net v2's own networks (dynamic-network-architectures), each
tensor once: there every convolution and norm occurs again in `all_modules`, the encoder in the decoder.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from modelsgenesis.configs import PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.networks.genesis_unet import UNet, layer, normalization

NnUNetConfig = PlainUNetConfig | ResidualUNetConfig
Channels = tuple[int, int]
"""Channels before and after."""


class ConvNorm(nn.Module):
    """Convolution, normalisation and, unless told otherwise, leaky ReLU."""

    def __init__(
        self,
        config: NnUNetConfig,
        channels: Channels,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        bias: bool = True,
        activated: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)  # torch's own "same" refuses a stride
        bias = bias and config.convolution_bias
        self.conv = layer("Conv", config.dims)(*channels, tuple(kernel), tuple(stride), padding, bias=bias)
        self.norm = normalization(config, channels[1])
        self.negative_slope = config.negative_slope if activated else 1.0  # a slope of 1 changes nothing

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in, *spatial] to [b, out, *spatial / stride]."""
        x = self.norm(self.conv(x))
        return x if self.negative_slope == 1 else functional.leaky_relu(x, self.negative_slope, inplace=True)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip that pools and projects where resolution or channels change."""

    def __init__(self, config: NnUNetConfig, channels: Channels, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        before, after = channels
        same = (1,) * config.dims
        self.conv1 = ConvNorm(config, channels, kernel, stride)
        self.conv2 = ConvNorm(config, (after, after), kernel, same, activated=False)  # after the sum, see forward
        skip: list[nn.Module] = []
        if prod(stride) > 1:
            skip.append(layer("AvgPool", config.dims)(tuple(stride)))
        if before != after:  # without a bias, as in nnU-Net: the norm behind it would cancel one
            skip.append(ConvNorm(config, channels, same, same, bias=False, activated=False))
        self.skip = nn.Sequential(*skip)
        self.negative_slope = config.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in, *spatial] to [b, out, *spatial / stride]."""
        return functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), self.negative_slope, inplace=True)


def _stack(
    block: type[ConvNorm] | type[ResidualBlock],
    config: NnUNetConfig,
    channels: Channels,
    kernel: Sequence[int],
    stride: Sequence[int],
    count: int,
) -> nn.Sequential:
    """Return blocks in a row, of which the first changes channels and resolution, under nnU-Net's name for them."""
    first = block(config, channels, kernel, stride)
    after, same = (channels[1], channels[1]), (1,) * config.dims
    blocks = nn.Sequential(first, *(block(config, after, kernel, same) for _ in range(count - 1)))
    stack = nn.Sequential()
    stack.add_module("convs" if block is ConvNorm else "blocks", blocks)
    return stack


class NnUNetEncoder(nn.Module):
    """The contracting path: [b, in_channels, *spatial] to one tensor per stage, highest resolution first."""

    def __init__(self, config: NnUNetConfig) -> None:
        super().__init__()
        residual = isinstance(config, ResidualUNetConfig)
        kernels, strides = config.kernels, config.strides
        before = config.widths[0] if residual else config.in_channels
        stem = (ConvNorm, config, (config.in_channels, config.widths[0]), kernels[0], (1,) * config.dims, 1)
        self.stem = _stack(*stem) if residual else nn.Identity()
        counts = config.blocks if isinstance(config, ResidualUNetConfig) else config.convolutions
        stages = zip(pairwise((before, *config.widths)), kernels, strides, counts, strict=True)
        built = [_stack(ResidualBlock if residual else ConvNorm, config, *stage) for stage in stages]
        self.stages = nn.Sequential(*(built if residual else map(nn.Sequential, built)))  # nnU-Net nests the plain ones

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage: [b, widths[i], *spatial / stride]."""
        x = self.stem(x)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class NnUNetDecoder(nn.Module):
    """The expanding path: features of every stage to [b, out_channels, *spatial].

    Every stage has a 1³ convolution to the output, as in nnU-Net, where deep supervision uses them all. Only
    the last is used here; the others are kept so that a published file stays whole, and are frozen.
    """

    def __init__(self, config: NnUNetConfig) -> None:
        super().__init__()
        dims, widths, strides = config.dims, config.widths, config.strides
        up = range(len(widths) - 1, 0, -1)  # deepest first
        self.stages = nn.ModuleList(  # twice the width comes in: the skip and what was sampled up
            _stack(ConvNorm, config, (2 * widths[i - 1], widths[i - 1]), config.kernels[i - 1], (1,) * dims, count)
            for i, count in zip(up, config.decoder_convolutions, strict=True)
        )
        self.transpconvs = nn.ModuleList(
            layer("ConvTranspose", dims)(widths[i], widths[i - 1], strides[i], strides[i], bias=config.upsampling_bias)
            for i in up
        )
        self.seg_layers = nn.ModuleList(
            layer("Conv", dims)(widths[i - 1], config.out_channels, 1, bias=config.head_bias) for i in up
        )
        # A parameter without a gradient would stop DistributedDataParallel, and weight decay would shrink it.
        self.seg_layers[:-1].requires_grad_(False)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Go up from the deepest features, joining those of each stage on the way."""
        x = features[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, reversed(features[:-1]), strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        return self.seg_layers[-1](x)


class NnUNet(UNet):
    """A U-Net of the nnU-Net family; the configuration says whether plain or residual.

    Args:
        config: Stages, kernels, strides, normalisation and output.

    Example:
        >>> import torch
        >>> from modelsgenesis.configs import ResidualUNetConfig
        >>> network = NnUNet(ResidualUNetConfig(widths=(4, 8)))
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 4])
        >>> [tuple(stage.shape) for stage in network.features(torch.rand(1, 1, 8, 8, 4))]
        [(1, 4, 8, 8, 4), (1, 8, 4, 4, 2)]

    References:
        Isensee et al., nnU-Net, Nature Methods 18, 2021; nnU-Net Revisited, MICCAI 2024 (residual encoder).
    """

    head_prefix = "decoder.seg_layers."

    def __init__(self, config: NnUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_divisor = tuple(prod(steps) for steps in zip(*config.strides, strict=True))
        self.encoder = NnUNetEncoder(config)
        self.decoder = NnUNetDecoder(config)
        if not self.decoder.seg_layers[0].weight.is_meta:  # without values; asking for them imports torch's compiler
            for module in self.modules():
                if isinstance(module, (_ConvNd, ResidualBlock)):
                    self.initialize(module)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Go from the features of every stage to [b, out_channels, *spatial], before the last activation."""
        return self.decoder(features)

    def initialize(self, module: nn.Module) -> None:
        """Initialise as nnU-Net does: He's normal values, no biases, residual blocks that begin as skips."""
        if isinstance(module, _ConvNd):  # the base of transposed convolutions too
            nn.init.kaiming_normal_(module.weight, a=cast("NnUNetConfig", self.config).negative_slope)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock):
            nn.init.zeros_(cast("Tensor", module.conv2.norm.weight))  # the block adds nothing to its skip at first
        else:
            super().initialize(module)
