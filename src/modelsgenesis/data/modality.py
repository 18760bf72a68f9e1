"""Which contract scans call for: by what the files say, else by their values, else an error."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import ScanReference, Volume
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, nearest

_SAMPLE = 8  # scans whose values are looked at
_WATER = 0.0
_FAT = -90.0  # HU; CT holds fat and air, whatever part of the body it shows
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
        why  # "ct: air and soft tissue in HU in 4 of 4 scans looked at"
    """
    if modality not in ("auto", *CONTRACTS):
        raise ConfigurationError(f"modality: received {modality!r}; {nearest(modality, ('auto', *CONTRACTS))}")
    modality, why = _tell(scans) if modality == "auto" else (modality, f"{modality}: as asked")
    listed = [len(scan.shape) for scan in scans] if not isinstance(scans, Volume) else [scans.array.ndim]
    if dims is None and len(set(listed)) > 1:
        shown = f"{listed.count(3)} volumes and {listed.count(2)} planes in one set"
        raise DataError(f"{shown}; keep them apart, or choose 2 dimensions")
    dims = dims or next(iter(listed), 3)
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
    return volume.modality or _vote(volume)


def _tell(scans: Volume | Sequence[ScanReference]) -> tuple[str, str]:
    """Return the modality and why."""
    listed = [scans] if isinstance(scans, Volume) else scans
    tags = Counter(scan.modality for scan in listed if scan.modality)
    if len(tags) > 1:
        shown = ", ".join(f"{count} {name}" for name, count in tags.most_common())
        raise DataError(f"scans of several modalities: {shown}; keep them apart, or choose with --modality")
    for name, count in tags.items():
        if count == len(listed):
            return name, f"{name}: the files or their data set say so"
    return _tell_by_values([scans] if isinstance(scans, Volume) else _sample(scans))


def _sample(scans: Sequence[ScanReference]) -> list[Volume]:
    """Read a few scans, evenly over the set; what preparation will refuse anyway does not vote."""
    volumes = []
    for index in np.linspace(0, len(scans) - 1, min(_SAMPLE, len(scans))).round().astype(int):
        try:
            volume = read_volume(scans[index])
        except ScanError:
            continue
        low, high = volume.array.min(), volume.array.max()
        if np.isfinite(low) and np.isfinite(high) and low < high:
            volumes.append(volume)
    if not volumes:
        raise DataError("none of the scans looked at can be used, so their modality cannot be told")
    return volumes


def _tell_by_values(volumes: list[Volume]) -> tuple[str, str]:
    votes = Counter(vote for volume in volumes if (vote := detect_modality(volume)))
    if len(votes) > 1:
        shown = ", ".join(f"{count} like {name}" for name, count in votes.most_common())
        raise DataError(f"scans of several modalities by their values: {shown}; keep them apart, or {_ADVICE}")
    if votes["ct"] == len(volumes):
        return "ct", f"ct: air or fat and soft tissue in HU in {len(volumes)} of {len(volumes)} scans looked at"
    low, high = min(volume.array.min() for volume in volumes), max(volume.array.max() for volume in volumes)
    axes = {volume.array.ndim for volume in volumes}
    tops = [float(np.percentile(volume.array, 99)) for volume in volumes]
    if axes == {3} and low >= 0 and min(tops) > 0 and not votes["ct"]:
        looked = f"in {votes['mri']} of {len(volumes)} scans looked at"
        if votes["mri"]:
            return "mri", f"mri: positive values in arbitrary units, too large for HU, {looked}"
        if max(tops) / min(tops) > _SPREAD:
            ratio = max(tops) / min(tops)
            return "mri", f"mri: positive values whose scale differs {ratio:.0f}-fold between scans"
    shown = {2: "planes", 3: "volumes"}[axes.pop()] if len(axes) == 1 else "planes and volumes"
    raise DataError(f"the modality of {shown} with values {low:g} to {high:g} cannot be told; {_ADVICE}")


def _vote(volume: Volume) -> str | None:
    """Return what one volume's values can only be, None where they leave it open."""
    low, high = volume.array.min(), volume.array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    imaged = volume.array[::2, ::2, ...]
    if low < _FAT and high < _DENSEST and ((imaged > _PADDING) & (imaged < _FAT)).mean() > 1e-3:
        return "ct" if high > _WATER else None
    if volume.array.ndim == 3 and low >= 0 and np.percentile(imaged, 99) > _TWELVE_BITS:
        return "mri"
    return None
