"""From a configuration to a network; and the classifier, built around the encoder of another one."""

from contextlib import nullcontext
from typing import cast

import torch
from einops import reduce
from torch import Tensor, nn

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, NetworkConfig
from modelsgenesis.networks.genesis_unet import GenesisUNet, Network, UNet
from modelsgenesis.networks.nnunet import NnUNet


class Classifier(Network):
    """An encoder, global average pooling, dense layers: [b, c, *spatial] to logits [b, num_classes].

    Args:
        config: The encoder's network and the head.

    References:
        Zhou et al. 2021, target classification models: global average pooling, dense 1024 with ReLU, dense to
        the classes. `ClassifierConfig.levels` beside the deepest are a deliberate deviation: what was learnt by
        restoring need not be most telling at the bottom.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        unet = cast("UNet", build_network(config.encoder))  # whose decoder is left behind
        self.encoder, self.size_divisor = unet.encoder, unet.size_divisor
        self.pooled_levels = config.pooled_levels
        channels = sum(self.feature_channels[level] for level in self.pooled_levels)
        self.head = (
            nn.Sequential(nn.Linear(channels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.num_classes))
            if config.hidden
            else nn.Linear(channels, config.num_classes)
        )

    def embed(self, x: Tensor) -> Tensor:
        """Return the averages of the chosen levels: [b, c, *spatial] to [b, sum of their widths]."""
        features = self.features(x)
        return torch.cat([reduce(features[level], "b c ... -> b c", "mean") for level in self.pooled_levels], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, num_classes].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        return self.head(self.embed(x))


def build_network(config: NetworkConfig, device: str | None = None) -> Network:
    """Build the network that a configuration describes, with random weights.

    Args:
        config: Its shape.
        device: Where to; on `"meta"`, for weights that are about to come, it takes no memory and no random values.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> sum(p.numel() for p in build_network(GENESIS_UNET_2019, "meta").parameters())
        19073665
    """
    with torch.device(device) if device else nullcontext():
        if isinstance(config, ClassifierConfig):
            return Classifier(config)
        return GenesisUNet(config) if isinstance(config, GenesisUNetConfig) else NnUNet(config)
