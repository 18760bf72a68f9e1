"""Local shuffling: thousands of small windows, each with its voxels permuted.

Which of 10,000 overlapping windows is the last over each voxel is a range-maximum problem, solved by a sparse table of
two levels. Along one axis a window of side 7 is covered by blocks of length 1 or 4 that may overlap:

    window     . . # # # # # # # . .
    blocks         [4     ]
                         [4     ]        noted where each starts, in the map of length 4

A window notes its number, by maximum, where its blocks start in the map of their lengths: two to four notes per axis
instead of one per voxel. Afterwards each block of the longer map is spread over its voxels once, for all windows
together.

What does not depend on the draw is worked out once for a shape of patch. Voxels are numbered in memory order.
"""

import math
import operator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product

import torch
from einops import rearrange, repeat
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.random import draw_words, take, uniform

_CACHED_VOXELS = 2**17  # voxels at a time on a CPU: what is worked out for them stays in its cache
_ENTRIES = 2**19  # of the table of permutations: 4 MB; random access to more is slow
_MOST_ENTRIES = 2**25  # 256 MB
_ADJACENT = 8  # blocks side by side in memory cost little


def shuffle(batch: Tensor, seeds: Tensor, config: PretextConfig) -> Tensor:
    """Permute the voxels within each of `shuffle_windows` windows.

    A window side is uniform in 1 … size // `shuffle_fraction` (at least 1), its place anywhere inside. Each
    window takes voxels of the undeformed patch; later windows overwrite earlier ones. So some voxels
    occur twice and some are lost. All channels move alike, so that they stay in register. A patch with
    all sides below `2 * shuffle_fraction` has windows of one voxel, and does not change.

    Permutations come from a table, made once, of uniformly random ones, each of which a window enters at a
    random place and reads going round. So a voxel takes the value of any voxel of its window with the same
    probability, exactly; and the table, of all shapes together, permutes windows in half a million ways, 50
    for each window of a patch.

    Example:
        >>> shuffle(torch.rand(2, 1, 32, 32, 16), torch.tensor([1, 2]), PretextConfig()).shape
        torch.Size([2, 1, 32, 32, 16])

    References:
        Zhou et al. 2021, local pixel shuffling.
    """
    deformed = batch.clone()
    chosen = (uniform(draw_words(seeds, "shuffle", 1)[:, 0]) < config.shuffle_probability).nonzero()[:, 0]
    if not len(chosen):
        return deformed
    table = window_table(tuple(batch.shape[2:]), config.shuffle_fraction, batch.device)
    origins, sides, variants = draw_windows(table, seeds[chosen], config.shuffle_windows)
    values = rearrange(batch[chosen], "k c x ... -> c (k x) (...)")  # the planes of all samples one after another
    shuffled = torch.empty_like(values)
    planes, plane = values.shape[1:]
    firsts = (origins * torch.tensor(table.strides, device=batch.device)[:, None]).sum(dim=1)
    last = last_window_per_voxel(table, sides, firsts).reshape(planes, plane)
    lookup = window_lookup(table, origins, firsts, sides, variants)
    step = max(_CACHED_VOXELS // plane, 1) if batch.device.type == "cpu" else planes
    reach = table.longest[0] - 1  # planes between a voxel and the farthest that it can come from
    for begin in range(0, planes, step):
        end = min(begin + step, planes)
        number = torch.arange(begin, end, dtype=torch.int32, device=batch.device)
        window = last[begin:end].int()
        window += (number // table.shape[0] * (config.shuffle_windows + 1))[:, None]
        source = sources(window.view(-1), number % table.shape[0], lookup, table)
        lowest, highest = max(begin - reach, 0), min(end + reach, planes)
        source -= lowest * plane
        for given, result in zip(values, shuffled, strict=True):  # channel by channel
            near = given[lowest:highest].clone()  # read in order it lies in the cache when read at random
            torch.index_select(near.view(-1), 0, source, out=result[begin:end].view(-1))
    deformed[chosen] = rearrange(shuffled, "c (k x) plane -> k c x plane", k=len(chosen)).reshape(-1, *batch.shape[1:])
    return deformed


def draw_windows(table: "WindowTable", seeds: Tensor, windows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the windows of k samples, in the order in which they are written.

    Returns:
        origins: int64 [k, axes, windows], first voxel of each window.
        sides: int64 [k, axes, windows].
        variants: int64 [k, windows], in which of its ways a window is permuted; see `WindowTable`.
    """
    axes = len(table.shape)
    words = draw_words(seeds, "windows", axes + 1, windows)
    size, longest = torch.tensor([table.shape, table.longest], device=seeds.device)[..., None]
    sides, rest = take(words[:, :axes], longest)
    sides += 1
    origins, _ = take(rest, size - sides + 1)  # the rest of the same word: half the hashing
    variants, _ = take(words[:, axes], sides.prod(dim=1) * table.permutations)
    return origins, sides, variants


def window_lookup(table: "WindowTable", origins: Tensor, firsts: Tensor, sides: Tensor, variants: Tensor) -> Tensor:
    """Return what `sources` must know of each window: int32 [1 + axes, k * (windows + 1)].

    The first window of each sample stands for none: it is the whole patch, in its own order.

    A voxel at (x, y, z) of the patch, in a window with origin (x0, y0, z0) and sides (a, b, c), is number
    ((x − x0)·b + y − y0)·c + z − z0 of the window. It takes the value of the voxel that the window's permutation names
    at that place, counted from where the permutation is entered. Multiplied out, the entry of the table is
    start + x·(b·c) + y·c + z with one `start` a window, into which the origin, the place of the permutation in the
    table and the entry are folded: so a voxel needs a look-up of its window and two multiplications.

    Returns:
        The entry of `table.sources` for the voxel (0, 0, 0) of the patch, were it in the window; the
        steps of that entry along each axis but the last, where it is 1; the window's first voxel.
    """
    (samples, windows), along = variants.shape, sides.unbind(dim=1)
    *steps, voxels = accumulate(reversed(along), operator.mul)
    steps.reverse()  # [b·c, c]
    permutation = variants // voxels  # the remainder is where it is entered
    # A permutation lies twice in a row, so that a window reads on over its end: number p begins at 2 p voxels, and is
    # entered at the remainder, which makes variants + p voxels. The origin is taken off, since voxels are counted from
    # that of the patch.
    start = table.starts[tuple(side - 1 for side in along)] + variants + permutation * voxels
    start -= sum(origin * step for origin, step in zip(origins.unbind(dim=1), (*steps, 1), strict=True))
    whole = table.strides[:-1]
    lookup = torch.zeros(1 + len(along), samples, windows + 1, dtype=torch.int32, device=firsts.device)
    for row, none, each in zip(lookup, (0, *whole, 0), (start, *steps, firsts), strict=True):
        row[:, 0] = none
        row[:, 1:] = each
    lookup[-1] += torch.arange(samples, device=firsts.device)[:, None] * math.prod(table.shape)
    return lookup.flatten(1)


def sources(window: Tensor, planes: Tensor, lookup: Tensor, table: "WindowTable") -> Tensor:
    """Return the voxels from which those of some planes take their values.

    Args:
        window: int32 [planes * plane], the last window over each voxel.
        planes: int32 [planes], the place of each along the first axis of its patch.
        lookup: From `window_lookup`.
        table: Table of the shape of patch.

    Returns:
        int32 [planes * plane], numbers of voxels in the whole batch.
    """
    start, *steps, first = lookup
    others = (torch.arange(side, dtype=torch.int32, device=window.device) for side in table.shape[1:])
    axes = [planes, *others]
    entry = start.index_select(0, window)
    other = torch.empty_like(entry)
    for step, place, stride in zip(steps, axes, table.strides, strict=False):
        torch.index_select(step, 0, window, out=other)
        other.view(-1, len(place), stride).mul_(place[:, None])
        entry += other
    entry.view(-1, len(axes[-1])).add_(axes[-1])
    torch.index_select(table.sources, 0, entry, out=other)
    torch.index_select(first, 0, window, out=entry)
    return other.add_(entry)


@dataclass(frozen=True)
class WindowTable:
    """Everything about windows that does not depend on the draw.

    Attributes:
        shape: Sides of the patch.
        strides: Voxels from one to the next along each axis.
        longest: The longest window side along each axis.
        permutations: Uniformly random permutations that are kept for each window shape. Each is read from any
            of its n entries on, going round: a window is permuted in one of `n * permutations` ways.
        starts: int64 [*longest], where in `sources` the permutations of a window shape start.
        sources: int32; first the number of every voxel of the patch, then permutation after permutation,
            each twice in a row. An entry of these is the distance of a voxel from the first of its window.
        blocks: Length of the longer blocks along each axis, 1 where there are none.
        points: For each axis int64 [blocks, longest], where the blocks of a window of side 1, 2, … start; the
            sum over the axes counts from its first voxel, in maps of the patch laid one after another,
            one map for each combination of block lengths.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    longest: tuple[int, ...]
    permutations: int
    starts: Tensor
    sources: Tensor
    blocks: tuple[int, ...]
    points: tuple[Tensor, ...]


@lru_cache(maxsize=8)
def window_table(shape: tuple[int, ...], fraction: int, device: torch.device) -> WindowTable:
    """Make the table for a shape of patch; it is the same in every process.

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
    voxels = torch.arange(math.prod(shape)).view(shape)
    sources = [voxels.flatten().int()]
    for number, window in enumerate(product(*(range(1, side + 1) for side in longest))):
        own = voxels[tuple(map(slice, window))].flatten()
        words = draw_words(torch.tensor([number]), "table", permutations, len(own))[0]
        orders = own[words.argsort(dim=1, stable=True)]
        sources.append(repeat(orders, "count voxels -> (count twice voxels)", twice=2).int())
    blocks, points, maps = [], [], len(voxels.flatten())
    for axis in reversed(range(len(shape))):  # the maps of the last axis' two lengths lie side by side
        # Windows of any side are covered by a few blocks, which may overlap: of `length` voxels where these fit into
        # the window, else, or where a few single voxels do, of one. They start evenly from its first voxel to its
        # last; of a longest side of 12 in 4s, those of a window of 11 start at 0, 4 and 7.
        single = longest[axis] == 1 or (axis == len(shape) - 1 and longest[axis] <= _ADJACENT)
        fewest = next(count for count in range(1, longest[axis] + 1) if count * (count + 1) >= longest[axis])
        count, length = (longest[axis], 1) if single else (fewest, fewest + 1)
        sides = torch.arange(1, longest[axis] + 1)
        is_longer = (sides >= length) & (length > 1)
        room = sides - torch.where(is_longer, length, 1)
        starts = -(-torch.arange(count)[:, None] * room // max(count - 1, 1))  # rounded up
        points.insert(0, (starts * voxels.stride(axis) + is_longer * maps).to(device))
        blocks.insert(0, length)
        maps *= 1 + (length > 1)
    return WindowTable(
        shape=shape,
        strides=voxels.stride(),
        longest=longest,
        permutations=permutations,
        starts=torch.tensor(list(accumulate(map(len, sources)))[:-1], device=device).view(longest),
        sources=torch.cat(sources).to(device),
        blocks=tuple(blocks),
        points=tuple(points),
    )


def last_window_per_voxel(table: WindowTable, sides: Tensor, firsts: Tensor) -> Tensor:
    """Find the last window over each voxel.

    Each window is noted where its blocks start, in the map of their lengths, over earlier ones. Then, axis
    by axis, the longer blocks are spread over the map of single voxels. This takes a few notes a window and a
    few steps a voxel, however many voxels the windows have together.

    Args:
        table: Table of the shape of patch.
        sides: int64 [k, axes, windows].
        firsts: int64 [k, windows], the first voxel of each window.

    Returns:
        int16, or int32 for very many windows, [k, voxels]: 0 for none, else 1 + its place in the order.
    """
    samples, windows = firsts.shape
    voxels = math.prod(table.shape)
    counted = torch.int16 if windows < 2**15 else torch.int32
    levels = [1 + (block > 1) for block in table.blocks]
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
    for block, stride in zip(table.blocks, table.strides, strict=True):
        single, *longer = maps.unbind(1)
        for blocks in longer:
            for shift in range(0, block * stride, stride):
                target = single[..., shift:]  # no border is crossed, since no block crosses one
                torch.maximum(target, blocks[..., : voxels - shift], out=target)
        maps = single
    return maps
