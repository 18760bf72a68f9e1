"""Random flips of the sub-volume and its target alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modelsgenesis.pretext.draws import Draws, Stream
from modelsgenesis.pretext.step import Parameters, Step, check_sides


@dataclass(frozen=True, kw_only=True)
class FlipParameters(Parameters):
    """Which axes are reversed.

    Attributes:
        flipped: bool [b, axes]; two flips of one axis cancel out.
    """

    flipped: Tensor


class Flip(Step[FlipParameters]):
    """Flips a random spatial axis, and again, while a coin of `flip_probability` says so.

    Example:
        >>> from modelsgenesis.configs import PretextConfig
        >>> flip = Flip(PretextConfig(flip_probability=1.0, flip_limit=1))
        >>> batch = torch.rand(2, 1, 8, 8, 4)
        >>> deformed, target = flip(batch, torch.tensor([1, 2]))
        >>> torch.equal(deformed, target), torch.equal(deformed, batch)
        (True, False)

    References:
        Zhou et al. 2021. The release draws the axis over (channel, x, y), so that z never flips and one draw
        in three does nothing; here it is drawn over the spatial axes.
    """

    def sample(self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None) -> FlipParameters:
        """Draw which axes are reversed; see `Step.sample`."""
        check_sides(shape)
        limit = self.config.flip_limit
        draws = Draws(seeds.to(device), Stream.FLIP, 2 * limit)
        going_on = (draws.uniform(limit) < self.config.flip_probability).cumprod(dim=1)  # [b, limit]
        axis = draws.integers(0, len(shape) - 1, limit)
        flips = functional.one_hot(axis, len(shape)) * going_on[:, :, None]  # [b, limit, axes]
        return FlipParameters(drawn_for=(len(seeds), *shape), flipped=flips.sum(dim=1) % 2 == 1)

    def transform(self, batch: Tensor, parameters: FlipParameters) -> tuple[Tensor, Tensor]:
        """Flip deformed and target alike; see `Step.apply`."""
        flipped = batch.clone()
        for axis in range(batch.ndim - 2):
            chosen = parameters.flipped[:, axis].nonzero()[:, 0]
            flipped[chosen] = flipped[chosen].flip(axis + 2)
        return flipped, flipped
