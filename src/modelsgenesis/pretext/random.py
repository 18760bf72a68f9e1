"""Random numbers that depend on a sample's seed and nothing else, for a whole batch at once.

A `torch.Generator` per sample would need a loop over the samples, and one generator for the batch would make
a sample's deformation depend on its neighbours. So the numbers are hashes of (seed, stream, counter), in
integer arithmetic that wraps alike on every device.
"""

import math
from collections.abc import Sequence
from enum import IntEnum, unique

import torch
from torch import Tensor

from modelsgenesis.errors import ShapeError

_STREAM = 0xD1342543DE82EF95  # any large odd number
_GOLDEN = 0x9E3779B97F4A7C15  # 2⁶⁴ divided by the golden ratio: successive counters land far apart
_GOLDEN_32 = 0x9E3779B9 - 2**32  # 2³² divided by the golden ratio
_WORD = 2**32


def mix(x: Tensor) -> Tensor:
    """Scramble int64 so that every bit of the result depends on every bit of `x`.

    References:
        Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (SplitMix64).
    """
    rounds = ((30, _wrap(0xBF58476D1CE4E5B9)), (27, _wrap(0x94D049BB133111EB)), (31, 1))
    return _scramble(x.clone(), rounds, bits=64)


def _scramble(x: Tensor, rounds: Sequence[tuple[int, int]], bits: int) -> Tensor:
    """Shift, exclusive-or and multiply in place, round after round."""
    shifted = torch.empty_like(x)
    for shift, multiplier in rounds:
        torch.bitwise_right_shift(x, shift, out=shifted)
        shifted &= 2 ** (bits - shift) - 1  # torch's shift copies the sign, a hash must not
        x ^= shifted
        x *= multiplier
    return x


def _wrap(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63  # into int64


def draw_seeds(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw one seed per sample, int64 [count], on the generator's device.

    Example:
        >>> draw_seeds(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    device = None if generator is None else generator.device
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator, device=device)


@unique
class Stream(IntEnum):
    """Users of a seed: each draws from a stream of its own, so that a new deformation changes none of the others."""

    TABLE = 0
    FLIP = 1
    SHUFFLING = 2
    WINDOWS = 3
    INTENSITY = 4
    PAINTING = 5


class CounterRNG:
    """Random numbers for every sample of a batch, taken one after another: a counter-based generator.

    Those of a sample do not depend on the batch around it. All are hashed at once, since many small
    operations would take longer than the hashing.

    Args:
        seeds: int64 [b].
        stream: Use of the numbers.
        count: Numbers that each sample takes in all.

    Raises:
        ShapeError: The seeds are not a vector of int64.

    Example:
        >>> seeds = torch.tensor([7, 8])
        >>> both, second = CounterRNG(seeds, Stream.FLIP, 3), CounterRNG(seeds[1:], Stream.FLIP, 3)
        >>> torch.equal(both.uniform(3)[1:], second.uniform(3))
        True
    """

    def __init__(self, seeds: Tensor, stream: Stream, count: int) -> None:
        if seeds.ndim != 1 or seeds.dtype != torch.int64:
            raise ShapeError(
                f"seeds: received {seeds.dtype} of shape {tuple(seeds.shape)}, expected int64 [batch]; "
                "draw_seeds makes them"
            )
        counters = torch.arange(-(-count // 2), device=seeds.device) * _wrap(_GOLDEN)  # each hash gives two words
        keys = mix(seeds ^ _wrap(stream * _STREAM))
        self._words = mix(keys[:, None] + counters).view(torch.int32).long()
        self._words &= _WORD - 1
        self._taken = 0

    def words(self, *shape: int) -> Tensor:
        """Return int64 [b, *shape], uniform in 0 … 2³² − 1."""
        first, self._taken = self._taken, self._taken + math.prod(shape)
        return self._words[:, first : self._taken].unflatten(1, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 [b, *shape], uniform in [0, 1), multiples of 2⁻²⁴."""
        return (self.words(*shape) >> 8) * 2.0**-24

    def integers(self, low: Tensor | int, high: Tensor | int, *shape: int) -> Tensor:
        """Return int64 [b, *shape] from `low` to `high`, both included, which broadcast to the result."""
        return low + take(self.words(*shape), high - low + 1)[0]


def take(words: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
    """Take uniform numbers in 0 … count − 1 out of uniform words; what is left of the words is uniform again.

    Example:
        >>> numbers, rest = take(torch.tensor([0, 2**31, 2**32 - 1]), 6)
        >>> numbers, take(rest, 10)[0]
        (tensor([0, 3, 5]), tensor([0, 0, 9]))
    """
    product = words * count
    return product >> 32, product & (_WORD - 1)


def hashed_noise(keys: Tensor, count: int) -> Tensor:
    """Return uniform noise that follows from the keys.

    Args:
        keys: int64 [b]; their lower 32 bits count.
        count: Values for each.

    Returns:
        float32 [b, count] in [0, 1), multiples of 2⁻¹⁶.

    References:
        Appleby, MurmurHash3: its 32-bit finaliser, which takes half the memory of `mix`.
    """
    pairs = torch.arange(-(-count // 2), dtype=torch.int32, device=keys.device)  # each hash gives two values
    rounds = ((16, 0x85EBCA6B - 2**32), (13, 0xC2B2AE35 - 2**32), (16, 1))
    x = _scramble((pairs * _GOLDEN_32) ^ keys.int()[:, None], rounds, bits=32)
    return (x.view(torch.int16)[:, :count] * 2.0**-16).add_(0.5)  # from −1/2 … 1/2
