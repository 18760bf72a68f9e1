"""What the deformations share: parameters are sampled, then applied; the input is checked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import RangeError, ShapeError

_CACHED_VALUES = 2**20  # of a batch that are deformed together on a CPU: they stay in its cache


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """All that is random in a deformation of a batch.

    Attributes:
        drawn_for: Samples and sides that they were drawn for, (b, *spatial).
    """

    drawn_for: tuple[int, ...]


Drawn = TypeVar("Drawn", bound=Parameters)


class Step(ABC, Generic[Drawn]):
    """A deformation of a batch, each sample by its own seed.

    Args:
        config: Probabilities and sizes.
    """

    def __init__(self, config: PretextConfig | None = None) -> None:
        self.config = config or PretextConfig()

    @abstractmethod
    def sample(self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None) -> Drawn:
        """Draw all that is random, so that it can be kept, looked at and applied again.

        Args:
            shape: Sides of the sub-volumes, two or three.
            seeds: int64 [b], one per sample. The same seed gives the same parameters in any batch.
            device: Where the parameters go; where the seeds are by default.

        Returns:
            A frozen dataclass of tensors.

        Raises:
            ShapeError: Seeds or sides that cannot be.
        """

    @abstractmethod
    def transform(self, batch: Tensor, parameters: Drawn) -> tuple[Tensor, Tensor]:
        """Do what `apply` does, to a contiguous batch and with parameters that are known to be in order."""

    @torch.no_grad()
    def apply(self, batch: Tensor, parameters: Drawn) -> tuple[Tensor, Tensor]:
        """Deform a batch as the parameters say; the batch itself is left alone.

        Args:
            batch: [b, c, *spatial], float32 or bfloat16 in [0, 1]. What moves, moves in all channels alike.
            parameters: From `sample`, on the same device.

        Returns:
            The deformed batch and the target that a network restores from it, both [b, c, *spatial]. They may
            share memory with each other, and the target with the batch.

        Raises:
            ShapeError: The batch has the wrong axes or dtype, or the parameters were drawn for another shape.
            RangeError: Values outside [0, 1], or NaN.
        """
        check_batch(batch)
        shape = (len(batch), *batch.shape[2:])
        if parameters.drawn_for != shape:
            raise ShapeError(
                f"parameters: drawn for samples and sides {parameters.drawn_for}, received a batch with "
                f"{shape}; sample them for this batch"
            )
        return self.transform(batch.contiguous(), parameters)

    @torch.no_grad()
    def __call__(self, batch: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Sample and apply.

        Args:
            batch: As in `apply`.
            seeds: As in `sample`, one per sample of the batch.

        Returns:
            As `apply`. A sample comes out the same whatever the batch around it.

        Raises:
            ShapeError: The batch has the wrong axes or dtype, or there is not one seed per sample.
            RangeError: Values outside [0, 1], or NaN.
        """
        check_batch(batch)
        if len(seeds) != len(batch):
            raise ShapeError(f"seeds: received {len(seeds)} for a batch of {len(batch)}, expected one per sample")
        batch = batch.contiguous()
        part = max(_CACHED_VALUES // batch[0].numel(), 1) if batch.device.type == "cpu" else len(batch)
        if part >= len(batch):
            return self.transform(batch, self.sample(batch.shape[2:], seeds, batch.device))
        deformed, target = torch.empty_like(batch), torch.empty_like(batch)
        parts = (tensor.split(part) for tensor in (batch, seeds, deformed, target))
        for given, given_seeds, deformed_part, target_part in zip(*parts, strict=True):
            pair = self.transform(given, self.sample(given.shape[2:], given_seeds, given.device))
            deformed_part.copy_(pair[0])
            target_part.copy_(pair[1])
        return deformed, target


def check_batch(batch: Tensor) -> None:
    """Refuse a batch that the deformations would spoil.

    Raises:
        ShapeError: The batch has the wrong axes or dtype.
        RangeError: Values outside [0, 1], or NaN.
    """
    if batch.ndim not in (4, 5) or batch.numel() == 0:
        raise ShapeError(
            f"batch of shape {tuple(batch.shape)}: expected [batch, channels, *spatial] with two or three "
            "spatial axes and no empty one; add the missing axes with batch[None]"
        )
    if batch.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"batch of {batch.dtype}: expected float32 or bfloat16; convert it with batch.float()")
    low, high = torch.stack(torch.aminmax(batch)).tolist()
    if not (low >= 0 and high <= 1):  # this refuses NaN too
        raise RangeError(
            f"batch with values in [{low:g}, {high:g}]: the deformations assume [0, 1]; "
            "prepare scans by an intensity window or percentiles, not by z-scores"
        )


def check_sides(shape: Sequence[int]) -> None:
    """Refuse anything but two or three positive sides.

    Raises:
        ShapeError: There are more or fewer sides, or one is below 1.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ShapeError(
            f"sides {tuple(shape)}: expected two or three, each at least 1, without batch and channel axes"
        )
