"""From scans to the sub-volumes that a pretraining draws, and what may be said of them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from modelsgenesis.configs import InputContract, PretrainingConfig
from modelsgenesis.data import (
    CacheEntry,
    PatchDataset,
    ScanReference,
    SkippedScan,
    VolumeCache,
    skipped_notes,
    split_by_group,
    split_by_size,
)
from modelsgenesis.errors import DataError, ScanError
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.memory import SHARE, Trial, available_memory, largest_batch, largest_patch
from modelsgenesis.verbs.starting import Start

VALIDATION_SEED = 1_000_003  # apart from every seed of training


def prepare_scans(
    scans: Sequence[ScanReference],
    contract: InputContract,
    cache: str | Path | None,
    strict: bool,
    reporter: Reporter,
) -> VolumeCache:
    """Prepare every scan that is not in the cache yet; each once, however often it is named."""
    scans = list(dict.fromkeys(scans))
    reporter.begin("preparing scans", len(scans))
    store, refused = VolumeCache.build(
        scans, contract, cache or default_cache(), strict=strict, progress=lambda done, _: reporter.advance(done)
    )
    reporter.end()
    refuse(refused, strict, reporter)
    return store


def default_cache() -> Path:
    """Return the folder of prepared volumes that runs share: `$MODELSGENESIS_CACHE` or in the user's cache."""
    base = os.environ.get("MODELSGENESIS_CACHE")
    return Path(base) / "volumes" if base else Path.home() / ".cache" / "modelsgenesis" / "volumes"


def split_subvolumes(
    store: VolumeCache, held_out: set[str], start: Start, strict: bool, reporter: Reporter
) -> tuple[PatchDataset, PatchDataset]:
    """Return the sub-volumes of the training and of the validation patients.

    Args:
        store: Every prepared scan.
        held_out: Patients to validate on; empty to draw some.
        start: The configuration, and the network that sub-volumes must fit.
        strict: Stop at the first scan that is too small.
        reporter: Is told who is for what.

    Raises:
        DataError: No scan holds a sub-volume, or none is left for one of the parts.
    """
    config = start.config
    fitting, refused = split_by_size(store, config.patch_size, axis=config.slice_axis)
    remedy = _what_would_fit(store, start)
    refuse(refused, strict, reporter)
    if not fitting:
        raise DataError(f"no scan holds a sub-volume of {config.patch_size}: {remedy or 'set patch_size smaller'}")
    if refused and remedy:
        reporter.note(remedy)
    entries = [store.entry(index) for index in fitting]
    if held_out:
        parts = [[i for i, e in enumerate(entries) if (e.group in held_out) is side] for side in (False, True)]
    elif len({entry.group for entry in entries}) > 1 and config.validation_fraction:
        parts = list(split_by_group(entries, config.validation_fraction, config.seed))
    else:
        reporter.note("nobody is held out: validating on other sub-volumes of the same scans, which flatters")
        parts = [list(range(len(entries)))] * 2
    for part, purpose in zip(parts, ("train on", "validate on"), strict=True):
        if not part:
            raise DataError(f"no usable scan is left to {purpose} among {len(entries)}; see what was left out above")
    training, validation = (
        PatchDataset(
            store,
            [fitting[index] for index in part],
            patch_size=config.patch_size,
            per_scan=config.samples_per_scan,
            rule=config.rule,
            seed=seed,
            axis=config.slice_axis,
        )
        for part, seed in zip(parts, (config.seed, config.seed + VALIDATION_SEED), strict=True)
    )
    reporter.note(f"{len(parts[0])} scans to train on, {len(parts[1])} to validate on")
    return training, validation


def _what_would_fit(store: VolumeCache, start: Start) -> str:
    """Return the setting of the largest patch, up to the one asked for, that every scan holds; "" if none does.

    Its sides divide as the network needs it.
    """
    shapes = _shapes(store, start.config)
    if not shapes:
        return ""
    divisor = np.array(cast("tuple[int, ...]", start.network.size_divisor))
    sides = np.minimum(np.min(shapes, axis=0), start.config.patch_size) // divisor * divisor
    return f"patch_size={','.join(map(str, sides))} would fit all {len(shapes)} scans" if sides.min() > 0 else ""


def _shapes(store: VolumeCache, config: PretrainingConfig) -> list[tuple[int, ...]]:
    """Return the sides of each scan along the axes of a patch."""
    count = len(config.patch_size)
    return [
        entry.shape if len(entry.shape) == count else tuple(np.delete(entry.shape, config.slice_axis))
        for entry in store.entries()
        if len(entry.shape) >= count
    ]


def public_facts(training: PatchDataset, validation: PatchDataset) -> dict[str, Any]:
    """Return what a bundle may say of the data; no name among it."""
    entries, measured = list(training.entries()), list(validation.entries())
    groups, held = ({entry.group for entry in part} for part in (entries, measured))
    return {
        "modality": training.cache.contract.modality,
        "training_scans": len(entries),
        "training_patients": len(groups),
        "validation_scans": len(measured),
        "validation_patients": len(held),
        "held_out": not groups & held,
        "median_spacing_mm": [round(float(size), 3) for size in np.median([e.spacing for e in entries], axis=0)],
        "median_shape": [round(float(side)) for side in _median_shape(entries)],
    }


def _median_shape(entries: Sequence[CacheEntry]) -> np.ndarray:
    """Return the median of the sides, over the scans of as many axes as the first."""
    axes = len(entries[0].shape)
    return np.median([entry.shape for entry in entries if len(entry.shape) == axes], axis=0)


def refuse(refusals: Sequence[SkippedScan], strict: bool, reporter: Reporter) -> None:
    """Report what is left out, or stop at the first when strict."""
    for refusal in refusals:
        if strict and refusal.bad:
            raise ScanError(f"{refusal.source}: {refusal.reason}")
    for note in skipped_notes(refusals):
        reporter.note(note)


def fit_to_memory(
    start: Start,
    store: VolumeCache,
    *,
    batch: bool,
    patch: bool,
    hardware: Hardware,
    processes: Processes,
    reporter: Reporter,
) -> Start:
    """Work out the largest patch, then the largest batch, that fit into memory; as little as was asked for.

    Args:
        start: The network and the configuration.
        store: The prepared scans: a patch is to fit all of them, a batch holds no more than an epoch.
        batch: Whether to work out `batch_size`.
        patch: Whether to work out `patch_size`.
        hardware: Where to compute.
        processes: Share the batch; rank 0 works it out.
        reporter: Receives the result.

    Returns:
        The start with the new configuration.

    Raises:
        ConfigurationError: Nothing fits, or the system does not tell its memory.
    """
    if not (batch or patch):
        return start
    config, world = start.config, processes.world_size
    budget = int(SHARE * processes.first(partial(available_memory, hardware)))
    holds = f"{budget / 2**30:.1f} GiB hold"
    if patch:
        trial = Trial(start.network, config.override(batch_size=max(config.batch_size // world, 1)), hardware)
        shapes = _shapes(store, config)
        limits = np.min(shapes, axis=0).tolist() if shapes else config.patch_size
        config = config.override(patch_size=processes.first(partial(largest_patch, trial, budget, limits)))
        reporter.note(f"patch_size={','.join(map(str, config.patch_size))} is what {holds}")
    if batch:
        trial = Trial(start.network, config, hardware)
        most = max(len(store) * config.samples_per_scan // world, 1)
        fits = processes.first(partial(largest_batch, trial, budget, most))
        config = config.override(batch_size=fits * world)
        why = "there are no more samples" if fits == most else f"what {holds}"
        reporter.note(f"batch_size={config.batch_size}: {why}")
    return replace(start, config=config)
