"""The Genesis U-Net of Zhou et al. 2019, and what all networks here have in common, for two and three dimensions."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelsgenesis.configs import GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.networks.batch_norm import BatchNorm


def layer(name: str, dims: int) -> Any:
    """Return torch's class of a layer for `dims` dimensions, such as `nn.Conv3d` for `"Conv"`."""
    return getattr(nn, f"{name}{dims}d")


def normalization(config: UNetConfig, channels: int) -> nn.Module:
    """Return the normalisation that `config` names, for [b, channels, *spatial]."""
    if config.norm == "batch":
        return BatchNorm(channels, config.norm_epsilon, config.statistics)
    if config.norm == "instance":
        # Affine, as in nnU-Net: without a scale and an offset of its own, a channel could not be switched off.
        return layer("InstanceNorm", config.dims)(channels, eps=config.norm_epsilon, affine=True)
    return nn.GroupNorm(config.norm_groups, channels, eps=config.norm_epsilon)


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


class ConvNormReLU(nn.Module):
    """3³ convolution, normalisation, ReLU: [b, in, *spatial] to [b, out, *spatial]."""

    def __init__(self, config: GenesisUNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = layer("Conv", config.dims)(in_channels, out_channels, 3, padding=1)
        self.norm = normalization(config, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three in turn."""
        return functional.relu(self.norm(self.convolution(x)))


class GenesisEncoder(nn.Module):
    """The contracting path: [b, in_channels, *spatial] to one tensor per level, highest resolution first."""

    def __init__(self, config: GenesisUNetConfig) -> None:
        super().__init__()
        inputs = (config.in_channels, *config.widths)
        self.levels = nn.ModuleList(
            # Half of a level's channels after its first convolution, all of them after its second.
            nn.Sequential(ConvNormReLU(config, before, width // 2), ConvNormReLU(config, width // 2, width))
            for before, width in pairwise(inputs)
        )
        self.pooling = layer("MaxPool", config.dims)(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level: [b, widths[i], *spatial / 2**i]."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(self.pooling(features[-1]) if features else x)
            features.append(x)
        return features


class GenesisDecoder(nn.Module):
    """The expanding path: features of every level to [b, widths[0], *spatial]."""

    def __init__(self, config: GenesisUNetConfig) -> None:
        super().__init__()
        steps = list(pairwise(reversed(config.widths)))  # (512, 256), (256, 128), (128, 64)
        self.upsamplings = nn.ModuleList(
            # Kernel = stride: the patches that neighbouring inputs paint do not overlap, so no checkerboard arises.
            nn.Upsample(scale_factor=2)
            if config.upsampling == "nearest"
            else layer("ConvTranspose", config.dims)(deep, deep, 2, 2)
            for deep, _ in steps
        )
        self.levels = nn.ModuleList(  # `deep` channels were sampled up, `width` come over the skip
            nn.Sequential(ConvNormReLU(config, deep + width, width), ConvNormReLU(config, width, width))
            for deep, width in steps
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Go up from the deepest features, joining those of each level on the way."""
        x = features[-1]
        for up, level, skip in zip(self.upsamplings, self.levels, reversed(features[:-1]), strict=True):
            x = level(torch.cat([up(x), skip], dim=1))
        return x


class GenesisUNet(UNet):
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
        self.decoder = GenesisDecoder(config)
        self.head = layer("Conv", config.dims)(config.widths[0], config.out_channels, 1)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Go from the features of every level to [b, out_channels, *spatial], before the last activation."""
        return self.head(self.decoder(features))
