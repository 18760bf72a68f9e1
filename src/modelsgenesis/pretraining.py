"""Pretrain on unlabelled scans: from a folder of them to a pretrained network."""

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import CONTRACTS, RECIPES, InputContract, PretrainingConfig
from modelsgenesis.configs.base import require
from modelsgenesis.data import (
    PatchDataset,
    ScanReference,
    SkippedScan,
    VolumeCache,
    choose_contract,
    file_stem,
    find_scans,
    skipped_notes,
    split_by_group,
    split_by_size,
)
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed, memory
from modelsgenesis.training.bundles import describe_computing, network_config
from modelsgenesis.training.pretraining import PretrainingRun, pretrain_network, read_run
from modelsgenesis.training.run import Run, check_config
from modelsgenesis.training.splits import read_split
from modelsgenesis.training.task_networks import seeded

Source = str | Path | Sequence[str | Path]
_VALIDATION_SEED = 1_000_003  # added to the seed of the training patches: larger than any that a person chooses
_MOSTLY = 0.9  # share of rejected patches above which the rule does not suit the scans


def pretrain(
    source: Source | None,
    output: str | Path,
    *,
    config: PretrainingConfig | None = None,
    init: str | Path | None = None,
    fit_batch: bool = False,
    fit_patch: bool = False,
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    tensorboard: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
    **data: Any,
) -> Path:
    """Pretrain on unlabelled scans and keep the best network as a bundle.

    Under `torchrun` every process calls it; rank 0 prepares the scans, validates, writes and reports.

    Args:
        source: Scans: a folder, file, glob, list file, `dataset.json`, or several of these; None for those that the
            configuration names.
        output: The run's folder, new or empty.
        config: Everything that determines the run; see `modelsgenesis.configs.pretraining_recipe`. None for `small`,
            or the run's when resuming.
        init: Initial weights: a name in the registry, `org/name` on the Hub, or a folder.
        fit_batch: Find the largest `batch_size` that fits into memory.
        fit_patch: Find the largest `patch_size`, with the batch of the configuration.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Continue the run in `output`. What is not given is as it was; what differs is refused. A finished run
            is left as it is.
        strict: A bad scan ends the run instead of being left out.
        tensorboard: Write scalars and figures for TensorBoard into `output/tensorboard` too.
        token: Access token of the Hub, for `init`.
        reporter: Receives the progress.
        data: Further fields of `PretrainingDataConfig`, instead of the configuration's: `modality`, `spacing`,
            `window`, `validation_source`, `exclude_test_cases`, `patient_pattern`, `cache`.

    Returns:
        The run's folder.

    Raises:
        DataError: There is no usable scan, or none that a split to exclude names.
        ConfigurationError: Patch, network, weights and scans do not fit together.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run = modelsgenesis.pretrain("scans/", "runs/chest", modality="ct")
        network = modelsgenesis.from_pretrained(run)
    """
    rank, _, local_rank = distributed.torchrun_ranks()
    reporter = (reporter if rank == 0 else None) or Reporter()
    with distributed.connected(choose_hardware(device, local_rank=local_rank).device):
        before = distributed.on_rank_zero(partial(read_run if resume else Run.check, output))
        config = (config or (before.config if before else RECIPES["small"])).with_data(init, source=source, **data)
        if before is None:
            require(bool(config.data.source), "source: received nothing, expected the scans to pretrain on")
            record = PretrainingRun(config=config, init=config.init and public_name(config.init))
        else:
            record = before.override(config=_take_over(before.config, config, batch=fit_batch, patch=fit_patch))
            if before.finished:
                same = partial(check_config, output, before.config.to_dict(), record.config.to_dict())
                distributed.on_rank_zero(same)
                reporter.note(f"{output}: the run is finished, there is nothing left to resume")
                return Path(output)
        hardware = choose_hardware(device, config.precision, local_rank=local_rank)
        network, record, seen = distributed.rank_zero_first(partial(_start, record, token, reporter))
        prepare = partial(_prepare, record, seen, strict, reporter)
        cache, held_out, excluded = distributed.on_each_machine(prepare)
        if before is None and (fit_batch or fit_patch):
            config = _fit_to_memory(network, record.config, cache, hardware, reporter, batch=fit_batch, patch=fit_patch)
            record = record.override(config=config)
        training, validation = distributed.rank_zero_first(
            partial(_split, cache, held_out, record.config, network, strict, reporter)
        )
        reporter.note(f"computing on {describe_computing(hardware, record.config)}")
        run = pretrain_network(
            network,
            record,
            training,
            validation,
            output,
            facts=_public_facts(training, validation, excluded),
            hardware=hardware,
            reporter=reporter,
            resume=resume,
            tensorboard=tensorboard,
        )
        if training.refused_share:
            share = f"{training.refused_share:.0%} of the sampled patches were rejected (rule={record.config.rule})"
            remedy = "; consider --set rule=foreground" if training.refused_share > _MOSTLY else ""
            reporter.note(share + remedy)
        return run


def _take_over(before: PretrainingConfig, now: PretrainingConfig, *, batch: bool, patch: bool) -> PretrainingConfig:
    """Return the configuration to resume with: data and weights that are not named again are those of the run.

    So is what was found when it began: the sizes that filled the memory, and the network that came with the weights.
    """
    unnamed = [field.name for field in fields(now.data) if getattr(now.data, field.name) == field.default]
    found = {"network": before.init is not None, "batch_size": batch, "patch_size": patch}
    return now.override(
        data=now.data.override(**{name: getattr(before.data, name) for name in unnamed}),
        init=now.init or before.init,
        **{name: getattr(before, name) for name, is_found in found.items() if is_found},
    )


def _start(
    record: PretrainingRun, token: str | None, reporter: Reporter
) -> tuple[nn.Module, PretrainingRun, InputContract | None]:
    """Build the network, with random or initial weights; a resumed run gets its weights from the checkpoint.

    Returns:
        The network, the record with its shape, and the input that the initial weights were trained on, if any.

    Raises:
        ConfigurationError: The patch does not fit the network.
        CheckpointError: The weights are damaged, or do not fit.
    """
    config, seen = record.config, None
    if config.init is None or record.input is not None:
        network = seeded(config.seed, lambda: build_network(config.network))
    else:
        bundle = load(config.init, token=token, progress=announce(reporter))
        network, pretrained = _adapt(bundle, record, reporter)
        seen, config = bundle.config.input, config.override(network=network_config(network))
        record = record.override(config=config, pretrained=pretrained)
    divisor, patch = cast("tuple[int, ...]", network.size_divisor), config.patch_size
    if any(side % factor for side, factor in zip(patch, divisor, strict=True)):  # before any scan is prepared
        near = ",".join(str(max(side // factor, 1) * factor) for side, factor in zip(patch, divisor, strict=True))
        raise ConfigurationError(
            f"patch_size: received {patch}, expected sides that divide by {divisor} for this network; "
            f"set patch_size={near}"
        )
    return network, record, seen


def _adapt(bundle: Bundle, record: PretrainingRun, reporter: Reporter) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network of a bundle, with a head that restores, and the names of the tensors that it keeps."""
    name, task, trained, patch = record.init, bundle.config.task, bundle.config.network, record.config.patch_size
    restores = task == "restoration" and trained.outputs == 1
    if len(patch) != trained.unet.dims:
        suited = ",".join(map(str, bundle.config.patch_size))
        raise ConfigurationError(
            f"{name} is a network of {trained.unet.dims} dimensions, patch_size {patch} has {len(patch)} sides: set "
            f"patch_size={suited}, or choose other weights"
        )
    head = None if restores else 1  # outputs of a new head; None keeps the one that is there
    options: dict[str, Any] = {"task": "restoration", "num_classes": head, "in_channels": 1, "copy": False}
    network, report = seeded(record.config.seed, lambda: adapt(bundle.network, **options))
    reporter.note(f"{name}: {report.summary()}")
    if not restores:
        reporter.note(f"{name} was trained for {task}: its head is replaced by a new one that restores")
    return network, (*report.loaded, *report.adapted)


def _prepare(
    record: PretrainingRun, seen: InputContract | None, strict: bool, reporter: Reporter
) -> tuple[VolumeCache, set[str], int]:
    """Return the prepared scans, the patients to validate on, and the number of excluded scans."""
    data, excluded = record.config.data, 0
    scans, skipped = find_scans(data.source, group_pattern=data.patient_pattern)
    held_out: list[ScanReference] = []
    if data.validation_source:
        held_out, more = find_scans(data.validation_source, group_pattern=data.patient_pattern)
        skipped = list(dict.fromkeys([*skipped, *more]))
    _report_skipped(skipped, strict, reporter)
    if data.exclude_test_cases:
        scans, held_out, excluded = exclude_test_cases(scans, held_out, data.exclude_test_cases, reporter)
    scans, patients = list(dict.fromkeys([*scans, *held_out])), {scan.group for scan in held_out}
    contract = record.input or choose_input(scans, record, seen, reporter)
    reporter.begin("preparing scans", len(scans))
    cache, skipped = VolumeCache.build(
        scans, contract, data.cache or default_cache(), strict=strict, progress=lambda done, _: reporter.advance(done)
    )
    reporter.end()
    _report_skipped(skipped, strict, reporter)
    return cache, patients, excluded


def default_cache() -> Path:
    """Return the folder of prepared volumes that runs share: `$MODELSGENESIS_CACHE` or in the user's cache."""
    base = os.environ.get("MODELSGENESIS_CACHE")
    return Path(base) / "volumes" if base else Path.home() / ".cache" / "modelsgenesis" / "volumes"


def _report_skipped(skipped: Sequence[SkippedScan], strict: bool, reporter: Reporter) -> None:
    """Report the scans that are left out, or stop at the first bad one when strict."""
    bad = next((one for one in skipped if one.bad), None)
    if strict and bad is not None:
        raise ScanError(f"{bad.source}: {bad.reason}")
    for note in skipped_notes(skipped):
        reporter.note(note)


def exclude_test_cases(
    scans: Sequence[ScanReference], held_out: Sequence[ScanReference], splits: Sequence[str | Path], reporter: Reporter
) -> tuple[list[ScanReference], list[ScanReference], int]:
    """Take out the scans that a split keeps for testing, and every other scan of the same patients.

    Args:
        scans: Scans to train on.
        held_out: Scans to validate on.
        splits: JSON files; each test case is the name of a file without its suffix, or a patient.
        reporter: Receives the number of scans that are taken out.

    Returns:
        The scans and the held-out scans that are left, and how many different scans were taken out.

    Raises:
        DataError: A file is not a split, or its test cases are not among the scans; nothing is left to train on.
    """
    everything = list(dict.fromkeys([*scans, *held_out]))
    patients: set[str] = set()
    for path in splits:
        tested = set(read_split(path).test)
        found = {scan.group for scan in everything if _names(scan) & tested}
        if not found:
            shown = f"such as {sorted(tested)[0]!r}" if tested else "an empty list"
            raise DataError(
                f"{path}: none of its {len(tested)} test cases, {shown}, is among the {len(everything)} scans; "
                "expected names of their files or patients (see --patient)"
            )
        patients |= found
    left = [[scan for scan in part if scan.group not in patients] for part in (scans, held_out)]
    if not left[0]:
        raise DataError("the splits to leave out name every scan; nothing is left to train on")
    count = sum(scan.group in patients for scan in everything)
    reporter.note(f"excluded {count} scans of {len(patients)} patients that other runs keep for testing")
    return left[0], left[1], count


def _names(scan: ScanReference) -> set[str]:
    """Return what a split may call a scan: its patient, its file, with and without suffix, channel and folder."""
    stem, name = file_stem(scan.path), scan.path.name
    names = {name, stem, re.sub(r"_\d{4}$", "", stem)}  # nnU-Net numbers the channels of a case: case_0000
    return {scan.group, *names, *(f"{scan.path.parent.name}/{one}" for one in names)}


def choose_input(
    scans: Sequence[ScanReference], record: PretrainingRun, seen: InputContract | None, reporter: Reporter
) -> InputContract:
    """Choose how the scans are prepared: as the initial weights saw theirs, if they are of the same modality.

    Raises:
        DataError: The modality cannot be told.
        ConfigurationError: Scans, network and options do not fit together.
    """
    data, dims, name = record.config.data, record.config.network.dims, record.init or "the network"
    if dims == 3 and scans and all(len(scan.shape) == 2 for scan in scans):
        remedy = "choose 2D weights" if record.init else "set network.dims=2 and patch_size=64,64"
        raise ConfigurationError(f"{name} has 3 dimensions, the scans are planes of 2: {remedy}")
    choose = partial(choose_contract, scans, spacing=data.spacing, window=data.window, dims=dims)
    if seen is None:
        contract, why = choose(modality=data.modality)
        reporter.note(why)
        return contract
    try:
        modality = choose_contract(scans, modality=data.modality, dims=dims)[0].modality
    except DataError as error:
        modality = seen.modality
        reporter.note(f"{error}; taking {modality}, which {name} was trained on")
    if modality != seen.modality:
        reporter.note(
            f"warning: {name} was trained on {seen.modality}, the scans are {modality}: preparing them as {modality}; "
            "expect less from its weights than from those of the same modality"
        )
        return choose(modality=modality)[0]
    changes: dict[str, Any] = {"channels": ("image",), "spacing": data.spacing or seen.spacing}
    if data.window is not None:
        changes |= {"intensity": "window", "window": data.window}
    elif seen.intensity not in ("window", "percentiles"):
        default = CONTRACTS[modality]
        changes |= {field: getattr(default, field) for field in ("intensity", "window", "percentiles")}
        reporter.note(
            f"{name} was trained on intensities by {seen.intensity}, the deformations need [0, 1]: scaling by "
            f"{default.intensity} {default.window or default.percentiles} instead"
        )
    contract = seen.override(**changes)
    reporter.note(f"{modality}: prepared as for {name}" + ("" if contract == seen else ", but for what was changed"))
    return contract


def _split(
    cache: VolumeCache,
    held_out: set[str],
    config: PretrainingConfig,
    network: nn.Module,
    strict: bool,
    reporter: Reporter,
) -> tuple[PatchDataset, PatchDataset]:
    """Return the patches of the training and of the validation patients.

    Args:
        cache: Every prepared scan.
        held_out: Patients to validate on; empty to draw some.
        config: Patch size, sampling and seed.
        network: What the patches must fit.
        strict: Stop at the first scan that is too small.
        reporter: Receives the split.

    Raises:
        DataError: No scan holds a patch, or none is left to train or to validate on.
    """
    fitting, skipped = split_by_size(cache, config.patch_size, axis=config.slice_axis)
    _report_skipped(skipped, strict, reporter)
    if skipped:
        divisor = np.array(cast("tuple[int, ...]", network.size_divisor))
        sides = np.minimum(_smallest_sides(cache, config), config.patch_size) // divisor * divisor
        remedy = f"patch_size={','.join(map(str, sides))} would fit all" if sides.all() else "set patch_size smaller"
        if not fitting:
            raise DataError(f"no scan holds a patch of {config.patch_size}: {remedy}")
        reporter.note(f"{len(skipped)} scans are too small: {remedy}")
    entries = [cache.entry(index) for index in fitting]
    if not held_out and config.validation_fraction and len({entry.group for entry in entries}) > 1:
        _, validated = split_by_group(entries, config.validation_fraction, config.seed)
        held_out = {entries[index].group for index in validated}
    parts = [[index for index in fitting if (cache.entry(index).group in held_out) is held] for held in (False, True)]
    if not held_out:
        reporter.note(
            "warning: no patient is held out, so validation reuses the training scans, at other places, and is "
            "optimistic"
        )
        parts = [fitting, fitting]
    for part, purpose in zip(parts, ("train on", "validate on"), strict=True):
        if not part:
            raise DataError(f"no usable scan is left to {purpose} among {len(entries)}; see what was left out above")
    options: dict[str, Any] = {"patch_size": config.patch_size, "per_scan": config.samples_per_scan}
    options |= {"rule": config.rule, "axis": config.slice_axis}
    training = PatchDataset(cache, parts[0], seed=config.seed, **options)
    validation = PatchDataset(cache, parts[1], seed=config.seed + _VALIDATION_SEED, **options)
    reporter.note(f"{len(parts[0])} scans to train on, {len(parts[1])} to validate on")
    if len(parts[0]) < distributed.world_size():
        reporter.note("there are fewer scans than processes: they share the scans, and each draws its own patches")
    return training, validation


def _smallest_sides(cache: VolumeCache, config: PretrainingConfig) -> np.ndarray:
    """Return the smallest side of all scans along each axis of a patch; slices have the axes that are not cut."""
    axes = len(config.patch_size)
    shapes = [
        np.array(entry.shape if len(entry.shape) == axes else np.delete(entry.shape, config.slice_axis))
        for entry in cache.entries()
        if len(entry.shape) >= axes
    ]
    return np.min(shapes, axis=0) if shapes else np.array(config.patch_size)


def _public_facts(training: PatchDataset, validation: PatchDataset, excluded: int) -> dict[str, Any]:
    """Return what a bundle may say of the data; no name is among it."""
    entries, measured = list(training.entries()), list(validation.entries())
    groups, held = ({entry.group for entry in part} for part in (entries, measured))
    shapes = [entry.shape for entry in entries if len(entry.shape) == len(entries[0].shape)]
    return {
        "modality": training.cache.contract.modality,
        "training_scans": len(entries),
        "training_patients": len(groups),
        "validation_scans": len(measured),
        "validation_patients": len(held),
        "held_out": not groups & held,
        "median_spacing_mm": [round(float(size), 3) for size in np.median([e.spacing for e in entries], axis=0)],
        "median_shape": [round(float(side)) for side in np.median(shapes, axis=0)],
        **({"left_out_test_scans": excluded} if excluded else {}),
    }


def _fit_to_memory(
    network: nn.Module,
    config: PretrainingConfig,
    cache: VolumeCache,
    hardware: Hardware,
    reporter: Reporter,
    *,
    batch: bool,
    patch: bool,
) -> PretrainingConfig:
    """Find the largest patch, then the largest batch, that fit into memory: no larger than a scan, or an epoch.

    Raises:
        ConfigurationError: Nothing fits, or the system does not tell its memory.
    """
    world = distributed.world_size()
    budget = int(memory.SHARE * distributed.on_rank_zero(partial(memory.available_memory, hardware)))
    holds = f"{budget / 2**30:.1f} GiB hold"
    if patch:
        trial = memory.Trial(network, config.override(batch_size=max(config.batch_size // world, 1)), hardware)
        find = partial(memory.largest_patch, trial, budget, _smallest_sides(cache, config).tolist())
        config = config.override(patch_size=distributed.on_rank_zero(find))
        reporter.note(f"patch_size={','.join(map(str, config.patch_size))} is what {holds}")
    if batch:
        most = max(len(cache) * config.samples_per_scan // world, 1)
        find = partial(memory.largest_batch, memory.Trial(network, config, hardware), budget, most)
        fits = distributed.on_rank_zero(find)
        config = config.override(batch_size=fits * world)
        why = "there are no more samples" if fits == most else f"what {holds}"
        reporter.note(f"batch_size={config.batch_size}: {why}")
    return config
