"""Task heads on an encoder."""

from typing import cast

import torch
from einops import reduce
from torch import Tensor, nn

from modelsgenesis.configs import ClassifierConfig
from modelsgenesis.networks.layers import check_input
from modelsgenesis.networks.unet import UNet


class Classifier(nn.Module):
    """An encoder, global average pooling, dense layers: [b, c, *spatial] to logits [b, num_classes].

    Args:
        config: The encoder's network and the head.
        network: The encoder-decoder whose encoder is used; its decoder is left behind.

    References:
        Zhou et al. 2021, target classification models: global average pooling, dense 1024 with ReLU, dense to
        the classes. `ClassifierConfig.levels` beside the deepest are a deliberate deviation: what was learnt by
        restoring need not be most telling at the bottom.
    """

    head_prefix = "head."

    def __init__(self, config: ClassifierConfig, network: UNet) -> None:
        super().__init__()
        self.config = config
        self.size_divisor = network.size_divisor
        self.feature_channels = network.feature_channels
        self.encoder = network.encoder
        channels = sum(network.feature_channels[level] for level in config.pooled_levels)
        self.head = (
            nn.Sequential(nn.Linear(channels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.num_classes))
            if config.hidden
            else nn.Linear(channels, config.num_classes)
        )

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what every level of the encoder sees, as `UNet.features` does.

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        check_input(x, self.config.encoder.dims, self.config.encoder.in_channels, self.size_divisor)
        return self.encoder(x)

    def embed(self, x: Tensor) -> Tensor:
        """Return the averages of the chosen levels: [b, c, *spatial] to [b, sum of their widths]."""
        features = self.features(x)
        pooled = [
            reduce(features[level], "batch channels ... -> batch channels", "mean")
            for level in self.config.pooled_levels
        ]
        return torch.cat(pooled, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, num_classes].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        return self.head(self.embed(x))

    def initialize(self, module: nn.Module) -> None:
        """Give the parameters that `module` itself holds random values."""
        cast("nn.Linear", module).reset_parameters()
