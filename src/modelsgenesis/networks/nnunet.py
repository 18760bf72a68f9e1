"""The nnU-Net family, plain and residual, in two and three dimensions.

The names of the parameters are those of nnU-Net v2's own networks (dynamic-network-architectures), each
tensor once: there every convolution and norm occurs again in `all_modules`, the encoder in the decoder.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from modelsgenesis.configs import PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.networks.genesis_unet import CONVOLUTION, TRANSPOSED, Network, conv_norm

NnUNetConfig = PlainUNetConfig | ResidualUNetConfig
Channels = tuple[int, int]
"""Channels before and after."""
Axes = Sequence[int]
"""One number for each spatial axis."""

_POOLING = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _conv(config: NnUNetConfig, channels: Channels, kernel: Axes, stride: Axes) -> nn.Sequential:
    """Return convolution, normalisation and leaky ReLU."""
    activation = nn.LeakyReLU(config.negative_slope, inplace=True)
    bias = config.convolution_bias
    return conv_norm(config, channels, activation=activation, name="conv", kernel=kernel, stride=stride, bias=bias)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip that pools and projects where resolution or channels change."""

    def __init__(self, config: NnUNetConfig, channels: Channels, kernel: Axes, stride: Axes) -> None:
        super().__init__()
        before, after = channels
        bias, point = config.convolution_bias, (1,) * config.dims
        self.conv1 = _conv(config, channels, kernel, stride)
        # Its activation follows the sum, see forward.
        self.conv2 = conv_norm(config, (after, after), activation=None, name="conv", kernel=kernel, bias=bias)
        skip: list[nn.Module] = []
        if prod(stride) > 1:
            skip.append(_POOLING[config.dims](tuple(stride)))
        if before != after:  # without a bias, as in nnU-Net: the norm behind it would cancel one
            skip.append(conv_norm(config, channels, activation=None, name="conv", kernel=point, bias=False))
        self.skip = nn.Sequential(*skip)
        self.negative_slope = config.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in, *spatial] to [b, out, *spatial / stride]."""
        return functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), self.negative_slope, inplace=True)


def _stack(
    block: Callable[..., nn.Module], config: NnUNetConfig, channels: Channels, kernel: Axes, stride: Axes, count: int
) -> nn.Sequential:
    """Return blocks in a row, of which the first changes channels and resolution, under nnU-Net's name for them."""
    first = block(config, channels, kernel, stride)
    after, same = (channels[1], channels[1]), (1,) * config.dims
    blocks = nn.Sequential(first, *(block(config, after, kernel, same) for _ in range(count - 1)))
    stack = nn.Sequential()
    stack.add_module("blocks" if block is ResidualBlock else "convs", blocks)
    return stack


class NnUNetEncoder(nn.Module):
    """The contracting path: [b, in_channels, *spatial] to one tensor per stage, highest resolution first."""

    def __init__(self, config: NnUNetConfig) -> None:
        super().__init__()
        residual = isinstance(config, ResidualUNetConfig)
        kernels, strides = config.kernels, config.strides
        before = config.widths[0] if residual else config.in_channels
        stem = (_conv, config, (config.in_channels, config.widths[0]), kernels[0], (1,) * config.dims, 1)
        self.stem = _stack(*stem) if residual else nn.Identity()
        counts = config.blocks if isinstance(config, ResidualUNetConfig) else config.convolutions
        stages = zip(pairwise((before, *config.widths)), kernels, strides, counts, strict=True)
        built = [_stack(ResidualBlock if residual else _conv, config, *stage) for stage in stages]
        self.stages = nn.Sequential(*(built if residual else map(nn.Sequential, built)))  # nnU-Net nests the plain ones

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage: [b, widths[i], *spatial / stride]."""
        x = self.stem(x)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class NnUNet(Network):
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
        dims, widths, strides = config.dims, config.widths, config.strides
        up = range(len(widths) - 1, 0, -1)  # deepest first
        stages = (  # twice the width comes in: the skip and what was sampled up
            _stack(_conv, config, (2 * widths[i - 1], widths[i - 1]), config.kernels[i - 1], (1,) * dims, count)
            for i, count in zip(up, config.decoder_convolutions, strict=True)
        )
        ups = (
            TRANSPOSED[dims](widths[i], widths[i - 1], strides[i], strides[i], bias=config.upsampling_bias) for i in up
        )
        # Every stage has a 1³ convolution to the output, as in nnU-Net, where deep supervision uses them all. Only the
        # last is used here; the others are kept so that a published file stays whole.
        heads = (CONVOLUTION[dims](widths[i - 1], config.out_channels, 1, bias=config.head_bias) for i in up)
        parts = {"stages": stages, "transpconvs": ups, "seg_layers": heads}
        self.decoder = nn.ModuleDict({name: nn.ModuleList(part) for name, part in parts.items()})
        # A parameter without a gradient would stop DistributedDataParallel, and weight decay would shrink it.
        self.decoder.seg_layers[:-1].requires_grad_(False)
        self.output = nn.Sigmoid() if config.output == "sigmoid" else nn.Identity()
        if not self.decoder.seg_layers[0].weight.is_meta:  # without values; asking for them imports torch's compiler
            for module in self.modules():
                if isinstance(module, (_ConvNd, ResidualBlock)):
                    self.initialize(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in_channels, *spatial] to [b, out_channels, *spatial].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        *skips, x = self.features(x)
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
        return self.output(self.decoder.seg_layers[-1](x))

    def initialize(self, module: nn.Module) -> None:
        """Initialise as nnU-Net does: He's normal values, no biases, residual blocks that begin as skips."""
        if isinstance(module, _ConvNd):  # the base of transposed convolutions too
            nn.init.kaiming_normal_(module.weight, a=cast("NnUNetConfig", self.config).negative_slope)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.get_parameter("norm.weight"))  # the block adds nothing to its skip at first
        else:
            module.reset_parameters()  # pyright: ignore[reportCallIssue] - every layer with parameters has it
