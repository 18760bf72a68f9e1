"""Looking before training: what a source holds, and what preparation and deformations make of it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from modelsgenesis.configs import InputContract, PretextConfig
from modelsgenesis.configs.training import UNCHANGED
from modelsgenesis.data.finding import Source, find_scans, scan_sources
from modelsgenesis.data.preparation import prepare
from modelsgenesis.data.reading import choose_contract, read_volume
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.figures import draw_pictures, middle_slice
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter

_READERS = 2  # scans in memory at once
_PATCHES = {2: (128, 128), 3: (64, 64, 32)}  # voxels of the patches that are shown, by dimensions
_SHARE = 99  # percentile of a scan that becomes white in its own picture

# Each deformation for certain, so that a picture shows it, and all of them as they are drawn in training.
DEFORMATIONS: dict[str, PretextConfig] = {
    "I non-linear": UNCHANGED.override(intensity_probability=1.0),
    "II shuffled": UNCHANGED.override(shuffle_probability=1.0),
    "III out-painted": UNCHANGED.override(painting_probability=1.0, inpainting_share=0.0),
    "IV in-painted": UNCHANGED.override(painting_probability=1.0, inpainting_share=1.0),
    "V all": PretextConfig(flip_probability=0),
}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a source holds.

    Attributes:
        scans: The usable ones, each by `source`, `format`, `shape`, `spacing` in mm, `modality` as its file or data set
            says it, `patient`, `range` of its values after the file's rescale, and `notes` on what reading did to it.
        skipped: The others, and why.
        contract: How they would be prepared, None where the modality cannot be told.
        why: Why this contract, or why none.
    """

    scans: tuple[dict[str, Any], ...]
    skipped: tuple[SkippedScan, ...]
    contract: InputContract | None
    why: str


def inspect_scans(
    source: Source,
    *,
    modality: str = "auto",
    window: tuple[float, float] | None = None,
    group_pattern: str | None = None,
    reporter: Reporter | None = None,
) -> Inspection:
    """Read every scan of a source and tell what pretraining would use, what it would skip, and why.

    Args:
        source: A folder, file, glob, list file, `dataset.json`, or several of these.
        modality: Modality of the scans; `"auto"` decides from tags and values.
        window: Intensities that become 0 and 1.
        group_pattern: A regular expression whose first group is the patient in a file's name.
        reporter: Receives the progress.

    Raises:
        DataError: The source does not exist, or holds neither scans nor what looks like one.

    Example:
        inspection = inspect_scans("scans/")
        [one.reason for one in inspection.skipped]
    """
    reporter = reporter or Reporter()
    found, skipped = scan_sources(source, group_pattern=group_pattern)
    if not found and not skipped:
        find_scans(source)  # says what was expected
    contract, why = None, "no scan from which to infer the modality"
    if found:
        try:
            dims = min(len(scan.shape) for scan in found)
            contract, why = choose_contract(found, modality=modality, window=window, dims=dims)
        except DataError as error:
            why = str(error)
    scans: list[dict[str, Any]] = []
    reporter.begin("reading scans", len(found))
    with ThreadPoolExecutor(_READERS) as pool:
        for done, one in enumerate(pool.map(lambda scan: _summarize(scan, contract), found), start=1):
            skipped += [one] if isinstance(one, SkippedScan) else []
            scans += [one] if isinstance(one, dict) else []
            reporter.advance(done)
    reporter.end()
    return Inspection(scans=tuple(scans), skipped=tuple(skipped), contract=contract, why=why)


def _summarize(scan: ScanReference, contract: InputContract | None) -> dict[str, Any] | SkippedScan:
    """Read a scan, and prepare it too, since a scan may be readable and yet teach nothing."""
    try:
        volume = read_volume(scan)
        if contract is not None:
            prepare(volume, contract)
    except ScanError as error:
        return SkippedScan.because(scan.source, error)
    told = {name: getattr(scan, name) for name in ("source", "format", "shape", "spacing", "modality")}
    values = (float(np.nanmin(volume.array)), float(np.nanmax(volume.array)))
    notes = tuple(dict.fromkeys((*scan.notes, *volume.notes)))
    return {**told, "patient": scan.group, "range": values, "notes": notes}


def preview(
    source: Source,
    output: str | Path,
    *,
    count: int = 4,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, float] | None = None,
    patch_size: tuple[int, ...] | None = None,
    seed: int = 0,
) -> tuple[Path, list[ScanReference]]:
    """Draw a contact sheet: scans as stored, as prepared, and what each deformation does to a patch.

    Args:
        source: A scan, or whatever `find_scans` takes.
        output: The PNG to write.
        count: Scans at most, evenly over those that were found.
        modality: Modality of the scans; `"auto"` decides from tags and values.
        spacing: Voxel size in mm; None keeps each scan's own.
        window: Intensities that become 0 and 1.
        patch_size: Voxels of the patch, at most; by default that of the small recipe.
        seed: Random seed of the deformations.

    Returns:
        The picture, and the scans in the order of its rows; the picture itself holds no names.

    Raises:
        ConfigurationError: The output is not a PNG, or is one of the scans.
        DataError: There is no usable scan, or the modality cannot be told.
        ScanError: A scan cannot be used.

    Example:
        preview("scans/", "preview.png", modality="ct")
    """
    output = Path(output)
    if output.suffix.lower() != ".png":
        raise ConfigurationError(f"output: received {output}, expected a picture to write, such as preview.png")
    scans, _ = find_scans(source)
    if output.resolve() in {scan.path.resolve() for scan in scans}:
        raise ConfigurationError(f"output: {output} is one of the scans; choose another name")
    dims = min(len(scan.shape) for scan in scans)
    contract, _ = choose_contract(scans, modality=modality, spacing=spacing, window=window, dims=dims)
    chosen = np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int)
    shown = [scans[index] for index in chosen]
    rows, labels = [], []
    for number, scan in enumerate(shown):
        rows.append(_pictures(scan, contract, patch_size or _PATCHES[dims], seed + number))
        sizes = "" if scan.spacing is None else "\n" + "×".join(f"{size:.2g}" for size in scan.spacing) + " mm"
        labels.append(f"scan {number + 1}\n{'×'.join(map(str, scan.shape))}{sizes}")
    return draw_pictures(rows, ("as stored", "prepared", "patch", *DEFORMATIONS), output, labels=labels), shown


def _pictures(scan: ScanReference, contract: InputContract, patch_size: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Return the row of a scan: as stored, in its own range and the file's own orientation; prepared; deformed."""
    volume = read_volume(scan)
    stored, prepared = volume.array, prepare(volume, contract).array
    if stored.ndim == 3:
        stored = stored[:, :, stored.shape[2] // 2].T
    low, high = np.percentile(stored, (100 - _SHARE, _SHARE))
    if prepared.ndim > len(patch_size):
        prepared = prepared[..., prepared.shape[-1] // 2]
    starts = [max((length - side) // 2, 0) for length, side in zip(prepared.shape, patch_size, strict=True)]
    patch = prepared[tuple(slice(start, start + side) for start, side in zip(starts, patch_size, strict=True))]
    batch = rearrange(torch.from_numpy(np.ascontiguousarray(patch)), "... -> 1 1 ...")
    seeds = torch.tensor([seed])
    deformed = [Deformation(config)(batch, seeds)[0][0, 0].numpy() for config in DEFORMATIONS.values()]
    stored = np.clip((stored - low) / max(high - low, 1e-6), 0, 1)
    return [stored, *(middle_slice(one) for one in (prepared, patch, *deformed))]
