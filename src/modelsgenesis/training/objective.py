"""What a kind of training adds to the loop, and where a run is."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset


class Objective(ABC):
    """What a kind of training adds to the loop.

    Attributes:
        dataset: Maps an item `epoch * len(dataset) + index` to a sample; its length is the samples of an epoch.
    """

    dataset: Dataset[Any]

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss of a batch; the network is called under autocast."""

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the network, in evaluation mode and without gradients."""

    @abstractmethod
    def score(self, metrics: dict[str, float]) -> float:
        """Return the number that decides which network is kept; lower is better."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: Steps done.
        best_step: Step of the best validation.
        best_score: Its score; lower is better.
        stale: Validations since the best.
        metrics: Of the best validation.
        kept: SHA-256 of the weights in the bundle, which are of the best validation; "" before the first.
        first_losses: What a loss is compared with to tell a divergence.
    """

    step: int = 0
    best_step: int = 0
    best_score: float = math.inf
    stale: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    kept: str = ""
    first_losses: list[float] = field(default_factory=list)
