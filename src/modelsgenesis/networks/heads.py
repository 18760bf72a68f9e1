"""Task heads on an encoder."""

from einops import reduce
from torch import Tensor, nn

from modelsgenesis.configs import ClassifierConfig
from modelsgenesis.networks.genesis_unet import GenesisUNet


class Classifier(nn.Module):
    """An encoder, global average pooling, dense layers: [b, c, *spatial] to logits [b, num_classes].

    Args:
        config: The encoder's network and the head.
        network: The encoder-decoder whose encoder is used; its decoder is left behind.

    References:
        Zhou et al. 2021, target classification models: global average pooling, dense 1024 with ReLU, dense to
        the classes.
    """

    head_prefix = "head."

    def __init__(self, config: ClassifierConfig, network: GenesisUNet) -> None:
        super().__init__()
        self.config = config
        self.divisor = network.divisor
        self.encoder = network.encoder
        channels = network.feature_channels[-1]
        self.head = (
            nn.Sequential(
                nn.Linear(channels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.num_classes)
            )
            if config.hidden
            else nn.Linear(channels, config.num_classes)
        )

    def embed(self, x: Tensor) -> Tensor:
        """Return the average of the deepest features: [b, c, *spatial] to [b, widths[-1]]."""
        return reduce(self.encoder(x)[-1], "batch channels ... -> batch channels", "mean")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, num_classes]."""
        return self.head(self.embed(x))
