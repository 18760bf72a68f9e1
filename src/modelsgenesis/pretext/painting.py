"""In-painting hides boxes; out-painting hides all but boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.pretext.draws import Draws, mix, sides_tensor
from modelsgenesis.pretext.step import Step, check_sides

_BOXES = 5
_GOING_ON = 0.95  # chance of each further box
_BORDER = 3  # voxels between a box and the border


@dataclass(frozen=True)
class PaintingParameters:
    """The boxes of each sample; a sample without any, and not `outside`, stays as it is.

    Attributes:
        outside: bool [b]; True paints all but the boxes, False paints the boxes.
        starts: int64 [b, 5, axes], first voxel of each box.
        stops: int64 [b, 5, axes], one past its last voxel; a box that is not used stops where it starts.
        noise_keys: int64 [b], from which the fill of every voxel follows.
    """

    outside: Tensor
    starts: Tensor
    stops: Tensor
    noise_keys: Tensor


class Painting(Step[PaintingParameters]):
    """Paints boxes, or all but boxes, with uniform noise (or a constant per sample, by `painting_fill`).

    In-painting: up to 5 boxes, going on with probability 0.95 before each, sides from size//6 to size//3.
    Out-painting: 1 and up to 4 more boxes stay visible, sides from size − 4·size//7 to size − 3·size//7.
    Boxes keep 3 voxels from the border; on a thin axis where that leaves no room, as many as fit on both ends. Sides are
    at least 1. The target is not painted.

    Example:
        >>> deformed, target = Painting()(torch.zeros(2, 1, 16, 16, 16), torch.tensor([1, 2]))
        >>> bool((deformed > 0).any()), bool((target > 0).any())
        (True, False)

    References:
        Zhou et al. 2021, in-painting and out-painting (inner- and outer-cutout). The paper fills with a constant, the
        release with noise; noise is the default.
    """

    def sample(
        self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None
    ) -> PaintingParameters:
        """Draw kind and boxes; see `Step.sample`."""
        check_sides(shape)
        draws = Draws(seeds.to(device), stream=4)
        painted, kind = draws.uniform(2).unbind(dim=1)
        painted = painted < self.config.painting_probability
        outside = painted & (kind >= self.config.inpainting_share)
        size = sides_tensor(shape, seeds.device if device is None else torch.device(device))
        inner = draws.integers((size // 6).clamp_min(1), (size // 3).clamp_min(1), _BOXES, len(shape))
        outer = size - draws.integers(3 * size // 7, 4 * size // 7, _BOXES, len(shape))
        sides = torch.where(outside[:, None, None], outer, inner)
        border = ((size - sides) // 2).clamp_max(_BORDER)
        starts = draws.integers(border, size - sides - border, _BOXES, len(shape))
        going_on = draws.uniform(_BOXES) < _GOING_ON
        going_on[:, 0] |= outside  # out-painting has a first box always
        used = going_on.cumprod(dim=1).bool() & painted[:, None]
        return PaintingParameters(
            outside=outside,
            starts=starts,
            stops=starts + sides * used[:, :, None],
            noise_keys=draws.bits(),
        )

    def transform(self, batch: Tensor, parameters: PaintingParameters) -> tuple[Tensor, Tensor]:
        """Paint the deformed batch; see `Step.apply`."""
        painted = painted_mask(batch.shape[2:], parameters)[:, None]
        if self.config.painting_fill == "noise":
            count = batch[0].numel()
            fill = noise(parameters.noise_keys, count).view(batch.shape)
        else:
            fill = noise(parameters.noise_keys, 1).view(-1, *(1,) * (batch.ndim - 1))
        return torch.where(painted, fill.to(batch.dtype), batch), batch


def painted_mask(shape: Sequence[int], parameters: PaintingParameters) -> Tensor:
    """Return which voxels are painted, bool [b, *shape]."""
    covered = torch.ones((), dtype=torch.uint8, device=parameters.starts.device)
    bit = 2 ** torch.arange(_BOXES, device=parameters.starts.device)
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=parameters.starts.device)
        starts, stops = parameters.starts[:, :, axis, None], parameters.stops[:, :, axis, None]
        inside = (place >= starts) & (place < stops)  # [b, boxes, side]
        bits = (
            (inside * bit[:, None]).sum(dim=1).to(torch.uint8)
        )  # a bit per box, so that `&` intersects them all
        bits = bits.view(-1, *(side if other == axis else 1 for other in range(len(shape))))
        covered = bits if axis == 0 else covered & bits
    outside = parameters.outside.view(-1, *(1,) * len(shape))
    return (covered != 0) ^ outside


def noise(keys: Tensor, count: int) -> Tensor:
    """Return uniform noise in [0, 1) that follows from the keys: int64 [b] to float32 [b, count]."""
    hashed = mix(keys[:, None] + mix(torch.arange(count, device=keys.device)))
    return ((hashed >> 40) & (2**24 - 1)) * 2.0**-24
