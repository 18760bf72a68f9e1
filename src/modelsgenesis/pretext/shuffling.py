"""Local shuffling: thousands of small windows, each with its voxels permuted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.pretext.draws import Draws, mix, sides_tensor
from modelsgenesis.pretext.step import Step, check_sides


@dataclass(frozen=True)
class ShufflingParameters:
    """The windows of the samples that are shuffled, in the order in which they are written.

    Attributes:
        applied: bool [b]; k of them are True.
        origins: int64 [k, windows, axes], first voxel of each window.
        sides: int64 [k, windows, axes].
        keys: int64 [k, windows], from which the permutation of each window follows.
    """

    applied: Tensor
    origins: Tensor
    sides: Tensor
    keys: Tensor


class Shuffling(Step[ShufflingParameters]):
    """Permutes the voxels within each of `shuffle_windows` windows.

    A window side is uniform in 1 … size // `shuffle_fraction` (at least 1), its place anywhere inside. Each window takes
    voxels of the undeformed sub-volume; later windows overwrite earlier ones. So some voxels occur twice and some are
    lost. All channels move alike. A sub-volume with no side of `2 * shuffle_fraction` has windows of one voxel, and
    does not change. The target is not shuffled.

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
        draws = Draws(seeds, stream=2)
        applied = draws.uniform() < self.config.shuffle_probability
        draws = Draws(seeds[applied], stream=5)
        count, axes = self.config.shuffle_windows, len(shape)
        size = sides_tensor(shape, seeds.device)
        sides = draws.integers(1, (size // self.config.shuffle_fraction).clamp_min(1), count, axes)
        origins = draws.integers(0, size - sides, count, axes)
        return ShufflingParameters(applied, origins, sides, draws.bits(count))

    def transform(self, batch: Tensor, parameters: ShufflingParameters) -> tuple[Tensor, Tensor]:
        """Shuffle the deformed batch; see `Step.apply`."""
        source = source_map(batch.shape[2:], parameters)  # [k, voxels]
        chosen = parameters.applied.nonzero()[:, 0]
        values = rearrange(batch[chosen], "b c ... -> b c (...)")
        shuffled = values.gather(2, source[:, None].expand_as(values))
        deformed = batch.clone()
        deformed[chosen] = shuffled.view(-1, *batch.shape[1:])
        return deformed, batch


def source_map(shape: Sequence[int], parameters: ShufflingParameters) -> Tensor:
    """Return for every voxel the index of the voxel whose value it takes: int64 [k, voxels]."""
    device = parameters.sides.device
    samples, windows = parameters.keys.shape
    voxels = torch.Size(shape).numel()
    volumes = parameters.sides.prod(dim=2).view(-1)
    window = torch.repeat_interleave(volumes)  # of each voxel of each window
    local = torch.arange(len(window), device=device) - (volumes.cumsum(0) - volumes)[window]
    place, stride = torch.zeros_like(window), 1
    sides, origins = (
        parameters.sides.view(-1, len(shape))[window],
        parameters.origins.view(-1, len(shape))[window],
    )
    rest = local
    for axis in reversed(range(len(shape))):
        place = place + (origins[:, axis] + rest % sides[:, axis]) * stride
        rest = rest // sides[:, axis]
        stride = stride * shape[axis]
    random = mix(parameters.keys.view(-1)[window] + mix(local)) & (2**32 - 1)
    order = torch.argsort((window << 32) | random)
    source = place[order]
    place = place + (window // windows) * voxels
    last = torch.full((samples * voxels,), -1, device=device).scatter_reduce(0, place, window, "amax")
    wins = last[place] == window
    result = torch.arange(voxels, device=device).repeat(samples)
    result[place[wins]] = source[wins]
    return result.view(samples, voxels)
