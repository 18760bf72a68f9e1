"""Local shuffling: thousands of small windows, each with its voxels permuted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.pretext.draws import Draws
from modelsgenesis.pretext.step import Step, check_sides
from modelsgenesis.pretext.windows import WindowTable, last_windows, longest_sides, window_table

_BLOCK = {"cpu": 2**17}  # voxels at a time, so that what is worked out for them stays in the processor's cache
_BLOCK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class ShufflingParameters:
    """The windows of the samples that are shuffled, in the order in which they are written.

    Attributes:
        applied: bool [b]; k of them are True.
        origins: int64 [k, axes, windows], first voxel of each window.
        sides: int64 [k, axes, windows].
        variants: int64 [k, windows], which of the ways to permute its n voxels a window takes, see `WindowTable`.
    """

    applied: Tensor
    origins: Tensor
    sides: Tensor
    variants: Tensor


class Shuffling(Step[ShufflingParameters]):
    """Permutes the voxels within each of `shuffle_windows` windows.

    A window side is uniform in 1 … size // `shuffle_fraction` (at least 1), its place anywhere inside. Each
    window takes voxels of the undeformed sub-volume; later windows overwrite earlier ones. So some voxels occur
    twice and some are lost. All channels move alike. A sub-volume with no side of `2 * shuffle_fraction` has
    windows of one voxel, and does not change. The target is not shuffled.

    Example:
        >>> deformed, target = Shuffling()(torch.rand(2, 1, 32, 32, 16), torch.tensor([1, 2]))
        >>> deformed.shape
        torch.Size([2, 1, 32, 32, 16])

    References:
        Zhou et al. 2021, local pixel shuffling.
    """

    def sample(
        self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None
    ) -> ShufflingParameters:
        """Draw the windows; see `Step.sample`."""
        check_sides(shape)
        seeds = seeds.to(device)
        applied = Draws(seeds, stream=2).uniform() < self.config.shuffle_probability
        draws = Draws(seeds[applied], stream=3)
        windows, axes = self.config.shuffle_windows, len(shape)
        table = self._table(shape, seeds.device)
        size, longest = (torch.tensor(sides, device=seeds.device)[:, None] for sides in (table.shape, table.longest))
        sides = draws.integers(1, longest, axes, windows)
        origins = draws.integers(0, size - sides, axes, windows)
        variants = draws.integers(0, sides.prod(dim=1) * table.permutations - 1, windows)
        return ShufflingParameters(applied, origins, sides, variants)

    def transform(self, batch: Tensor, parameters: ShufflingParameters) -> tuple[Tensor, Tensor]:
        """Shuffle the deformed batch; see `Step.apply`."""
        deformed = batch.clone()
        chosen = parameters.applied.nonzero()[:, 0]
        if len(chosen):
            table = self._table(batch.shape[2:], batch.device)
            values = rearrange(batch[chosen], "k c x ... -> c (k x) (...)")
            shuffled = shuffle(values, parameters, table)
            deformed[chosen] = rearrange(shuffled, "c (k x) p -> k c x p", k=len(chosen)).view(-1, *batch.shape[1:])
        return deformed, batch

    def _table(self, shape: Sequence[int], device: torch.device) -> WindowTable:
        return window_table(tuple(shape), self.config.shuffle_fraction, device)


def shuffle(values: Tensor, parameters: ShufflingParameters, table: WindowTable) -> Tensor:
    """Move every voxel: [c, k * x, plane] to the same."""
    numbers, variants = table.number(parameters.sides), parameters.variants
    firsts = sum(parameters.origins[:, axis] * stride for axis, stride in enumerate(table.strides))
    last = last_windows(table, numbers, firsts)
    samples, windows = variants.shape
    sizes = parameters.sides.prod(dim=1)
    start = table.starts[numbers] + variants + variants // sizes * sizes
    axes = len(table.shape)
    steps = [parameters.sides[:, axis + 1 :].prod(dim=1) for axis in range(axes)]
    start = start - sum(parameters.origins[:, axis] * step for axis, step in enumerate(steps))
    lookup = torch.empty(axes + 1, samples, windows + 1, dtype=torch.int32, device=values.device)
    for row, (none, given) in zip(lookup, [(0, start), (0, firsts), *zip(table.strides[:-1], steps[:-1])]):
        row[:, 0] = none
        row[:, 1:] = given
    voxels = math.prod(table.shape)
    sample = torch.arange(samples, dtype=torch.int32, device=values.device)
    lookup[1] += sample[:, None] * voxels
    start, first, *step = lookup.view(axes + 1, -1)
    # ---
    result = torch.empty_like(values)
    rows, plane = values.shape[1:]
    last = last.reshape(rows, plane)
    sample_offset = (sample * (windows + 1)).repeat_interleave(table.shape[0])[:, None]
    places = [torch.arange(side, dtype=torch.int32, device=values.device) for side in table.shape]
    places[0] = places[0].repeat(samples)
    count = max(_BLOCK.get(values.device.type, _BLOCK_ELSEWHERE) // plane, 1)
    reach = table.longest[0] - 1
    flat = values.flatten(1)
    for begin in range(0, rows, count):
        end = min(begin + count, rows)
        window = (last[begin:end] + sample_offset[begin:end]).view(-1)
        entry = start.index_select(0, window)
        scratch = torch.empty_like(entry)
        for axis in range(axes - 1):
            torch.index_select(step[axis], 0, window, out=scratch)
            place = places[0][begin:end] if axis == 0 else places[axis]
            shape = (-1, plane) if axis == 0 else (-1, table.shape[axis], table.strides[axis])
            scratch.view(shape).mul_(place[:, None])
            entry += scratch
        entry.view(-1, table.shape[-1]).add_(places[-1])
        torch.index_select(table.sources, 0, entry, out=scratch)
        torch.index_select(first, 0, window, out=entry)
        scratch += entry
        b2, e2 = max(begin - reach, 0), min(end + reach, rows)
        scratch -= b2 * plane
        for channel in range(len(values)):
            near = values[channel, b2:e2].clone().view(-1)
            torch.index_select(near, 0, scratch, out=result[channel, begin:end].view(-1))
    return result
