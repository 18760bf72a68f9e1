"""Which contract scans call for: by what the files say, else by their values, else an error.

The thresholds are physical where HU give any: CT holds air or fat, whatever part of the body it shows, and nothing
above 33,000. MR has arbitrary units, whose scale differs from scan to scan. Whatever fits neither is left to the user.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import ScanReference, Volume
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, did_you_mean

_SAMPLE = 8  # scans whose values are looked at
_WATER = 0.0
_FAT = -90.0  # HU
_SHARE = 1e-3  # of the voxels are air or fat
_PADDING = -1100.0  # HU; below is a scanner's padding
_DENSEST = 33_000  # no CT number is above, and MR in arbitrary units often is
_TWELVE_BITS = 5000  # above what a CT with a missing rescale intercept holds
_SPREAD = 3.0  # between the brightest and the darkest scan; HU do not scale from scan to scan

_ADVICE = "say which with --modality ct, mri, xray or ultrasound"


def choose_contract(
    scans: Volume | Sequence[ScanReference],
    *,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, float] | None = None,
    dims: int | None = None,
) -> tuple[InputContract, str]:
    """Choose the input contract of a set of scans.

    Args:
        scans: The references of `find_scans`, or one volume.
        modality: One of the modalities, or `"auto"` to decide by tags and then by values.
        spacing: Voxel size in mm to bring every scan to; None keeps each scan's own.
        window: Intensities that become 0 and 1, instead of the modality's own choice.
        dims: 2 or 3; None takes the axes of the scans.

    Returns:
        The contract, and a sentence that says why.

    Raises:
        DataError: The modality cannot be told, or the scans are of several, or of both 2 and 3 axes.
        ConfigurationError: The modality is unknown, or spacing, window or dims cannot be right.

    Example:
        contract, why = choose_contract(scans)
        why  # "modality: ct (air or fat and soft tissue in HU in 4 of 4 scans looked at)"
    """
    if modality not in ("auto", *CONTRACTS):
        raise ConfigurationError(f"modality: received {modality!r}; {did_you_mean(modality, ('auto', *CONTRACTS))}")
    why = f"modality: {modality} (from --modality)"
    if modality == "auto":
        modality, why = _tell(scans)
    axes = [len(scan.shape) for scan in scans] if not isinstance(scans, Volume) else [scans.array.ndim]
    if dims is None and len(set(axes)) > 1:
        shown = f"{axes.count(3)} volumes and {axes.count(2)} planes in one set"
        raise DataError(f"{shown}; keep them apart, or choose 2 dimensions")
    dims = dims or next(iter(axes), 3)
    changes: dict[str, object] = {"dims": dims, "spacing": spacing}
    if dims == 3:
        changes["orientation"] = "RAS"
    if window is not None:
        changes |= {"intensity": "window", "window": window}
    return CONTRACTS[modality].override(**changes), why


def detect_modality(volume: Volume) -> str | None:
    """Return what a scan's file says it is, else what its values can only be; None where neither tells.

    Example:
        detect_modality(read_volume("scans/c02.nii.gz"))  # 'ct': air and soft tissue in HU
    """
    low, high = volume.array.min(), volume.array.max()
    if volume.modality or not (np.isfinite(low) and np.isfinite(high)):
        return volume.modality
    imaged = volume.array[::2, ::2, ...]  # a quarter tells as much
    if low < _FAT and high < _DENSEST and ((imaged > _PADDING) & (imaged < _FAT)).mean() > _SHARE:
        return "ct" if high > _WATER else None
    if volume.array.ndim == 3 and low >= 0 and np.percentile(imaged, 99) > _TWELVE_BITS:
        return "mri"
    return None


def _tell(scans: Volume | Sequence[ScanReference]) -> tuple[str, str]:
    """Return the modality and why."""
    listed = [scans] if isinstance(scans, Volume) else scans
    tags = Counter(scan.modality for scan in listed if scan.modality)
    if len(tags) > 1:
        raise DataError(f"scans of several modalities: {_shown(tags)}; keep them apart, or choose with --modality")
    for name, count in tags.items():
        if count == len(listed):
            return name, f"modality: {name} (from the files or their data set)"
    return _tell_by_values([scans] if isinstance(scans, Volume) else _sample(scans))


def _sample(scans: Sequence[ScanReference]) -> list[Volume]:
    """Read a few scans, evenly over the set; what preparation will refuse anyway does not vote."""
    volumes = []
    for index in np.linspace(0, len(scans) - 1, min(_SAMPLE, len(scans))).round().astype(int):
        with suppress(ScanError):
            volume = read_volume(scans[index])
            if np.isfinite(volume.array.min()) and np.isfinite(volume.array.max()) and np.ptp(volume.array):
                volumes.append(volume)
    if not volumes:
        raise DataError("none of the scans looked at can be used, so their modality cannot be told")
    return volumes


def _tell_by_values(volumes: list[Volume]) -> tuple[str, str]:
    votes = Counter(vote for volume in volumes if (vote := detect_modality(volume)))
    if len(votes) > 1:
        raise DataError(f"scans of several modalities by their values: {_shown(votes)}; keep them apart, or {_ADVICE}")
    count, axes = len(volumes), {volume.array.ndim for volume in volumes}
    if votes["ct"] == count:
        return "ct", f"modality: ct (air or fat and soft tissue in HU in {count} of {count} scans looked at)"
    low, high = min(volume.array.min() for volume in volumes), max(volume.array.max() for volume in volumes)
    tops = [float(np.percentile(volume.array, 99)) for volume in volumes]
    if axes == {3} and low >= 0 and min(tops) > 0 and not votes["ct"]:
        if votes["mri"]:
            looked = f"in {votes['mri']} of {count} scans looked at"
            return "mri", f"modality: mri (positive values in arbitrary units, too large for HU, {looked})"
        if (ratio := max(tops) / min(tops)) > _SPREAD:
            return "mri", f"modality: mri (positive values whose scale differs {ratio:.0f}-fold between scans)"
    kind = "planes and volumes" if len(axes) > 1 else "volumes" if 3 in axes else "planes"
    raise DataError(f"the modality of {kind} with values {low:g} to {high:g} cannot be told; {_ADVICE}")


def _shown(counts: Counter[Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
