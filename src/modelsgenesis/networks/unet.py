"""What every encoder-decoder of this package has in common."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from modelsgenesis.configs import UNetConfig
from modelsgenesis.networks.layers import check_input

ConfigType = TypeVar("ConfigType", bound=UNetConfig)


class UNet(nn.Module, ABC, Generic[ConfigType]):
    """An encoder-decoder with skip connections. A subclass sets `config`, `encoder` and the rest below.

    Attributes:
        config: Its shape.
        encoder: [b, in_channels, *spatial] to one tensor a level, highest resolution first.
    """

    head_prefix: str
    """What the names of the task's own tensors begin with."""

    config: ConfigType
    encoder: nn.Module

    @property
    @abstractmethod
    def size_divisor(self) -> tuple[int, ...]:
        """What each side of an input must divide by."""

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of `features()`, highest resolution first."""
        return self.config.widths

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what every level of the encoder sees.

        Args:
            x: [b, in_channels, *spatial], prepared as the input contract says.

        Returns:
            One tensor a level, [b, widths[i], *spatial / stride], highest resolution first.

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        check_input(x, self.config.dims, self.config.in_channels, self.size_divisor)
        return self.encoder(x)

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Go from the features of every level to [b, out_channels, *spatial], before the last activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, in_channels, *spatial] to [b, out_channels, *spatial].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        x = self.decode(self.features(x))
        return torch.sigmoid(x) if self.config.output == "sigmoid" else x

    def initialize(self, module: nn.Module) -> None:
        """Give the parameters that `module` itself holds random values."""
        cast("nn.Linear", module).reset_parameters()
