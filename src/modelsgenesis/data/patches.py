"""Random patches of cached scans, a function of seed and index alone; and scans split by size and by patient."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from modelsgenesis.data.cache import LEVELS, VolumeCache
from modelsgenesis.data.volume import SkippedScan
from modelsgenesis.errors import ConfigurationError, did_you_mean, require

Rule = Literal["lung", "foreground", "none"]

_TRIES = 50  # per patch wanted
_COUNTERS = 64  # loader processes that count apart, so that no two write to one number

_DENSE = -150.0  # HU; chest wall, heart and bone, not lung
_TISSUE = -500.0  # HU; above air and most of the lung
_DARK = 0.05  # in [0, 1]; the background of what is scaled by percentiles
_ACCEPTED = {"lung": (0.0, 0.15), "foreground": (0.1, 1.0), "none": (0.0, 1.0)}
"""The least and the largest share of a patch that may be dense, or foreground."""

_LOOK_AHEAD = 3  # slices along z in which the lung rule looks for dense voxels, too
_MARGIN_PLANE, _PLANE = 100, 512  # voxels from the borders of x and y, of a slice of 512
_MARGIN_Z = 30  # voxels from the borders of z, and at most a quarter of it


class PatchDataset(Dataset[Tensor]):
    """Patches drawn at random from a cache.

    Item `epoch * len + index` needs no `set_epoch`: the same number gives the same patch in any process.
    A rule rejects patches and draws again, 50 times at most; then the best of those is taken.

    Args:
        cache: The prepared volumes.
        scans: Indices of the volumes to draw from, which hold a patch; see `split_by_size`.
        patch_size: Voxels along each axis, 3 numbers; or 2, for planes and for slices across the last axis of volumes.
        per_scan: Patches of each scan an epoch.
        rule: `"lung"`, of the 2019 recipe, keeps away from the borders and rejects more than 15% of dense
            tissue (−150 HU and above, here or in the next 3 slices); `"foreground"` rejects less than 10% of
            foreground; `"none"` takes all.
        seed: Random seed of the places.

    Each item is float32 [1, *patch_size] in [0, 1].

    Raises:
        ConfigurationError: The rule needs a CT window.

    References:
        Zhou et al. 2019 and its release: 32 patches a scan, the borders, the share of dense tissue, 50 tries.

    Example:
        dataset = PatchDataset(cache, range(len(cache)), patch_size=(64, 64, 32), seed=0)
        dataset[0].shape  # [1, 64, 64, 32]
        dataset[len(dataset)]  # another patch of the same scan, in the next epoch
    """

    def __init__(
        self,
        cache: VolumeCache,
        scans: Sequence[int],
        *,
        patch_size: Sequence[int],
        per_scan: int = 32,
        rule: Rule = "foreground",
        seed: int = 0,
    ) -> None:
        self.cache, self.patch_size, self.per_scan = cache, tuple(patch_size), per_scan
        self.scans = np.asarray(scans, dtype=np.int64)  # unlike a list, shared by the workers that only read it
        known = f"rule: received {rule!r}; {did_you_mean(rule, _ACCEPTED)}"
        require(rule in _ACCEPTED, ConfigurationError, known)
        self.rule, self.seed, contract = rule, seed, cache.contract
        window = contract.window if contract.modality == "ct" and contract.intensity == "window" else None
        received = f"{contract.modality} with {contract.intensity} {contract.window or ''}; use foreground"
        message = f"rule 'lung' tells tissue by HU: it needs CT with a window around {_DENSE:g}, received {received}"
        holds_tissue = window is not None and window[0] < _DENSE < window[1]
        require(rule != "lung" or holds_tissue, ConfigurationError, message)
        hounsfield = _DENSE if rule == "lung" else _TISSUE
        value = _DARK if window is None else (hounsfield - window[0]) / (window[1] - window[0])
        self._level = max(1, round(value * LEVELS))  # from which on a voxel counts
        self._counts = torch.zeros(_COUNTERS, 2, dtype=torch.int64).share_memory_()  # drawn, and rejected of them

    def __len__(self) -> int:
        return len(self.scans) * self.per_scan

    def __iter__(self) -> Iterator[Tensor]:  # one epoch; by items alone it would never end
        return (self[index] for index in range(len(self)))

    @property
    def refused_share(self) -> float:
        """The share of the patches drawn so far, in all processes of a loader, that the rule rejected."""
        drawn, rejected = self._counts.sum(dim=0).tolist()
        return rejected / drawn if drawn else 0.0

    def __getitem__(self, item: int) -> Tensor:
        epoch, index = divmod(item, len(self))
        random = np.random.default_rng([self.seed, epoch, index])
        volume = self.cache[self.scans[index // self.per_scan]]
        sides = (*self.patch_size, 1)[: volume.ndim]
        limits = [(0, length - side) for length, side in zip(volume.shape, sides, strict=True)]
        if self.rule == "lung":
            limits = _within_margins(volume.shape, sides)
        # By the lung rule a voxel counts when it or one of the next slices' is dense.
        ahead = _LOOK_AHEAD if self.rule == "lung" and volume.ndim == 3 else 0
        least, most = _ACCEPTED[self.rule]
        tries, patch, nearest_miss = 0, volume[:0], np.inf
        while tries < _TRIES and nearest_miss > 0:  # the first patch that the rule accepts, else the one nearest to it
            tries += 1
            starts = [int(random.integers(first, last + 1)) for first, last in limits]
            *plane, along = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
            drawn = volume[(*plane, slice(along.start, along.stop + ahead))]
            counted = drawn >= self._level
            for shift in range(1, ahead + 1):
                counted[..., :-shift] |= drawn[..., shift:] >= self._level
            drawn, counted = (array[..., : sides[-1]] for array in (drawn, counted))
            share = np.count_nonzero(counted) / counted.size
            miss = max(least - share, share - most, 0.0)  # how far the share lies outside of what the rule accepts
            if miss < nearest_miss:
                patch, nearest_miss = drawn, miss
        worker = get_worker_info()
        count = self._counts[(worker.id + 1) % _COUNTERS if worker else 0]
        count += torch.tensor([tries, tries - (nearest_miss == 0)])
        patch = patch.astype(np.float32).reshape(self.patch_size)
        patch *= np.float32(1 / LEVELS)
        return rearrange(torch.from_numpy(patch), "... -> 1 ...")


def _within_margins(shape: tuple[int, ...], sides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first and last place of a patch along each axis, away from the borders as in 2019.

    Those are for slices of 512; smaller ones have smaller borders.

    Example:
        >>> _within_margins((512, 512, 300), (64, 64, 32)), _within_margins((120, 64, 40), (64, 64, 32))
        ([(100, 348), (100, 348), (30, 238)], [(23, 33), (0, 0), (4, 4)])
    """
    wanted = [min(_MARGIN_PLANE, length * _MARGIN_PLANE // _PLANE) for length in shape[:2]]
    wanted += [min(_MARGIN_Z, length // 4) for length in shape[2:]]
    margins = [min(margin, (long - side) // 2) for margin, long, side in zip(wanted, shape, sides, strict=True)]
    return [(margin, long - side - margin) for margin, long, side in zip(margins, shape, sides, strict=True)]


def split_by_size(cache: VolumeCache, patch_size: Sequence[int]) -> tuple[list[int], list[SkippedScan]]:
    """Return the indices of the scans that hold a patch, and those that are too small with the reason.

    Args:
        cache: The prepared volumes.
        patch_size: Voxels along each axis, or along the first two for slices of volumes.
    """
    holding, small = [], []
    for index in range(len(cache)):
        entry = cache.entry(index)
        sides = (*patch_size, 1)[: max(len(entry.shape), len(patch_size))]
        if len(sides) == len(entry.shape) and all(np.greater_equal(entry.shape, sides)):
            holding.append(index)
        else:
            shown, wanted = ("×".join(map(str, sides)) for sides in (entry.shape, patch_size))
            small.append(SkippedScan(source=entry.name, reason=f"{shown} voxels do not hold a patch of {wanted}"))
    return holding, small


def hold_out(patients: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Choose patients to hold out, at least one and never all; nobody where there is one patient.

    The choice depends on the set of patients and the seed, and not on their order.

    Example:
        >>> hold_out(["a", "b", "c", "b"], 0.2, seed=0)
        {'c'}
    """
    names = sorted(set(patients))
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    return {names[index] for index in np.random.default_rng(seed).permutation(len(names))[:count]}
