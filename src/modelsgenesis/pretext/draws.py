"""Random numbers that depend on a sample's seed and nothing else, for a whole batch at once.

A `torch.Generator` per sample would need a loop over the samples, and one generator for the batch would make a sample's
deformation depend on its neighbours. So the numbers are hashes of (seed, stream, counter), in integer arithmetic that
wraps alike on every device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from modelsgenesis.errors import ShapeError

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2⁶⁴ divided by the golden ratio: successive counters land far apart
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def mix(x: Tensor) -> Tensor:
    """Scramble int64 so that every bit of the result depends on every bit of `x`.

    References:
        Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (SplitMix64's finaliser).
    """
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        x = (x ^ _shift_right(x, shift)) * multiplier
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, count: int) -> Tensor:
    return (x >> count) & (2 ** (64 - count) - 1)  # torch's shift copies the sign, a hash must not


def draw_seeds(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw one seed per sample, int64 [count], on the CPU.

    Example:
        >>> draw_seeds(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)


class Draws:
    """A stream of random numbers for every sample of a batch.

    Each call takes the next numbers of the stream; a sample's numbers are the same whatever the batch around it.

    Args:
        seeds: int64 [b].
        stream: Tells apart the users of one seed.
    """

    def __init__(self, seeds: Tensor, stream: int) -> None:
        if seeds.ndim != 1 or seeds.dtype != torch.int64:
            raise ShapeError(
                f"seeds: received {seeds.dtype} of shape {tuple(seeds.shape)}, expected int64 [batch]; see draw_seeds"
            )
        self._keys = mix(mix(seeds) + stream)
        self._position = 0

    def bits(self, *shape: int) -> Tensor:
        """Return int64 [b, *shape], all 64 bits random."""
        count = torch.Size(shape).numel()
        counters = torch.arange(self._position, self._position + count, device=self._keys.device)
        self._position += count
        return mix(self._keys[:, None] + counters * _GOLDEN).view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 [b, *shape] in [0, 1), multiples of 2⁻²⁴."""
        return _shift_right(self.bits(*shape), 40) * 2.0**-24

    def integers(self, low: Tensor | int, high: Tensor | int, *shape: int) -> Tensor:
        """Return int64 [b, *shape] from `low` to `high`, both included; bounds broadcast to the result."""
        return low + ((_shift_right(self.bits(*shape), 32) * (high - low + 1)) >> 32)


def sides_tensor(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the sides of a sub-volume as int64 [axes]."""
    return torch.tensor(tuple(shape), device=device)
