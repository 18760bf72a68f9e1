"""In-painting hides boxes; out-painting hides all but boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.pretext.draws import Draws, Stream
from modelsgenesis.pretext.step import Parameters, Step, check_sides

_BOXES = 5
_GOING_ON = 0.95  # chance of each further box
_BORDER = 3  # voxels between a box and the border
_GOLDEN = 0x9E3779B9 - 2**32  # 2³² divided by the golden ratio


@dataclass(frozen=True, kw_only=True)
class PaintingParameters(Parameters):
    """The boxes of each sample. One without any, and not `outside`, stays as it is.

    Attributes:
        outside: bool [b]; True paints all but the boxes, False paints the boxes.
        starts: int64 [b, boxes, axes], first voxel of each box.
        stops: int64 [b, boxes, axes], one past its last voxel; a box that is not used stops where it starts.
        noise_keys: int64 [b], from which the fill of every voxel follows.
    """

    outside: Tensor
    starts: Tensor
    stops: Tensor
    noise_keys: Tensor


class Painting(Step[PaintingParameters]):
    """Paints boxes, or all but boxes, with uniform noise, or by `painting_fill` with a constant per sample.

    In-painting: up to 5 boxes, going on with probability 0.95 before each, with sides from size // 6 to
    size // 3. Out-painting: 1 and up to 4 more boxes stay visible, with sides from size − 4 · size // 7 to
    size − 3 · size // 7. Boxes keep 3 voxels from each border, or as many as a thin axis has room for: below
    9 voxels for in-painting, 14 for out-painting. Sides are at least 1. Channels are painted at the same
    voxels, each with its own noise. The target is not painted.

    Example:
        >>> deformed, target = Painting()(torch.zeros(2, 1, 16, 16, 16), torch.tensor([1, 2]))
        >>> bool((deformed > 0).any()), bool((target > 0).any())
        (True, False)

    References:
        Zhou et al. 2021, in-painting and out-painting (inner- and outer-cutout). The paper fills with a
        constant, the release with noise; noise is the default.
    """

    def sample(
        self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None
    ) -> PaintingParameters:
        """Draw kinds and boxes; see `Step.sample`."""
        check_sides(shape)
        draws = Draws(seeds.to(device), Stream.PAINTING, 3 + _BOXES * (3 * len(shape) + 1))
        painting, kind = draws.uniform(2).unbind(dim=1)
        noise_keys = draws.words(1)[:, 0]
        painted = painting < self.config.painting_probability
        outside = painted & (kind >= self.config.inpainting_share)
        size = torch.tensor(tuple(shape), device=painting.device)
        inner = draws.integers((size // 6).clamp_min(1), (size // 3).clamp_min(1), _BOXES, len(shape))
        outer = size - draws.integers(3 * size // 7, 4 * size // 7, _BOXES, len(shape))
        sides = torch.where(outside[:, None, None], outer, inner)
        border = ((size - sides) // 2).clamp_max(_BORDER)
        starts = draws.integers(border, size - sides - border, _BOXES, len(shape))
        going_on = draws.uniform(_BOXES) < _GOING_ON
        going_on[:, 0] |= outside  # the first box of out-painting is always there
        used = going_on.cumprod(dim=1) * painted[:, None]
        return PaintingParameters(
            drawn_for=(len(seeds), *shape),
            outside=outside,
            starts=starts,
            stops=starts + sides * used[:, :, None],
            noise_keys=noise_keys,
        )

    def transform(self, batch: Tensor, parameters: PaintingParameters) -> tuple[Tensor, Tensor]:
        """Paint the deformed batch; see `Step.apply`."""
        each = batch[0].numel() if self.config.painting_fill == "noise" else 1
        fill = noise(parameters.noise_keys, each)
        fill = fill.view(batch.shape if each > 1 else (-1, *(1,) * (batch.ndim - 1))).to(batch.dtype)
        return torch.where(painted_mask(parameters)[:, None], fill, batch), batch


def painted_mask(parameters: PaintingParameters) -> Tensor:
    """Return which voxels are painted, bool [b, *spatial]."""
    samples, *shape = parameters.drawn_for
    device = parameters.starts.device
    bit = 2 ** torch.arange(_BOXES, device=device)[:, None]
    covering = parameters.starts.new_full((1,) * (1 + len(shape)), 2**_BOXES - 1, dtype=torch.uint8)
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=device)
        inside = (parameters.starts[..., axis, None] <= place) & (place < parameters.stops[..., axis, None])
        boxes = (inside * bit).sum(dim=1).to(torch.uint8)  # a bit for each box: & intersects all at once
        covering = covering & boxes.view(samples, *(side if other == axis else 1 for other in range(len(shape))))
    return (covering.clamp_(max=1) ^ parameters.outside.view(-1, *(1,) * len(shape))).view(torch.bool)


def noise(keys: Tensor, count: int) -> Tensor:
    """Return uniform noise that follows from the keys.

    Args:
        keys: int64 [b]; their lower 32 bits count.
        count: Values for each.

    Returns:
        float32 [b, count] in [0, 1), multiples of 2⁻¹⁶.

    References:
        Appleby, MurmurHash3: its 32-bit finaliser, which takes half the memory of `draws.mix`.
    """
    pairs = torch.arange(-(-count // 2), dtype=torch.int32, device=keys.device)  # each hash gives two values
    x = (pairs * _GOLDEN) ^ keys.int()[:, None]
    shifted = torch.empty_like(x)
    for shift, multiplier in ((16, 0x85EBCA6B - 2**32), (13, 0xC2B2AE35 - 2**32), (16, 1)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        shifted &= 2 ** (32 - shift) - 1  # torch's shift copies the sign, a hash must not
        x ^= shifted
        x *= multiplier
    return (x.view(torch.int16)[:, :count] * 2.0**-16).add_(0.5)
