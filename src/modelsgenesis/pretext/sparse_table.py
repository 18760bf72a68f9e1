"""The windows of local shuffling: which was written last at a voxel, and how each permutes its voxels.

Which of 10,000 overlapping windows is the last over each voxel is a range-maximum problem, solved by a sparse table of
two levels. Along one axis a window of side 7 is covered by blocks of length 1 or 4 that may overlap:

    window     . . # # # # # # # . .
    blocks         [4     ]
                         [4     ]        noted where each starts, in the map of length 4

A window notes its number, by maximum, where its blocks start in the map of their lengths: two to four notes an axis
instead of one a voxel. Afterwards each block of the longer map is spread over its voxels once, for all windows
together.

What does not depend on the draw is worked out once for a shape of patch. Voxels are numbered in memory order.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product

import torch
from torch import Tensor

from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.random import CounterRNG, Stream

_ENTRIES = 2**19  # of the table of permutations: 4 MB; random access to more is slow
_MOST_ENTRIES = 2**25  # 256 MB
_ADJACENT = 8  # blocks side by side in memory cost little


@dataclass(frozen=True)
class BlockCover:
    """How a window of any side along one axis is a union of a few blocks of one of two lengths.

    Attributes:
        blocks: For each window; they may overlap.
        lengths: 1, or 1 and a longer one. The longest that fits into a window covers it.

    Example:
        >>> cover = BlockCover.of(longest=12, adjacent=False)
        >>> cover.lengths, cover.starts(3), cover.starts(11)
        ((1, 4), [0, 1, 2], [0, 4, 7])
    """

    blocks: int
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, longest: int, *, adjacent: bool) -> "BlockCover":
        """Return the cover for sides up to `longest` along an axis that is adjacent in memory, or is not."""
        if longest == 1 or (adjacent and longest <= _ADJACENT):
            return cls(longest, (1,))
        blocks = next(count for count in range(1, longest) if count * (count + 1) >= longest)
        return cls(blocks, (1, blocks + 1))

    def level(self, side: int) -> int:
        """Return which length covers a window of this side."""
        return sum(length <= side for length in self.lengths) - 1

    def starts(self, side: int) -> list[int]:
        """Return where in a window of this side the blocks start, evenly from its first to its last voxel."""
        length = self.lengths[self.level(side)]
        return [math.ceil(block * (side - length) / max(self.blocks - 1, 1)) for block in range(self.blocks)]


@dataclass(frozen=True)
class WindowTable:
    """What is known of windows before any is drawn.

    Attributes:
        shape: Sides of the patch.
        longest: The longest window side along each axis. Window shapes are numbered from (1, 1, 1), the last
            axis fastest.
        permutations: Uniformly random permutations that are kept for each window shape. Each is read from any
            of its n entries on, going round: a window is permuted in one of `n * permutations` ways.
        starts: int64 [shapes], where in `sources` the permutations of a window shape start.
        sources: int32; first the number of every voxel of the patch, then permutation after permutation,
            each twice in a row. An entry of these is the distance of a voxel from the first of its window.
        covers: How windows are covered by blocks, along each axis.
        points: For each axis int64 [blocks, longest], where the blocks of a window of side 1, 2, … start; the
            sum over the axes counts from its first voxel, in maps of the patch laid one after another,
            one map for each combination of block lengths.
    """

    shape: tuple[int, ...]
    longest: tuple[int, ...]
    permutations: int
    starts: Tensor
    sources: Tensor
    covers: tuple[BlockCover, ...]
    points: tuple[Tensor, ...]


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the elements from one to the next along each axis of a contiguous array.

    Example:
        >>> strides((64, 64, 32))
        (2048, 32, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def ravel(places: Tensor, sides: Sequence[Tensor | int]) -> Tensor:
    """Return numbers of places within arrays of these sides: [k, axes, windows] to [k, windows].

    Example:
        >>> ravel(torch.tensor([[[1], [2], [3]]]), (4, 5, 6))
        tensor([[45]])
    """
    number, *rest = places.unbind(dim=1)
    for place, side in zip(rest, sides[1:], strict=True):
        number = number * side + place
    return number


@lru_cache(maxsize=8)
def window_table(shape: tuple[int, ...], fraction: int, device: torch.device) -> WindowTable:
    """Work out the table for a shape of patch; it is the same in every process.

    Args:
        shape: Sides of the patch.
        fraction: The longest window side is a side of the patch divided by this, at least 1.
        device: Where it is needed.

    Raises:
        ShapeError: The windows are so large that the table would take too much memory.
    """
    longest = tuple(max(side // fraction, 1) for side in shape)
    entries = math.prod(side * (side + 1) // 2 for side in longest)  # of one permutation for each window shape
    if entries > _MOST_ENTRIES:
        raise ShapeError(
            f"sides {shape}: expected local shuffling with windows smaller than up to {longest}; "
            f"use smaller patches or a shuffle_fraction above {fraction}"
        )
    permutations = max(_ENTRIES // entries, 1)
    windows = list(product(*(range(1, side + 1) for side in longest)))
    covers = tuple(BlockCover.of(side, adjacent=axis == len(shape) - 1) for axis, side in enumerate(longest))
    whole = torch.arange(math.prod(shape), dtype=torch.int32)
    sources = [
        whole,
        *(_permutations(number, window, shape, permutations) for number, window in enumerate(windows)),
    ]
    starts = list(accumulate(map(len, sources)))[:-1]
    return WindowTable(
        shape=shape,
        longest=longest,
        permutations=permutations,
        starts=torch.tensor(starts, device=device),
        sources=torch.cat(sources).to(device),
        covers=covers,
        points=tuple(points.to(device) for points in _points(shape, longest, covers)),
    )


def _permutations(number: int, window: tuple[int, ...], shape: tuple[int, ...], count: int) -> Tensor:
    """Return the voxels of a window in `count` random orders, each twice in a row, int32."""
    voxels = _sums(torch.arange(side) * stride for side, stride in zip(window, strides(shape), strict=True))
    rng = CounterRNG(torch.tensor([number]), Stream.TABLE, count * len(voxels))
    order = rng.words(count, len(voxels))[0].argsort(dim=1, stable=True)
    return voxels[order].repeat(1, 2).view(-1).int()


def _points(shape: tuple[int, ...], longest: tuple[int, ...], covers: tuple[BlockCover, ...]) -> Iterator[Tensor]:
    """Yield the `points` of a `WindowTable`."""
    maps = strides([len(cover.lengths) for cover in covers])
    for cover, side, stride, next_map in zip(covers, longest, strides(shape), maps, strict=True):
        sides = range(1, side + 1)
        starts = torch.tensor([cover.starts(side) for side in sides]) * stride
        starts += torch.tensor([[cover.level(side)] for side in sides]) * next_map * math.prod(shape)
        yield starts.T.contiguous()


def _sums(terms: Iterable[Tensor]) -> Tensor:
    """Return every sum of one entry of each term, the last term fastest."""
    total = torch.zeros(1, dtype=torch.int64)
    for term in terms:
        total = (total[:, None] + term).view(-1)
    return total


def last_window_per_voxel(table: WindowTable, sides: Tensor, firsts: Tensor) -> Tensor:
    """Find the last window over each voxel.

    Each window is noted where its blocks start, in the map of their lengths, over earlier ones. Then, axis
    by axis, the longer blocks are spread over the map of single voxels. This takes a few notes a window and a
    few steps a voxel, however many voxels the windows have together.

    Args:
        table: Of the patch.
        sides: int64 [k, axes, windows].
        firsts: int64 [k, windows], the first voxel of each window.

    Returns:
        int16, or int32 for very many windows, [k, voxels]: 0 for none, else 1 + its place in the order.
    """
    samples, windows = firsts.shape
    voxels = math.prod(table.shape)
    counted = torch.int16 if windows < 2**15 else torch.int32
    levels = [len(cover.lengths) for cover in table.covers]
    maps = torch.zeros(samples, *levels, voxels, dtype=counted, device=firsts.device)
    sample = torch.arange(samples, device=firsts.device)[:, None] * maps[0].numel()
    # [blocks, k * windows]: the blocks of one window after another would wait for the same lines of memory.
    points = (firsts + sample).view(1, -1)
    for starts, side in zip(table.points, sides.unbind(dim=1), strict=True):
        place = (side - 1).view(-1)
        of_axis = torch.stack([start.index_select(0, place) for start in starts])
        points = (points[:, None] + of_axis).flatten(0, 1)
    order = torch.arange(1, windows + 1, dtype=counted, device=firsts.device).repeat(len(points) * samples)
    maps.view(-1).scatter_reduce_(0, points.view(-1), order, "amax")
    for cover, stride in zip(table.covers, strides(table.shape), strict=True):
        single, *longer = maps.unbind(1)
        for blocks in longer:
            for shift in range(0, cover.lengths[1] * stride, stride):
                target = single[..., shift:]  # no border is crossed, since no block crosses one
                torch.maximum(target, blocks[..., : voxels - shift], out=target)
        maps = single
    return maps
