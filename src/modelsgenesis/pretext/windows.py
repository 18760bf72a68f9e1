"""The windows of local shuffling: which was written last at a voxel, and from where in it the value comes.

Both questions are answered with work in proportion to the voxels of the sub-volume, not to those of its
windows, with tables worked out once for a shape of sub-volume. Voxels are numbered in memory order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, product

import torch
from torch import Tensor

from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.draws import Draws

_ENTRIES = 2**20  # in the table of permutations: 8 MB, more would leave the processor's cache
_MOST_ENTRIES = 2**26  # 512 MB
_ADJACENT = 8  # blocks side by side in memory cost little


@dataclass(frozen=True)
class Cover:
    """How a window of any side along one axis is a union of blocks of one or two lengths.

    Attributes:
        blocks: For a window; they may overlap.
        lengths: 1, or 1 and a longer one. The longest that fits into a window covers it.
    """

    blocks: int
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, longest: int, adjacent: bool) -> "Cover":
        """Return a cover for sides up to `longest`, along an axis that is adjacent in memory or not."""
        if longest == 1 or (adjacent and longest <= _ADJACENT):
            return cls(longest, (1,))
        blocks = next(count for count in range(1, longest) if count * (count + 1) >= longest)
        return cls(blocks, (1, blocks + 1))

    def level(self, side: int) -> int:
        """Return which length covers a window of this side."""
        return sum(length <= side for length in self.lengths) - 1

    def starts(self, side: int) -> list[int]:
        """Return where in a window of this side the blocks start."""
        length = self.lengths[self.level(side)]
        return [min(block * length, side - length) for block in range(self.blocks)]


@dataclass(frozen=True)
class WindowTable:
    """What is known of windows before any is drawn.

    Window shapes are numbered with the last axis fastest, from (1, 1, 1).

    Attributes:
        shape: Sides of the sub-volume.
        longest: The longest window side along each axis.
        permutations: Uniformly random permutations for each window shape. Each is used from any of its n entries on,
            going round, so that a window is permuted in one of `n * permutations` ways.
        starts: int64 [shapes], where in `sources` the permutations of a window shape start.
        sources: int32; first the number of every voxel of the sub-volume, then permutation after permutation, each
            twice in a row. An entry is the distance of a voxel from the first voxel of its window.
        covers: How windows are covered by blocks, for each axis.
        points: int64 [shapes, blocks], where the blocks of a window start, from its first voxel, in maps of last
            windows, one map for each combination of block lengths.
    """

    shape: tuple[int, ...]
    longest: tuple[int, ...]
    permutations: int
    starts: Tensor
    sources: Tensor
    covers: tuple[Cover, ...]
    points: Tensor

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Voxels from one to the next along each axis of the sub-volume."""
        return strides(self.shape)

    def number(self, sides: Tensor) -> Tensor:
        """Return the numbers of window shapes: int64 [k, axes, windows] to [k, windows]."""
        return sum((sides[:, axis] - 1) * stride for axis, stride in enumerate(strides(self.longest)))


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the elements from one to the next along each axis of a contiguous array.

    Example:
        >>> strides((64, 64, 32))
        (2048, 32, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def longest_sides(shape: Sequence[int], fraction: int) -> tuple[int, ...]:
    """Return the longest window side along each axis."""
    return tuple(max(side // fraction, 1) for side in shape)


@lru_cache(maxsize=8)
def window_table(shape: tuple[int, ...], fraction: int, device: torch.device) -> WindowTable:
    """Work out the table for a shape of sub-volume; it is the same in every process.

    Args:
        shape: Sides of the sub-volume.
        fraction: The longest window side is a side of the sub-volume divided by this.
        device: Where it is needed.

    Raises:
        ShapeError: The windows are so large that the table would take too much memory.
    """
    longest = longest_sides(shape, fraction)
    entries = math.prod(side * (side + 1) // 2 for side in longest)  # one permutation of each window shape
    if entries > _MOST_ENTRIES:
        raise ShapeError(
            f"sides {shape}: local shuffling with windows of up to {longest} voxels is out of proportion; "
            f"use smaller sub-volumes or a shuffle_fraction above {fraction}"
        )
    permutations = max(_ENTRIES // entries, 1)
    sides = list(product(*(range(1, side + 1) for side in longest)))
    sizes = [2 * permutations * math.prod(side) for side in sides]
    draws = Draws(torch.zeros(1, dtype=torch.int64), stream=0)
    whole = torch.arange(math.prod(shape), dtype=torch.int32)
    sources = torch.cat([whole, *(_permuted(side, strides(shape), permutations, draws) for side in sides)])
    covers = tuple(Cover.of(side, adjacent=axis == len(shape) - 1) for axis, side in enumerate(longest))
    return WindowTable(
        shape=shape,
        longest=longest,
        permutations=permutations,
        starts=torch.tensor(list(accumulate(sizes[:-1], initial=len(whole))), device=device),
        sources=sources.to(device),
        covers=covers,
        points=torch.tensor([_points(side, covers, shape) for side in sides], device=device),
    )


def _permuted(sides: tuple[int, ...], strides: tuple[int, ...], permutations: int, draws: Draws) -> Tensor:
    """Return the voxels of a window in random orders, each twice in a row: int32 [permutations * 2 * voxels]."""
    voxels = _sums(torch.arange(side) * stride for side, stride in zip(sides, strides, strict=True))
    order = draws.words(permutations, len(voxels))[0].argsort(dim=1, stable=True)
    return voxels[order].repeat(1, 2).view(-1).int()


def _points(sides: tuple[int, ...], covers: tuple[Cover, ...], shape: tuple[int, ...]) -> list[int]:
    """Return where the blocks of a window start: map number times voxels, plus distance from its first voxel."""
    maps = strides([len(cover.lengths) for cover in covers])
    number = sum(cover.level(side) * stride for cover, side, stride in zip(covers, sides, maps, strict=True))
    starts = (
        torch.tensor(cover.starts(side)) * stride
        for cover, side, stride in zip(covers, sides, strides(shape), strict=True)
    )
    return (number * math.prod(shape) + _sums(starts)).tolist()


def _sums(terms: Iterable[Tensor]) -> Tensor:
    """Return all sums with one entry of each term, the last term fastest."""
    total = torch.zeros(1, dtype=torch.int64)
    for term in terms:
        total = (total[:, None] + term).view(-1)
    return total


def last_windows(table: WindowTable, numbers: Tensor, firsts: Tensor) -> Tensor:
    """Find the last window over each voxel.

    Each window is marked where its blocks start, in the map of their lengths, by a maximum: later windows count higher.
    Then, axis by axis, the longer blocks are spread over the map of single voxels.

    Args:
        table: Of the sub-volume.
        numbers: int64 [k, windows], window shapes by their number.
        firsts: int64 [k, windows], the first voxel of each window.

    Returns:
        int16 (int32 for more windows than it can count) [k, voxels]: 0 for none, else 1 + its place in the order.
    """
    samples, windows = numbers.shape
    voxels = math.prod(table.shape)
    levels = [len(cover.lengths) for cover in table.covers]
    counted = torch.int16 if windows < 2**15 else torch.int32
    maps = torch.zeros(samples, *levels, voxels, dtype=counted, device=numbers.device)
    sample = torch.arange(samples, device=numbers.device)[:, None] * maps[0].numel()
    points = table.points.index_select(0, numbers.view(-1)).add_((firsts + sample).view(-1, 1))
    order = torch.arange(1, windows + 1, dtype=counted, device=numbers.device)[:, None]
    order = order.expand(samples, windows, points.shape[1]).reshape(-1)
    maps.view(-1).scatter_reduce_(0, points.view(-1), order, "amax")
    for cover, stride in zip(table.covers, table.strides, strict=True):
        single = maps[:, 0]
        if len(cover.lengths) > 1:
            for shift in range(0, cover.lengths[1] * stride, stride):  # no block reaches over the end of an axis
                target = single[..., shift:]
                torch.maximum(target, maps[:, 1, ..., : voxels - shift], out=target)
        maps = single
    return maps
