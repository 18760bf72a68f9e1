"""Random numbers that depend on a sample's seed and nothing else, for a whole batch at once.

A `torch.Generator` per sample would need a loop over the samples, and one generator for the batch would make
a sample's deformation depend on its neighbours. So the numbers are hashes of (seed, stream, counter), in
integer arithmetic that wraps alike on every device.
"""

import math
import zlib
from collections.abc import Callable, Hashable
from functools import wraps
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

# Each use of a seed draws from a stream of its own, so that a new one changes none of the others. These are numbered
# by their place, on which every result so far depends; the number of any other name is its checksum.
_STREAMS = ("table", "flip", "shuffle", "windows", "intensity", "painting")

Result = TypeVar("Result")


def kept(make: Callable[..., Result]) -> Callable[..., Result]:
    """Keep what a function makes of a shape, numbers and a device: made in each step it would be waited for.

    Not `lru_cache`: `torch.compile` would make everything anew in each call; what is in a dictionary it is given.
    """
    results: dict[tuple[Hashable, ...], Result] = {}

    @wraps(make)
    def get(*arguments: Hashable) -> Result:
        if arguments not in results:
            if len(results) >= _MOST:
                results.pop(next(iter(results)))
            results[arguments] = make(*arguments)
        return results[arguments]

    vars(get)["forget"] = results.clear
    return get


_MOST = 32  # results of a function that are kept
_FEW = 64  # words of each of these streams that are hashed together: all but those of the windows


def _number(place: int) -> int:
    return (place * 0xD1342543DE82EF95 + 2**63) % 2**64 - 2**63  # by any large odd number, wrapped into int64


_NUMBERS = tuple(map(_number, range(len(_STREAMS))))
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2⁶⁴ divided by the golden ratio: successive counters land far apart
GOLDEN_32 = 0x9E3779B9 - 2**32  # 2³² divided by the golden ratio

# Shift, then factor, of each round.
_ROUNDS = {
    torch.int64: ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1)),
    torch.int32: ((16, 0x85EBCA6B - 2**32), (13, 0xC2B2AE35 - 2**32), (16, 1)),
}


def scramble(x: Tensor) -> Tensor:
    """Scramble int64 or int32 in place, so that every bit of the result depends on every bit of `x`.

    References:
        Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (SplitMix64), for 64 bits;
        Appleby, MurmurHash3, its finaliser, for 32.
    """
    shifted = torch.empty_like(x)
    for shift, factor in _ROUNDS[x.dtype]:
        torch.bitwise_right_shift(x, shift, out=shifted)
        shifted &= 2 ** (8 * x.itemsize - shift) - 1  # torch's shift copies the sign, a hash must not
        x ^= shifted
        if factor != 1:
            x *= factor
    return x


def draw_seeds(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw one seed per sample, int64 [count], on the generator's device.

    Example:
        >>> draw_seeds(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    device = None if generator is None else generator.device
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator, device=device)


class HashedSeeds(NamedTuple):
    """Seeds, and the first words of every stream but the long ones, hashed together: as cheap as those of one."""

    seeds: Tensor  # int64 [b]
    words: Tensor  # int64 [b, streams, _FEW]


Seeds = Tensor | HashedSeeds
"""One seed per sample, as int64 [b] or with their first words."""


def hash_seeds(seeds: Tensor) -> HashedSeeds:
    """Draw the first words of all streams in one go."""
    return HashedSeeds(seeds, _words(scramble(seeds[:, None] ^ constant(_NUMBERS, seeds.device)), _FEW))


def draw_words(seeds: Seeds, stream: str, *shape: int, device: torch.device | None = None) -> Tensor:
    """Draw random words for every sample of a batch; those of a sample do not depend on the batch around it.

    Args:
        seeds: int64 [b], or what `hash_seeds` made of them.
        stream: Name of what the numbers are for.
        shape: How many each sample gets. A shorter shape gets the first of the same numbers.
        device: Where they are needed; None where the seeds are.

    Returns:
        int64 [b, *shape], uniform in 0 … 2³² − 1; see `uniform` and `take` for other distributions.

    Example:
        >>> seeds = torch.tensor([7, 8])
        >>> torch.equal(draw_words(seeds, "flip", 3)[1:], draw_words(seeds[1:], "flip", 3))
        True
    """
    count = math.prod(shape)
    if isinstance(seeds, HashedSeeds):
        if stream in _STREAMS and count <= _FEW:
            return seeds.words[:, _STREAMS.index(stream), :count].unflatten(1, shape)
        seeds = seeds.seeds
    number = _NUMBERS[_STREAMS.index(stream)] if stream in _STREAMS else _number(zlib.crc32(stream.encode()))
    return _words(send(scramble(seeds ^ number), device), count).unflatten(1, shape)


def _words(keys: Tensor, count: int) -> Tensor:
    """Hash keys [...] with counters to int64 [..., count]."""
    counters = multiples(-(-count // 2), _GOLDEN, torch.int64, keys.device)  # each hash gives two words
    words = scramble(keys[..., None] + counters).view(torch.int32).long()
    words &= 2**32 - 1
    return words[..., :count]


@kept
def multiples(count: int, step: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 0, `step`, 2 · `step` …; they may wrap."""
    return torch.arange(count, dtype=dtype, device=device) * step


@kept
def constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return whole numbers as a tensor of a device."""
    return torch.tensor(values, device=device)


def send(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Bring a small tensor to where it is needed; CUDA alone, which copies it first, need not be waited for."""
    return tensor if device is None else tensor.to(device, non_blocking=device.type == "cuda")


def uniform(words: Tensor) -> Tensor:
    """Return uniform words as float32 in [0, 1), multiples of 2⁻²⁴."""
    return (words >> 8) * 2.0**-24


def take(words: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
    """Take uniform numbers in 0 … count − 1 out of uniform words; what is left of the words is uniform again.

    Example:
        >>> numbers, rest = take(torch.tensor([0, 2**31, 2**32 - 1]), 6)
        >>> numbers, take(rest, 10)[0]
        (tensor([0, 3, 5]), tensor([0, 0, 9]))
    """
    product = words * count
    return product >> 32, product & (2**32 - 1)
