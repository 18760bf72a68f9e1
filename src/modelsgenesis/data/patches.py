"""Random patches of cached scans, a function of seed and index alone; and scans split by size and by patient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from modelsgenesis.configs import InputContract
from modelsgenesis.data.cache import LEVELS, CacheEntry, VolumeCache
from modelsgenesis.data.volume import SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, did_you_mean

Rule = Literal["lung", "foreground", "none"]

_TRIES = 50  # per patch wanted
_COUNTERS = 64  # loader processes that count apart, so that no two write to one number

_DENSE = -150.0  # HU; chest wall, heart and bone, not lung
_DENSE_SHARE = 0.15  # at most
_LOOK_AHEAD = 3  # slices along z
_MARGIN_PLANE, _PLANE = 100, 512  # voxels from the borders of x and y, of a slice of 512
_MARGIN_Z = 30  # voxels from the borders of z, and at most a quarter of it

_TISSUE = -500.0  # HU; above air and most of the lung
_DARK = 0.05  # in [0, 1]; the background of what is scaled by percentiles
_FOREGROUND_SHARE = 0.1  # at least


@dataclass(frozen=True)
class _Criterion:
    """Which voxels a rule counts, those from a cached level on, and the share of them that it accepts."""

    level: int
    lowest: float = 0.0
    highest: float = 1.0
    look_ahead: int = 0
    margins: bool = False


class PatchDataset(Dataset[Tensor]):
    """Patches drawn at random from a cache.

    Item `epoch * len + index` needs no `set_epoch`: the same number gives the same patch in any process.
    A rule rejects patches and draws again, 50 times at most; then the best of those is taken.

    Args:
        cache: The prepared volumes.
        scans: Indices of the volumes to draw from; None for all.
        patch_size: Voxels along each axis, 3 numbers; or 2, for planes and for slices of volumes.
        per_scan: Patches of each scan an epoch.
        rule: `"lung"`, of the 2019 recipe, keeps away from the borders and rejects more than 15% of dense
            tissue (−150 HU and above, here or in the next 3 slices); `"foreground"` rejects less than 10% of
            foreground; `"none"` takes all.
        seed: Random seed of the places.
        axis: Along which volumes are cut into slices, when the patch has 2 numbers.

    Each item is float32 [1, *patch_size] in [0, 1].

    Raises:
        DataError: A scan is smaller than the patch (see `split_by_size`), or there is none.
        ConfigurationError: The rule is unknown or needs a CT window.

    References:
        Zhou et al. 2019 and its release: 32 patches a scan, the borders, the share of dense tissue, 50 tries.

    Example:
        dataset = PatchDataset(cache, patch_size=(64, 64, 32), seed=0)
        dataset[0].shape  # [1, 64, 64, 32]
        dataset[len(dataset)]  # another patch of the same scan, in the next epoch
    """

    def __init__(
        self,
        cache: VolumeCache,
        scans: Sequence[int] | None = None,
        *,
        patch_size: Sequence[int],
        per_scan: int = 32,
        rule: Rule = "foreground",
        seed: int = 0,
        axis: int = 2,
    ) -> None:
        self.cache, self.patch_size, self.axis = cache, tuple(patch_size), axis
        self.scans = np.arange(len(cache)) if scans is None else np.asarray(scans, dtype=np.int64)
        self.per_scan, self.seed = per_scan, seed
        self.rule, self._criterion = rule, _criterion(rule, cache.contract)
        if len(self.patch_size) not in (2, 3):
            raise ConfigurationError(f"patch_size: received {self.patch_size}, expected 2 or 3 numbers")
        if not len(self.scans):
            raise DataError("no scan to draw patches from")
        _, small = split_by_size(cache, self.patch_size, scans=self.scans.tolist(), axis=axis)
        if small:
            raise DataError(f"{len(small)} scans are too small: {small[0].source}: {small[0].reason}")
        self._counts = torch.zeros(_COUNTERS, 2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.scans) * self.per_scan

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what is known of each scan that is drawn from."""
        return (self.cache.entry(int(index)) for index in self.scans)

    @property
    def tries(self) -> tuple[int, int]:
        """Patches drawn so far, in all processes of a loader, and how many of them the rule rejected."""
        drawn, rejected = self._counts.sum(dim=0).tolist()
        return drawn, rejected

    @property
    def refused_share(self) -> float:
        """The share of the patches drawn that the rule rejected."""
        drawn, rejected = self.tries
        return rejected / drawn if drawn else 0.0

    def __getitem__(self, item: int) -> Tensor:
        epoch, index = divmod(item, len(self))
        random = np.random.default_rng([self.seed, epoch, index])
        patch = self._draw(self.cache[int(self.scans[index // self.per_scan])], random).astype(np.float32)
        patch *= np.float32(1 / LEVELS)
        return rearrange(torch.from_numpy(patch), "... -> 1 ...")

    def _draw(self, volume: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the first patch that the rule accepts, else the one nearest to it."""
        sides = _sides(self.patch_size, volume.ndim, self.axis)
        margins = _margins(volume.shape, sides) if self._criterion.margins else (0,) * volume.ndim
        limits = list(zip(volume.shape, sides, margins, strict=True))
        tries, best, nearest_miss = 0, volume[:0], np.inf
        while tries < _TRIES and nearest_miss > 0:
            starts = [int(random.integers(margin, length - side - margin + 1)) for length, side, margin in limits]
            where = [slice(start, start + side) for start, side in zip(starts, sides, strict=True)]
            ahead = [*where[:2], *(slice(one.start, one.stop + self._criterion.look_ahead) for one in where[2:])]
            miss = _miss(volume[tuple(ahead)], self._criterion, sides[-1])
            if tries == 0 or miss < nearest_miss:
                best, nearest_miss = volume[tuple(where)], miss
            tries += 1
        worker = get_worker_info()
        count = self._counts[(worker.id + 1) % _COUNTERS if worker else 0]
        count += torch.tensor([tries, tries - (nearest_miss == 0)])
        return best.squeeze(self.axis) if best.ndim > len(self.patch_size) else best


def _criterion(rule: str, contract: InputContract) -> _Criterion:
    if rule not in get_args(Rule):
        raise ConfigurationError(f"rule: received {rule!r}; {did_you_mean(rule, get_args(Rule))}")
    if rule == "none":
        return _Criterion(level=0)
    window = contract.window if contract.modality == "ct" and contract.intensity == "window" else None
    if rule == "foreground":
        value = _DARK if window is None else (_TISSUE - window[0]) / (window[1] - window[0])
        return _Criterion(max(1, round(value * LEVELS)), lowest=_FOREGROUND_SHARE)
    if window is None or not window[0] < _DENSE < window[1]:
        raise ConfigurationError(
            f"rule 'lung' tells tissue by HU: it needs CT with a window around {_DENSE:g}, "
            f"received {contract.modality} with {contract.intensity} {contract.window or ''}; use foreground"
        )
    level = max(1, round((_DENSE - window[0]) / (window[1] - window[0]) * LEVELS))
    return _Criterion(level, highest=_DENSE_SHARE, look_ahead=_LOOK_AHEAD, margins=True)


def _miss(ahead: np.ndarray, criterion: _Criterion, depth: int) -> float:
    """Return how far the share of counted voxels lies outside of what the rule accepts, 0 inside.

    A voxel of the first `depth` slices counts when it or one of the next slices' does.
    """
    if criterion.lowest == 0 and criterion.highest == 1:
        return 0.0
    levels = ahead >= criterion.level
    counted = levels[..., :depth].copy()
    for shift in range(1, criterion.look_ahead + 1):
        later = levels[..., shift : shift + depth]  # shorter at the end of the scan
        counted[..., : later.shape[-1]] |= later
    share = float(np.count_nonzero(counted)) / counted.size
    return max(criterion.lowest - share, share - criterion.highest, 0.0)


def _sides(patch_size: tuple[int, ...], axes: int, axis: int) -> tuple[int, ...]:
    """Return the sides of a patch in a volume of so many axes: a slice along `axis` for 2D patches.

    Example:
        >>> _sides((64, 32), 3, 1)
        (64, 1, 32)
    """
    return patch_size if len(patch_size) == axes else (*patch_size[:axis], 1, *patch_size[axis:])


def _margins(shape: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the borders to keep away from: those of 2019 for slices of 512, less for smaller ones."""
    wanted = [min(_MARGIN_PLANE, length * _MARGIN_PLANE // _PLANE) for length in shape[:2]]
    wanted += [min(_MARGIN_Z, length // 4) for length in shape[2:]]
    return tuple(min(margin, (length - side) // 2) for margin, length, side in zip(wanted, shape, sides, strict=True))


def split_by_size(
    cache: VolumeCache, patch_size: Sequence[int], *, scans: Sequence[int] | None = None, axis: int = 2
) -> tuple[list[int], list[SkippedScan]]:
    """Tell the scans that hold a patch from the ones that are too small.

    Args:
        cache: The prepared volumes.
        patch_size: Voxels along each axis.
        scans: Indices to look at; None for all.
        axis: Along which volumes are cut into slices, when the patch has 2 numbers.

    Returns:
        Indices of the scans that hold one, and the others with the reason.
    """
    holding, small = [], []
    for index in range(len(cache)) if scans is None else scans:
        entry = cache.entry(index)
        sides = _sides(tuple(patch_size), max(len(entry.shape), len(patch_size)), axis)
        if len(sides) == len(entry.shape) and all(np.greater_equal(entry.shape, sides)):
            holding.append(index)
        else:
            shown, wanted = ("×".join(map(str, sides)) for sides in (entry.shape, patch_size))
            small.append(SkippedScan(source=entry.name, reason=f"{shown} voxels do not hold a patch of {wanted}"))
    return holding, small


class Grouped(Protocol):
    """Whatever knows its patient: a `ScanReference`, a cache's entry."""

    @property
    def group(self) -> str:
        """The patient."""
        ...


def split_by_group(scans: Sequence[Grouped], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Hold patients out, so that no patient is on both sides.

    The split depends on the set of patients and the seed, and not on the order of the scans.

    Args:
        scans: Whatever has a `group`.
        fraction: Share of the patients to hold out; at least one, and never all.
        seed: Random seed of the choice.

    Returns:
        Indices of the scans to train with, and of the ones held out.

    Raises:
        DataError: There are fewer than two patients.
        ConfigurationError: The fraction is not between 0 and 1.

    Example:
        training, held_out = split_by_group(scans, 0.2, seed=0)
    """
    if not 0 < fraction < 1:
        raise ConfigurationError(f"fraction: received {fraction}, expected between 0 and 1")
    groups = sorted({scan.group for scan in scans})
    if len(groups) < 2:
        found = f"{len(scans)} scans of {len(groups)} patient"
        raise DataError(f"{found}; expected at least 2 to hold one out: tell them apart with --patient")
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = {groups[index] for index in np.random.default_rng(seed).permutation(len(groups))[:count]}
    sides = ([], [])
    for index, scan in enumerate(scans):
        sides[scan.group in held_out].append(index)
    return sides
