"""Random sub-volumes of cached scans, a function of seed, epoch and index alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from modelsgenesis.configs import InputContract
from modelsgenesis.data.cache import LEVELS, CacheEntry, VolumeCache
from modelsgenesis.data.volume import SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, nearest

Rule = Literal["lung", "foreground", "none"]

_TRIES = 50  # per sub-volume wanted
_COUNTERS = 64  # loader processes that count apart

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
    """Which voxels a rule counts, and the share of them that it accepts."""

    level: int
    lowest: float = 0.0
    highest: float = 1.0
    look_ahead: int = 0
    margins: bool = False


class PatchDataset(Dataset[Tensor]):
    """Sub-volumes drawn at random from a cache.

    Item `epoch * len + index` needs no `set_epoch`: the same numbers give the same sub-volume in any process.
    A rule refuses sub-volumes and draws again, 50 times at most; then the best of those is taken.

    Args:
        cache: The prepared volumes.
        scans: Indices of the volumes to draw from; None for all.
        patch_size: Voxels along each axis, 3 numbers; or 2, for planes and for slices of volumes.
        per_scan: Sub-volumes of each scan an epoch.
        rule: `"lung"`, of the 2019 recipe, keeps away from the borders and refuses more than 15% of dense
            tissue (−150 HU and above, here or in the next 3 slices); `"foreground"` refuses less than 10% of
            foreground; `"none"` takes all.
        seed: Of the places.
        axis: Along which volumes are cut into slices, when the patch has 2 numbers.

    Each item is float32 [1, *patch_size] in [0, 1].

    Raises:
        DataError: A scan is smaller than the patch (see `split_by_size`), or there is none.
        ConfigurationError: The rule is unknown or needs a CT window.

    References:
        Zhou et al. 2019 and its release: 32 cubes a scan, the borders, the share of dense tissue, 50 tries.

    Example:
        dataset = PatchDataset(cache, patch_size=(64, 64, 32), seed=0)
        dataset[0].shape  # [1, 64, 64, 32]
        dataset[len(dataset)]  # another sub-volume of the same scan, in the next epoch
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
        self.per_scan, self.seed, self.epoch = per_scan, seed, 0
        self.rule, self._criterion = rule, _criterion(rule, cache.contract)
        if len(self.patch_size) not in (2, 3):
            raise ConfigurationError(f"patch_size: received {self.patch_size}, expected 2 or 3 numbers")
        if not len(self.scans):
            raise DataError("no scan to draw sub-volumes from")
        _, refused = split_by_size(cache, self.patch_size, scans=self.scans.tolist(), axis=axis)
        if refused:
            raise DataError(f"{len(refused)} scans are too small: {refused[0].source}: {refused[0].reason}")
        self._counts = torch.zeros(_COUNTERS, 2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.scans) * self.per_scan

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what is known of each scan that is drawn from."""
        return (self.cache.entry(int(index)) for index in self.scans)

    def set_epoch(self, epoch: int) -> None:
        """Draw from another epoch. Loader processes that live already keep theirs: count items on instead."""
        self.epoch = epoch

    @property
    def tries(self) -> tuple[int, int]:
        """Sub-volumes drawn so far, in all processes of a loader, and how many of them the rule refused."""
        drawn, refused = self._counts.sum(dim=0).tolist()
        return drawn, refused

    @property
    def refused_share(self) -> float:
        """The share of the sub-volumes drawn that the rule refused."""
        drawn, refused = self.tries
        return refused / drawn if drawn else 0.0

    def __getitem__(self, item: int) -> Tensor:
        later, index = divmod(item, len(self))
        random = np.random.default_rng([self.seed, self.epoch + later, index])
        volume = self.cache[int(self.scans[index // self.per_scan])]
        crop = self._draw(volume, random)
        patch = crop.astype(np.float32)
        patch *= np.float32(1 / LEVELS)
        return torch.from_numpy(patch)[None]

    def _draw(self, volume: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the first sub-volume that the rule accepts, else the one nearest to it."""
        best, nearest_miss, refused = None, np.inf, 0
        for _ in range(_TRIES):
            crop, ahead, depth = self._crop(volume, random)
            miss = _miss(ahead, self._criterion, depth)
            if best is None or miss < nearest_miss:
                best, nearest_miss = crop, miss
            if miss == 0:
                break
            refused += 1
        worker = get_worker_info()
        count = self._counts[(worker.id + 1) % _COUNTERS if worker else 0]
        count += torch.tensor([refused + (nearest_miss == 0), refused])
        if best is None:
            raise DataError("no sub-volume was drawn")
        return best

    def _crop(self, volume: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """Return a sub-volume within the margins, the same with the slices looked at, and its depth."""
        sides = _sides(self.patch_size, volume.ndim, self.axis)
        margins = _margins(volume.shape, sides) if self._criterion.margins else (0,) * volume.ndim
        start = [
            int(random.integers(margin, length - side - margin + 1))
            for length, side, margin in zip(volume.shape, sides, margins, strict=True)
        ]
        where = [slice(first, first + side) for first, side in zip(start, sides, strict=True)]
        crop = volume[tuple(where)]
        if volume.ndim == 3:
            where[2] = slice(where[2].start, where[2].stop + self._criterion.look_ahead)
        ahead = volume[tuple(where)]
        crop = crop.squeeze(self.axis) if crop.ndim > len(self.patch_size) else crop
        return crop, ahead, sides[-1]


def split_by_size(
    cache: VolumeCache, patch_size: Sequence[int], *, scans: Sequence[int] | None = None, axis: int = 2
) -> tuple[list[int], list[SkippedScan]]:
    """Tell the scans that hold a sub-volume from the ones that are too small.

    Args:
        cache: The prepared volumes.
        patch_size: Voxels along each axis.
        scans: Indices to look at; None for all.
        axis: Along which volumes are cut into slices, when the patch has 2 numbers.

    Returns:
        Indices of the scans that fit, and a refusal for each of the others.
    """
    fitting, refused = [], []
    for index in range(len(cache)) if scans is None else scans:
        entry = cache.entry(index)
        if _fits(entry.shape, tuple(patch_size), axis):
            fitting.append(index)
        else:
            shown, wanted = ("×".join(map(str, sides)) for sides in (entry.shape, patch_size))
            refused.append(SkippedScan(source=entry.name, reason=f"{shown} voxels do not hold a patch of {wanted}"))
    return fitting, refused


def _fits(shape: tuple[int, ...], patch_size: tuple[int, ...], axis: int) -> bool:
    if len(shape) < len(patch_size):
        return False
    sides = _sides(patch_size, len(shape), axis)
    return all(length >= side for length, side in zip(shape, sides, strict=True))


def _criterion(rule: str, contract: InputContract) -> _Criterion:
    if rule not in get_args(Rule):
        raise ConfigurationError(f"rule: received {rule!r}; {nearest(rule, get_args(Rule))}")
    window = contract.window if contract.modality == "ct" and contract.intensity == "window" else None
    if rule == "none":
        return _Criterion(level=0)
    if rule == "foreground":
        value = _DARK if window is None else (_TISSUE - window[0]) / (window[1] - window[0])
        return _Criterion(level=_level(value), lowest=_FOREGROUND_SHARE)
    if window is None or not window[0] < _DENSE < window[1]:
        raise ConfigurationError(
            f"rule 'lung' tells tissue by HU: it needs CT with a window around {_DENSE:g}, "
            f"received {contract.modality} with {contract.intensity} {contract.window or ''}; use foreground"
        )
    return _Criterion(
        level=_level((_DENSE - window[0]) / (window[1] - window[0])),
        highest=_DENSE_SHARE,
        look_ahead=_LOOK_AHEAD,
        margins=True,
    )


def _level(value: float) -> int:
    """Return the lowest cached level at or above a value of [0, 1], at least 1."""
    return max(1, round(value * LEVELS))


def _miss(ahead: np.ndarray, criterion: _Criterion, depth: int) -> float:
    """Return how far the share of counted voxels lies outside of what the rule accepts, 0 inside.

    A voxel of the first `depth` slices counts when it or one of the next slices' does.
    """
    if criterion.lowest == 0 and criterion.highest == 1:
        return 0.0
    levels = ahead >= criterion.level
    counted = levels[..., :depth].copy()
    for shift in range(1, criterion.look_ahead + 1):
        later = levels[..., shift : shift + depth]
        counted[..., : later.shape[-1]] |= later
    share = float(np.count_nonzero(counted)) / counted.size
    return max(criterion.lowest - share, share - criterion.highest, 0.0)


def _sides(patch_size: tuple[int, ...], axes: int, axis: int) -> tuple[int, ...]:
    """Return the sides of a sub-volume in a volume of so many axes: a slice along `axis` for 2D patches.

    Example:
        >>> _sides((64, 32), 3, 1)
        (64, 1, 32)
    """
    if len(patch_size) == axes:
        return patch_size
    return (*patch_size[:axis], 1, *patch_size[axis:])


def _margins(shape: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the borders to keep away from: those of 2019 for slices of 512, less for smaller ones."""
    wanted = [min(_MARGIN_PLANE, length * _MARGIN_PLANE // _PLANE) for length in shape[:2]]
    wanted += [min(_MARGIN_Z, length // 4) for length in shape[2:]]
    return tuple(min(margin, (length - side) // 2) for margin, length, side in zip(wanted, shape, sides, strict=True))


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
        seed: Which ones.

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
        raise DataError(
            f"{len(scans)} scans of {len(groups)} patient; expected at least 2 to hold one out: tell them apart with "
            "--patient"
        )
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:count]}
    sides = ([], [])
    for index, scan in enumerate(scans):
        sides[scan.group in held_out].append(index)
    return sides
