"""From a configuration to a network."""

from torch import nn

from modelsgenesis.configs import ClassifierConfig, NetworkConfig
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.heads import Classifier


def build_network(config: NetworkConfig) -> nn.Module:
    """Build the network that a configuration describes, with random weights.

    Under `torch.device("meta")` no memory is taken and no weight is given a value.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> sum(p.numel() for p in build_network(GENESIS_UNET_2019).parameters())
        19073665
    """
    if isinstance(config, ClassifierConfig):
        return Classifier(config, GenesisUNet(config.encoder))
    return GenesisUNet(config)
