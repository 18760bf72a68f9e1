"""In-painting hides boxes; out-painting hides all but boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.pretext.draws import Draws
from modelsgenesis.pretext.step import Step, check_sides

_BOXES = 5
_GOING_ON = 0.95  # chance of each further box
_GOLDEN = 0x9E3779B9 - 2**32  # 2³² divided by the golden ratio
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
        size = torch.tensor(tuple(shape), device=draws.device)
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
            noise_keys=draws.words(),
        )

    def transform(self, batch: Tensor, parameters: PaintingParameters) -> tuple[Tensor, Tensor]:
        """Paint the deformed batch; see `Step.apply`."""
        painted = painted_mask(batch.shape[2:], parameters)[:, None]
        constant = self.config.painting_fill == "constant"
        fill = noise(parameters.noise_keys, 1 if constant else batch[0].numel())
        fill = fill.view(-1, *(1,) * (batch.ndim - 1)) if constant else fill.view(batch.shape)
        return torch.where(painted, fill.to(batch.dtype), batch), batch


def painted_mask(shape: Sequence[int], parameters: PaintingParameters) -> Tensor:
    """Return which voxels are painted, bool [b, *shape]."""
    device = parameters.starts.device
    bit = 2 ** torch.arange(_BOXES, device=device)[:, None]
    covered = torch.full((1,) * (len(shape) + 1), 2**_BOXES - 1, dtype=torch.uint8, device=device)
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=device)
        inside = (place >= parameters.starts[:, :, axis, None]) & (place < parameters.stops[:, :, axis, None])
        boxes = (
            (inside * bit).sum(dim=1).to(torch.uint8)
        )  # a bit for each box, so that & intersects them all at once
        covered = covered & boxes.view(-1, *(side if other == axis else 1 for other in range(len(shape))))
    outside = parameters.outside.view(-1, *(1,) * len(shape))
    return (covered.clamp_(max=1) ^ outside).view(torch.bool)


def noise(keys: Tensor, count: int) -> Tensor:
    """Return uniform noise in [0, 1), multiples of 2⁻¹⁶, that follows from the keys: int64 [b] to float32 [b, count].

    References:
        Appleby, MurmurHash3 (the 32-bit finaliser). In 32 bits it takes half the memory of `draws.mix`.
    """
    counters = torch.arange(
        -(-count // 2), dtype=torch.int32, device=keys.device
    )  # each hash gives two values
    x = counters * _GOLDEN ^ keys.int()[:, None]
    shifted = torch.empty_like(x)
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        shifted &= 2 ** (32 - shift) - 1
        x ^= shifted
        x *= multiplier - 2**32 if multiplier >= 2**31 else multiplier
    return x.view(torch.int16)[:, :count] * 2.0**-16 + 0.5
