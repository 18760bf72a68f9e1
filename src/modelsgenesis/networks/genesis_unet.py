"""The Genesis U-Net of Zhou et al. 2019, for two and three dimensions."""

from itertools import pairwise

from torch import Tensor, nn

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.networks.layers import ConvNormReLU, UNet, concatenate, convolution, layer, upsampling


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
        self.upsamplings = nn.ModuleList(upsampling(config.dims, deep, config.upsampling) for deep, _ in steps)
        self.levels = nn.ModuleList(  # `deep` channels were sampled up, `width` come over the skip
            nn.Sequential(ConvNormReLU(config, deep + width, width), ConvNormReLU(config, width, width))
            for deep, width in steps
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Go up from the deepest features, joining those of each level on the way."""
        x = features[-1]
        for up, level, skip in zip(self.upsamplings, self.levels, reversed(features[:-1]), strict=True):
            x = level(concatenate(skip, up(x)))
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
        self.head = convolution(config.dims, config.widths[0], config.out_channels, kernel=1)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Go from the features of every level to [b, out_channels, *spatial], before the last activation."""
        return self.head(self.decoder(features))
