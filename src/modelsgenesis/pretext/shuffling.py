"""Local shuffling: thousands of small windows, each with its voxels permuted."""

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.pretext.random import CounterRNG, Stream, take
from modelsgenesis.pretext.sparse_table import WindowTable, last_window_per_voxel, ravel, strides, window_table
from modelsgenesis.pretext.step import Step

_CACHED_VOXELS = 2**17  # voxels at a time on a CPU: what is worked out for them stays in its cache


class Windows(NamedTuple):
    """The windows of the samples that are shuffled, in the order in which they are written.

    Attributes:
        applied: bool [b]; k of them are True.
        origins: int64 [k, axes, windows], first voxel of each window.
        sides: int64 [k, axes, windows].
        variants: int64 [k, windows], in which of its ways a window is permuted; see `WindowTable`.
    """

    applied: Tensor
    origins: Tensor
    sides: Tensor
    variants: Tensor


class Shuffling(Step):
    """Permutes the voxels within each of `shuffle_windows` windows.

    A window side is uniform in 1 … size // `shuffle_fraction` (at least 1), its place anywhere inside. Each
    window takes voxels of the undeformed patch; later windows overwrite earlier ones. So some voxels
    occur twice and some are lost. All channels move alike, so that they stay in register. A patch with
    all sides below `2 * shuffle_fraction` has windows of one voxel, and does not change.

    Permutations come from a table, made once, of uniformly random ones, each of which a window enters at a
    random place and reads going round. So a voxel takes the value of any voxel of its window with the same
    probability, exactly; and the table, of all shapes together, permutes windows in half a million ways, 50
    for each window of a patch.

    Example:
        >>> Shuffling()(torch.rand(2, 1, 32, 32, 16), torch.tensor([1, 2])).shape
        torch.Size([2, 1, 32, 32, 16])

    References:
        Zhou et al. 2021, local pixel shuffling.
    """

    def draw(self, shape: Sequence[int], seeds: Tensor) -> Windows:
        """Return the windows of the samples that are shuffled."""
        table = self._table(shape, seeds.device)
        applied = CounterRNG(seeds, Stream.SHUFFLING, 1).uniform(1)[:, 0] < self.config.shuffle_probability
        windows, axes = self.config.shuffle_windows, len(shape)
        rng = CounterRNG(seeds[applied], Stream.WINDOWS, (axes + 1) * windows)
        size, longest = torch.tensor([table.shape, table.longest], device=seeds.device)[..., None]
        sides, rest = take(rng.words(axes, windows), longest)
        sides += 1
        origins, _ = take(rest, size - sides + 1)  # the rest of the same word: half the hashing
        variants, _ = take(rng.words(windows), sides.prod(dim=1) * table.permutations)
        return Windows(applied, origins, sides, variants)

    def apply(self, batch: Tensor, drawn: Windows) -> Tensor:
        """Shuffle the samples that were chosen."""
        chosen = drawn.applied.nonzero()[:, 0]
        deformed = batch.clone()
        if len(chosen):
            values = rearrange(batch[chosen], "k c x ... -> c (k x) (...)")
            shuffled = shuffle(values, drawn, self._table(batch.shape[2:], batch.device))
            shuffled = rearrange(shuffled, "c (k x) plane -> k c x plane", k=len(chosen))
            deformed[chosen] = shuffled.reshape(-1, *batch.shape[1:])
        return deformed

    def _table(self, shape: Sequence[int], device: torch.device) -> WindowTable:
        return window_table(tuple(shape), self.config.shuffle_fraction, device)


def shuffle(values: Tensor, parameters: Windows, table: WindowTable) -> Tensor:
    """Shuffle the samples that are to be shuffled.

    Args:
        values: [c, k * x, plane], the channels of all planes along the first axis.
        parameters: Of the k samples.
        table: Of their shape.

    Returns:
        The same shape.
    """
    device, (planes, plane), windows = values.device, values.shape[1:], parameters.variants.shape[1]
    numbers = ravel(parameters.sides - 1, table.longest)
    firsts = ravel(parameters.origins, table.shape)
    last = last_window_per_voxel(table, parameters.sides, firsts).reshape(planes, plane)
    lookup = window_lookup(parameters, table, numbers, firsts)
    shuffled = torch.empty_like(values)
    step = max(_CACHED_VOXELS // plane, 1) if device.type == "cpu" else planes
    reach = table.longest[0] - 1  # planes between a voxel and the farthest that it can come from
    for begin in range(0, planes, step):
        end = min(begin + step, planes)
        number = torch.arange(begin, end, dtype=torch.int32, device=device)
        window = last[begin:end].int()
        window += (number // table.shape[0] * (windows + 1))[:, None]
        source = sources(window.view(-1), number % table.shape[0], lookup, table)
        lowest, highest = max(begin - reach, 0), min(end + reach, planes)
        source -= lowest * plane
        for given, result in zip(values, shuffled, strict=True):
            near = given[lowest:highest].clone()  # read in order it lies in the cache when read at random
            torch.index_select(near.view(-1), 0, source, out=result[begin:end].view(-1))
    return shuffled


def window_lookup(parameters: Windows, table: WindowTable, numbers: Tensor, firsts: Tensor) -> Tensor:
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
    samples, windows = firsts.shape
    sides = parameters.sides.unbind(dim=1)
    *steps, voxels = accumulate(reversed(sides), operator.mul)
    permutation = parameters.variants // voxels  # the remainder is where it is entered
    start = table.starts[numbers] + parameters.variants + permutation * voxels - ravel(parameters.origins, sides)
    whole = strides(table.shape)[:-1]
    lookup = torch.zeros(1 + len(sides), samples, windows + 1, dtype=torch.int32, device=firsts.device)
    for row, none, each in zip(lookup, (0, *whole, 0), (start, *reversed(steps), firsts), strict=True):
        row[:, 0] = none
        row[:, 1:] = each
    lookup[-1] += torch.arange(samples, device=firsts.device)[:, None] * math.prod(table.shape)
    return lookup.flatten(1)


def sources(window: Tensor, planes: Tensor, lookup: Tensor, table: WindowTable) -> Tensor:
    """Return from where the voxels of some planes take their values.

    Args:
        window: int32 [planes * plane], the last window over each voxel.
        planes: int32 [planes], the place of each along the first axis of its patch.
        lookup: From `window_lookup`.
        table: Of the patch.

    Returns:
        int32 [planes * plane], numbers of voxels in the whole batch.
    """
    start, *steps, first = lookup
    axes = [
        planes,
        *(torch.arange(side, dtype=torch.int32, device=window.device) for side in table.shape[1:]),
    ]
    entry = start.index_select(0, window)
    other = torch.empty_like(entry)
    for step, place, stride in zip(steps, axes, strides(table.shape), strict=False):
        torch.index_select(step, 0, window, out=other)
        other.view(-1, len(place), stride).mul_(place[:, None])
        entry += other
    entry.view(-1, len(axes[-1])).add_(axes[-1])
    torch.index_select(table.sources, 0, entry, out=other)
    torch.index_select(first, 0, window, out=entry)
    return other.add_(entry)
