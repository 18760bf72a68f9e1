"""From a configuration to a network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.networks.classifier import Classifier
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.nnunet import StagedUNet
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


def empty_network(config: NetworkConfig) -> nn.Module:
    """Build a network on the meta device for weights that are about to come: no memory, no random values.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> next(empty_network(GENESIS_UNET_2019).parameters()).is_meta
        True
    """
    with _Empty():
        return build_network(config)


class _Empty(TorchFunctionMode):
    """Like `torch.device("meta")`, and without initialisation: a third of the time."""

    _MAKING = frozenset((torch.empty, torch.zeros, torch.ones, torch.tensor))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", "") == nn.init.__name__:
            return named.get("tensor", args[0] if args else None)
        if func in self._MAKING:
            named["device"] = "meta"
        return func(*args, **named)


def _build_unet(config: UNetConfig) -> UNet:
    return GenesisUNet(config) if isinstance(config, GenesisUNetConfig) else StagedUNet(config)
