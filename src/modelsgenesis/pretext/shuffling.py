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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

import torch
from einops import rearrange, repeat
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.pretext.random import HashedSeeds, Seeds, constant, draw_words, kept, multiples, send, take, uniform

_CACHED_VOXELS = 2**17  # voxels at a time on a CPU: what is worked out for them stays in its cache
_ENTRIES = 2**19  # of the table of permutations: 4 MB; random access to more is slow
_MOST_ENTRIES = 2**25  # 256 MB
_ADJACENT = 8  # blocks side by side in memory cost little


def shuffle(batch: Tensor, seeds: Seeds, config: PretextConfig) -> Tensor:
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
    is_chosen = uniform(draw_words(seeds, "shuffle", 1)[:, 0]) < config.shuffle_probability
    seeds = seeds.seeds if isinstance(seeds, HashedSeeds) else seeds
    if batch.device.type != "cpu":  # all, and some in their own order: to leave those out would wait for their number
        return permute(batch, seeds, is_chosen, config)
    deformed, chosen = batch.clone(), is_chosen.nonzero()[:, 0]
    if len(chosen):
        deformed[chosen] = permute(batch[chosen], seeds[chosen], is_chosen[chosen], config)
    return deformed


def permute(batch: Tensor, seeds: Tensor, is_chosen: Tensor, config: PretextConfig) -> Tensor:
    """Permute the windows of the samples that are chosen, bool [k]; the others stay as they are."""
    samples, shape = len(batch), batch.shape[2:]
    table = window_table(tuple(shape), config.shuffle_fraction, batch.device)
    windows = draw_windows(table, seeds, config.shuffle_windows)
    lookup, points = window_lookup(table, *windows)
    values = rearrange(batch, "k c x ... -> c (k x) (...)")  # the planes of all samples one after another
    shuffled = torch.empty_like(values)
    planes, plane = values.shape[1:]
    last = last_window_per_voxel(table, points, send(is_chosen, batch.device)).reshape(planes, plane)
    on_cpu = batch.device.type == "cpu"
    step = max(_CACHED_VOXELS // plane, 1) if on_cpu else planes
    reach = table.longest[0] - 1  # planes between a voxel and the farthest that it can come from
    place, none = plane_numbers(samples, shape[0], config.shuffle_windows, batch.device)
    for begin in range(0, planes, step):
        end = min(begin + step, planes)
        window = last[begin:end] + none[begin:end, None]
        source = sources(window.view(-1), place[begin:end], lookup, table)
        lowest, highest = max(begin - reach, 0), min(end + reach, planes)
        if lowest:
            source -= lowest * plane
        for given, result in zip(values, shuffled, strict=True):  # channel by channel
            near = given[lowest:highest]
            if on_cpu:
                near = near.clone()  # read in order it lies in the cache when read at random
            torch.index_select(near.reshape(-1), 0, source, out=result[begin:end].view(-1))
    return rearrange(shuffled, "c (k x) plane -> k c x plane", k=samples).reshape(batch.shape)


@kept
def plane_numbers(samples: int, side: int, windows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for the planes of all samples their places in their patches, and the number of its window for none."""
    number = torch.arange(samples * side, dtype=torch.int32, device=device)
    return number % side, number // side * (windows + 1)


def draw_windows(table: "WindowTable", seeds: Tensor, windows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the windows of k samples, in the order in which they are written.

    Returns:
        origins: int64 [k, axes, windows], first voxel of each window.
        sides: int64 [k, axes, windows].
        variants: int64 [k, windows], in which of its ways a window is permuted; see `WindowTable`.
    """
    device = table.sources.device
    words = draw_words(seeds, "windows", len(table.shape) + 1, windows, device=device)
    size, longest = (constant(numbers, device)[:, None] for numbers in (table.shape, table.longest))
    less, rest = take(words[:, :-1], longest)
    origins, _ = take(rest, size - less)  # the rest of the same word: half the hashing
    sides = less + 1
    variants, _ = take(words[:, -1], sides.prod(dim=1) * table.permutations)
    return origins, sides, variants


def window_lookup(table: "WindowTable", origins: Tensor, sides: Tensor, variants: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `sources` and `last_window_per_voxel` must know of each window.

    The first window of each sample stands for none: it is the whole patch, in its own order.

    A voxel at (x, y, z) of the patch, in a window with origin (x0, y0, z0) and sides (a, b, c), is number
    ((x − x0)·b + y − y0)·c + z − z0 of the window. It takes the value of the voxel that the window's permutation names
    at that place, counted from where the permutation is entered. Multiplied out, the entry of the table is
    start + x·(b·c) + y·c + z with one `start` a window, into which the origin, the place of the permutation in the
    table and the entry are folded: so a voxel needs a look-up of its window and two multiplications.

    Returns:
        lookup: int32 [1 + axes, k * (windows + 1)]. The entry of `table.sources` for the voxel (0, 0, 0) of the patch,
            were it in the window; the steps of that entry along each axis but the last, where it is 1; the window's
            first voxel.
        points: int64 [blocks, k, windows], where the blocks of each window start in the maps of all samples.
    """
    (samples, windows), voxels = variants.shape, math.prod(table.shape)
    device = variants.device
    number = (combine(sides, table.shapes) - sum(table.shapes)).view(-1)
    start, *steps, size = (row.view(samples, windows) for row in rows_of(table.records, number))
    firsts = combine(origins, table.strides)
    maps = voxels * 2 ** sum(block > 1 for block in table.blocks)
    shift = firsts + multiples(samples, maps, torch.int64, device)[:, None]
    points = rows_of(table.points, number)
    points = points if isinstance(points, Tensor) else torch.stack(tuple(points))
    permutation = variants // size  # the remainder is where it is entered
    # A permutation lies twice in a row, so that a window reads on over its end: number p begins at 2 p voxels, and is
    # entered at the remainder, which makes variants + p voxels. The origin is taken off, since voxels are counted from
    # that of the patch.
    start = torch.addcmul(start + variants, permutation, size)
    for origin, step in zip(origins.unbind(dim=1), steps, strict=False):
        start.addcmul_(origin, step, value=-1)
    start -= origins[:, -1]
    none = constant((0, *table.strides[:-1], 0), device).view(-1, 1, 1).expand(-1, samples, 1)
    lookup = torch.cat([none, torch.stack([start, *steps, firsts])], dim=2).int()
    lookup.select(0, -1).add_(multiples(samples, voxels, torch.int64, device)[:, None])
    return lookup.flatten(1), points.view(-1, samples, windows).add_(shift)


def combine(coordinates: Tensor, steps: Sequence[int]) -> Tensor:
    """Return the numbers of places [k, axes, n] from the steps of the number along each axis: [k, n]."""
    first, *others = coordinates.unbind(dim=1)
    number = torch.add(others[-1], first, alpha=steps[0])  # the step along the last axis is 1
    for other, step in zip(others[:-1], steps[1:-1], strict=True):
        number.add_(other, alpha=step)
    return number


def rows_of(table: Tensor, index: Tensor) -> Iterable[Tensor]:
    """Look numbers up in each row of a table, each [n]."""
    if table.device.type == "cpu":  # twice as fast as all rows in one call
        return (row.index_select(0, index) for row in table)
    return table.index_select(1, index)


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
    rows = iter(rows_of(lookup, window))
    entry, axes = next(rows), [planes, *(multiples(side, 1, torch.int32, window.device) for side in table.shape[1:])]
    for place, stride in zip(axes[:-1], table.strides, strict=False):
        entry.view(-1, len(place), stride).addcmul_(next(rows).view(-1, len(place), stride), place[:, None])
    entry.view(-1, len(axes[-1])).add_(axes[-1])
    return table.sources.index_select(0, entry).add_(next(rows))


@dataclass(frozen=True)
class WindowTable:
    """Everything about windows that does not depend on the draw.

    Attributes:
        shape: Sides of the patch.
        strides: Voxels from one to the next along each axis.
        longest: The longest window side along each axis.
        permutations: Uniformly random permutations that are kept for each window shape. Each is read from any
            of its n entries on, going round: a window is permuted in one of `n * permutations` ways.
        shapes: What to multiply the sides of a window with, less one each, for the number of its shape.
        records: int64 [1 + axes, window shapes], where in `sources` the permutations of a shape start, the steps of a
            voxel's number in the window along each axis but the last, and the voxels of the window.
        sources: int32; first the number of every voxel of the patch, then permutation after permutation,
            each twice in a row. An entry of these is the distance of a voxel from the first of its window.
        blocks: Length of the longer blocks along each axis, 1 where there are none.
        points: int64 [blocks, window shapes], where the blocks of a window start, counted from its first voxel, in maps
            of the patch laid one after another, one map for each combination of block lengths.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    longest: tuple[int, ...]
    permutations: int
    shapes: tuple[int, ...]
    records: Tensor
    sources: Tensor
    blocks: tuple[int, ...]
    points: Tensor


@kept
def window_table(shape: tuple[int, ...], fraction: int, device: torch.device) -> WindowTable:
    """Make the table for a shape of patch; it is the same in every process.

    Args:
        shape: Sides of the patch.
        fraction: The longest window side is a side of the patch divided by this, at least 1.
        device: Where it is needed.

    Raises:
        ShapeError: The windows are so large that the table would take too much memory.
    """
    if device.type != "cpu":
        table = window_table(shape, fraction, torch.device("cpu"))
        records, sources, points = (each.to(device) for each in (table.records, table.sources, table.points))
        return replace(table, records=records, sources=sources, points=points)
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
    windows = list(product(*(range(1, side + 1) for side in longest)))
    for number, window in enumerate(windows):
        own = voxels[tuple(map(slice, window))].flatten()
        words = draw_words(torch.tensor([number]), "table", permutations, len(own))[0]
        orders = own[words.argsort(dim=1, stable=True)]
        sources.append(repeat(orders, "count voxels -> (count twice voxels)", twice=2).int())
    starts = torch.tensor(list(accumulate(map(len, sources)))[:-1])
    steps = torch.tensor(windows).flip(1).cumprod(dim=1).flip(1)  # [a·b·c, b·c, c] for each window shape
    blocks, points, maps = [], torch.zeros(1, 1, dtype=torch.int64), len(voxels.flatten())
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
        places = -(-torch.arange(count)[:, None] * room // max(count - 1, 1))  # rounded up
        of_axis = places * voxels.stride(axis) + is_longer * maps  # [blocks, longest]
        points = (of_axis[:, None, :, None] + points[:, None]).flatten(2).flatten(0, 1)
        blocks.insert(0, length)
        maps *= 1 + (length > 1)
    return WindowTable(
        shape=shape,
        strides=voxels.stride(),
        longest=longest,
        permutations=permutations,
        shapes=torch.empty(longest, device="meta").stride(),
        records=torch.stack([starts, *steps[:, 1:].T, steps[:, 0]]),
        sources=torch.cat(sources),
        blocks=tuple(blocks),
        points=points,
    )


def last_window_per_voxel(table: WindowTable, points: Tensor, is_chosen: Tensor) -> Tensor:
    """Find the last window over each voxel.

    Each window is noted where its blocks start, in the map of their lengths, over earlier ones. Then, axis
    by axis, the longer blocks are spread over the map of single voxels. This takes a few notes a window and a
    few steps a voxel, however many voxels the windows have together.

    Args:
        table: Table of the shape of patch.
        points: From `window_lookup`, [blocks, k, windows].
        is_chosen: bool [k], False for a sample that is not to have any.

    Returns:
        int16, or int32 for very many windows, [k, voxels]: 0 for none, else 1 + its place in the order.
    """
    (_, samples, windows), device = points.shape, points.device
    voxels = math.prod(table.shape)
    dtype = torch.int16 if windows < 2**15 else torch.int32
    lengths = [1 + (block > 1) for block in table.blocks]  # how many there are along each axis
    maps = torch.zeros(samples, *lengths, voxels, dtype=dtype, device=device)
    order = (multiples(windows + 1, 1, dtype, device)[1:] * is_chosen[:, None]).expand_as(points).reshape(-1)
    # The blocks of one window after another would wait for the same lines of memory.
    maps.view(-1).scatter_reduce_(0, points.view(-1), order, "amax")
    for block, stride in zip(table.blocks, table.strides, strict=True):
        single, *longer = maps.unbind(1)
        for blocks in longer:
            for shift in range(0, block * stride, stride):
                target = single[..., shift:]  # no border is crossed, since no block crosses one
                target.clamp_(min=blocks[..., : voxels - shift])
        maps = single
    return maps
