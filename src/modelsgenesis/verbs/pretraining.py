"""Pretraining, from a folder of scans to a bundle."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from modelsgenesis.configs import RECIPES, InputContract, PretrainingConfig
from modelsgenesis.data import (
    Refusal,
    ScanReference,
    SubvolumeDataset,
    VolumeCache,
    choose_contract,
    find_scans,
    split_by_group,
    split_fitting,
)
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Run, pretrain_network
from modelsgenesis.verbs.models import announce, load, public_name, seeded

VALIDATION_SEED = 1_000_003  # apart from every seed of training

Source = str | Path | Sequence[str | Path]


def pretrain(
    source: Source,
    output: str | Path,
    *,
    config: PretrainingConfig = RECIPES["small"],
    init: str | Path | None = None,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, ...] | None = None,
    validation_source: Source | None = None,
    group_pattern: str | None = None,
    device: str = "auto",
    cache: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Pretrain on unlabelled scans and keep the best network as a bundle.

    Args:
        source: Scans: a folder, file, glob, list file, `dataset.json`, or several of these.
        output: The run's folder, new or empty.
        config: Recipe; see `modelsgenesis.configs.pretraining_recipe`.
        init: Go on from these weights instead of random ones.
        modality: Of the scans; `"auto"` decides from tags and values.
        spacing: Voxel size in mm to resample to; None keeps each scan's own.
        window: CT window in HU.
        validation_source: Scans to validate on; None holds out a share of the patients of `source`.
        group_pattern: A regular expression whose first group is the patient in a file's name; see `find_scans`.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        cache: Folder of the prepared volumes; by default one in the user's cache that runs share.
        resume: Go on with the run in `output`.
        strict: A bad scan ends the run instead of being left out.
        token: Of the Hub, for `init`.
        reporter: Is told the progress.

    Returns:
        The run's folder.

    Raises:
        DataError: There is no usable scan.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run = modelsgenesis.pretrain("scans/", "runs/chest")
        network = modelsgenesis.from_pretrained(run)
    """
    reporter = reporter or Reporter()
    Run.check(output, resume=resume)
    hardware = choose_hardware(device, config.precision)
    network, contract, config = _start(init, config, token, reporter)
    scans, refusals = find_scans(source, group_pattern=group_pattern)
    _refuse(refusals, strict, reporter)
    if contract is None or modality != "auto" or spacing or window:
        contract, why = choose_contract(
            scans, modality=modality, spacing=spacing, window=_pair(window), dims=config.network.dims
        )
        reporter.note(why)
    held_out = [] if validation_source is None else find_scans(validation_source, group_pattern=group_pattern)[0]
    store = _prepare([*scans, *(scan for scan in held_out if scan not in scans)], contract, cache, strict, reporter)
    groups = {scan.group for scan in held_out}
    training, validation = _split(store, groups, config, strict, reporter)
    reporter.note(f"computing on {hardware.describe()}")
    run = pretrain_network(
        network=network,
        config=config,
        contract=contract,
        training=training,
        validation=validation,
        output=output,
        split={"training": _names(training), "validation": _names(validation)},
        data=_public_facts(training, validation),
        hardware=hardware,
        reporter=reporter,
        init=None if init is None else public_name(init),
        resume=resume,
    )
    if training.refused_share:
        reporter.note(f"{training.refused_share:.0%} of the sub-volumes drawn were refused: rule {config.rule}")
    return run


def _prepare(
    scans: Sequence[ScanReference],
    contract: InputContract,
    cache: str | Path | None,
    strict: bool,
    reporter: Reporter,
) -> VolumeCache:
    """Prepare every scan that is not in the cache yet."""
    reporter.begin("preparing scans", len(scans))
    store, refused = VolumeCache.build(
        scans, contract, cache or default_cache(), strict=strict, progress=lambda done, _: reporter.advance(done)
    )
    reporter.end()
    _refuse(refused, strict, reporter)
    return store


def default_cache() -> Path:
    """Return the folder of prepared volumes that runs share: `$MODELSGENESIS_CACHE` or in the user's cache."""
    base = os.environ.get("MODELSGENESIS_CACHE")
    return Path(base) / "volumes" if base else Path.home() / ".cache" / "modelsgenesis" / "volumes"


def _split(
    store: VolumeCache, held_out: set[str], config: PretrainingConfig, strict: bool, reporter: Reporter
) -> tuple[SubvolumeDataset, SubvolumeDataset]:
    """Return the sub-volumes of the training and of the validation patients."""
    fitting, refused = split_fitting(store, config.patch_size, axis=config.slice_axis)
    _refuse(refused, strict, reporter)
    if not fitting:
        raise DataError(f"no scan holds a sub-volume of {config.patch_size}: set patch_size smaller")
    entries = [store.entry(index) for index in fitting]
    if held_out:
        parts = [[i for i, e in enumerate(entries) if (e.group in held_out) is side] for side in (False, True)]
    elif len({entry.group for entry in entries}) > 1 and config.validation_fraction:
        parts = list(split_by_group(entries, config.validation_fraction, config.seed))
    else:
        reporter.note("nobody is held out: validating on other sub-volumes of the same scans, which flatters")
        parts = [list(range(len(entries)))] * 2
    if not parts[0] or not parts[1]:
        raise DataError("no usable scan is left to train on, or to validate on; see what was left out above")
    training, validation = (
        SubvolumeDataset(
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


def _names(subvolumes: SubvolumeDataset) -> list[str]:
    return [subvolumes.cache.entry(int(index)).name for index in subvolumes.scans]


def _public_facts(training: SubvolumeDataset, validation: SubvolumeDataset) -> dict[str, Any]:
    """Return what a bundle may say of the data; no name among it."""
    entries = [training.cache.entry(int(index)) for index in training.scans]
    spacings = [entry.spacing for entry in entries]
    return {
        "modality": training.cache.contract.modality,
        "training_scans": len(training.scans),
        "validation_scans": len(validation.scans),
        "training_patients": len({entry.group for entry in entries}),
        "median_spacing_mm": [round(float(size), 3) for size in np.median(spacings, axis=0)],
    }


def _start(
    init: str | Path | None, config: PretrainingConfig, token: str | None, reporter: Reporter
) -> tuple[nn.Module, InputContract | None, PretrainingConfig]:
    """Return the network to train, the contract that it brings along, and the configuration with its shape."""
    if init is None:
        return seeded(config.seed, lambda: build_network(config.network)), None, config
    bundle = load(init, token=token, progress=announce(reporter))
    network, report = adapt(bundle.network, task="restoration", copy=False)
    reporter.note(f"{public_name(init)}: {report.summary()}")
    return network, bundle.config.input, config.override(network=network.config)


def _pair(window: tuple[float, ...] | None) -> tuple[float, float] | None:
    if window is None:
        return None
    if len(window) != 2:
        raise ConfigurationError(f"window: received {window}, expected a lower and an upper bound")
    return window[0], window[1]


def _refuse(refusals: Sequence[Refusal], strict: bool, reporter: Reporter) -> None:
    """Report what is left out, or stop at the first when strict."""
    for refusal in refusals:
        if strict and refusal.bad:
            raise ScanError(f"{refusal.source}: {refusal.reason}")
        reporter.note(f"left out {refusal.source}: {refusal.reason}")
