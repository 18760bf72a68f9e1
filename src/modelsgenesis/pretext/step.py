"""What the deformations share: all that is random is drawn from the seeds, then applied; the input is checked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import RangeError, ShapeError


class Step(ABC):
    """One deformation of a batch, each sample by its own seed.

    Drawing and applying are apart, so that what was drawn can be looked at, and drawn elsewhere.

    Args:
        config: Probabilities and sizes.
    """

    def __init__(self, config: PretextConfig | None = None) -> None:
        self.config = config or PretextConfig()

    @abstractmethod
    def draw(self, shape: Sequence[int], seeds: Tensor) -> Any:
        """Draw all that is random for patches of two or three sides: tensors on the device of the seeds, int64 [b]."""

    @abstractmethod
    def apply(self, batch: Tensor, drawn: Any) -> Tensor:
        """Deform a contiguous batch [b, c, *spatial] in [0, 1] by what was drawn; the batch is left alone."""

    @torch.no_grad()
    def __call__(self, batch: Tensor, seeds: Tensor) -> Tensor:
        """Deform a batch.

        Args:
            batch: [b, c, *spatial], float32 or bfloat16 in [0, 1]. What moves, moves in all channels alike.
            seeds: int64 [b]. A sample comes out the same whatever the batch around it.

        Returns:
            The deformed batch.

        Raises:
            ShapeError: The batch has the wrong axes or dtype, or there is not one seed per sample.
            RangeError: Values outside [0, 1], or NaN.
        """
        check_batch(batch, seeds)
        return self.apply(batch.contiguous(), self.draw(batch.shape[2:], seeds.to(batch.device)))


def check_batch(batch: Tensor, seeds: Tensor) -> None:
    """Refuse a batch that the deformations would spoil; errors as of `Step`."""
    if batch.ndim not in (4, 5) or batch.numel() == 0:
        raise ShapeError(
            f"batch of shape {tuple(batch.shape)}: expected [batch, channels, *spatial] with two or three "
            "spatial axes and no empty one; add the missing axes with batch[None]"
        )
    if batch.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"batch of {batch.dtype}: expected float32 or bfloat16; convert it with batch.float()")
    if len(seeds) != len(batch):
        raise ShapeError(f"seeds: received {len(seeds)} for a batch of {len(batch)}, expected one per sample")
    low, high = torch.stack(torch.aminmax(batch)).tolist()
    if not (low >= 0 and high <= 1):  # this refuses NaN too
        raise RangeError(
            f"batch with values in [{low:g}, {high:g}]: the deformations assume [0, 1]; "
            "prepare scans by an intensity window or percentiles, not by z-scores"
        )
