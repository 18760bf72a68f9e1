"""From a configuration to a network."""

import torch
from torch import nn

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.networks.classifier import Classifier
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.nnunet import NnUNet
from modelsgenesis.networks.unet import UNet


def build_network(config: NetworkConfig) -> nn.Module:
    """Build the network that a configuration describes, with random weights.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> sum(p.numel() for p in build_network(GENESIS_UNET_2019).parameters())
        19073665
    """
    if isinstance(config, ClassifierConfig):
        return Classifier(config, _build_unet(config.encoder))
    return _build_unet(config)


def build_on_meta(config: NetworkConfig) -> nn.Module:
    """Build a network on the meta device for weights that are about to come: no memory, no random values.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> next(build_on_meta(GENESIS_UNET_2019).parameters()).is_meta
        True
    """
    with torch.device("meta"):
        return build_network(config)


def _build_unet(config: UNetConfig) -> UNet:
    return GenesisUNet(config) if isinstance(config, GenesisUNetConfig) else NnUNet(config)
