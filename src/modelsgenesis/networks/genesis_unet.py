"""The Genesis U-Net of Zhou et al. 2019, and what all networks here have in common, for two and three dimensions."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from modelsgenesis.configs import GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.networks.batch_norm import BatchNorm

# Torch's layers by the number of spatial dimensions.
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_POOLING = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def conv_norm(
    config: UNetConfig,
    channels: tuple[int, int],
    *,
    activation: nn.Module | None,
    name: str = "convolution",
    kernel: Sequence[int] = (),
    stride: Sequence[int] = (),
    bias: bool = True,
) -> nn.Sequential:
    """Return convolution, normalisation, activation in a row: [b, before, *spatial] to [b, after, *spatial / stride].

    Args:
        config: Of the network; names the normalisation.
        channels: Before and after.
        activation: The last layer, if there is one.
        name: Of the convolution, in the names of its parameters.
        kernel: Its sides; 3 everywhere by default.
        stride: Its steps; 1 everywhere by default.
        bias: Whether it has one.
    """
    sides, steps = tuple(kernel or (3,) * config.dims), tuple(stride or (1,) * config.dims)
    padding = tuple(side // 2 for side in sides)  # torch's own "same" refuses a stride
    norm: nn.Module
    if config.norm == "batch":
        norm = BatchNorm(channels[1], config.norm_epsilon, config.statistics)
    elif config.norm == "instance":
        # Affine, as in nnU-Net: without a scale and an offset of its own, a channel could not be switched off.
        norm = _INSTANCE_NORM[config.dims](channels[1], eps=config.norm_epsilon, affine=True)
    else:
        norm = nn.GroupNorm(config.norm_groups, channels[1], eps=config.norm_epsilon)
    layers = {name: CONVOLUTION[config.dims](*channels, sides, steps, padding, bias=bias), "norm": norm}
    return nn.Sequential(OrderedDict(layers | ({"activation": activation} if activation else {})))


class Network(nn.Module):
    """The base of every network: an encoder whose levels can be seen.

    Attributes:
        config: Its shape.
        head_prefix: Beginning of the names of the tensors that belong to the task alone.
        size_divisor: What each side of an input must divide by.
        encoder: [b, in_channels, *spatial] to one tensor per level, highest resolution first.
        decoder: Of a U-Net: what samples up, and the levels that follow, deepest first.
    """

    config: NetworkConfig
    head_prefix: str = "head."
    size_divisor: tuple[int, ...]
    encoder: nn.Module
    decoder: Any

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level of the encoder.

        Args:
            x: [b, in_channels, *spatial], prepared as the input contract says.

        Returns:
            One tensor per level, [b, config.unet.widths[i], *spatial / stride], highest resolution first.

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


class GenesisEncoder(nn.Module):
    """The contracting path: [b, in_channels, *spatial] to one tensor per level, highest resolution first."""

    def __init__(self, config: GenesisUNetConfig) -> None:
        super().__init__()
        block = partial(conv_norm, config, activation=nn.ReLU())
        self.levels = nn.ModuleList(
            # Half of a level's channels after its first convolution, all of them after its second.
            nn.Sequential(block((before, width // 2)), block((width // 2, width)))
            for before, width in pairwise((config.in_channels, *config.widths))
        )
        self.pooling = _POOLING[config.dims](2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level: [b, widths[i], *spatial / 2**i]."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(self.pooling(features[-1]) if features else x)
            features.append(x)
        return features


class GenesisUNet(Network):
    """Encoder-decoder with skip connections that restores, or segments, a patch.

    Args:
        config: Dimensions, widths, normalisation, up-sampling and output.

    Example:
        >>> import torch
        >>> from modelsgenesis.configs import GenesisUNetConfig
        >>> network = GenesisUNet(GenesisUNetConfig(widths=(4, 8)))
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 4])
        >>> [tuple(level.shape) for level in network.features(torch.rand(1, 1, 8, 8, 4))]
        [(1, 4, 8, 8, 4), (1, 8, 4, 4, 2)]

    References:
        Zhou et al., Models Genesis, MICCAI 2019 and Medical Image Analysis 67, 2021. With the defaults of
        `GENESIS_UNET_2019` it is the published network; `statistics="running"` is a deliberate deviation.
    """

    def __init__(self, config: GenesisUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_divisor = (2 ** (len(config.widths) - 1),) * config.dims  # each level below the first halves them
        self.encoder = GenesisEncoder(config)
        steps = list(pairwise(reversed(config.widths)))  # (512, 256), (256, 128), (128, 64)
        # Kernel = stride: the patches that neighbouring inputs paint do not overlap, so no checkerboard arises.
        ups = (
            nn.Upsample(scale_factor=2) if config.upsampling == "nearest" else TRANSPOSED[config.dims](deep, deep, 2, 2)
            for deep, _ in steps
        )
        block = partial(conv_norm, config, activation=nn.ReLU())
        # `deep` channels were sampled up, `width` come over the skip.
        levels = (nn.Sequential(block((deep + width, width)), block((width, width))) for deep, width in steps)
        self.decoder = nn.ModuleDict({"upsamplings": nn.ModuleList(ups), "levels": nn.ModuleList(levels)})
        self.head = CONVOLUTION[config.dims](config.widths[0], config.out_channels, 1)
        self.output = nn.Sigmoid() if config.output == "sigmoid" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in_channels, *spatial] to [b, out_channels, *spatial].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        *skips, x = self.features(x)
        for up, level in zip(self.decoder.upsamplings, self.decoder.levels, strict=True):
            x = level(torch.cat([up(x), skips.pop()], dim=1))
        return self.output(self.head(x))
