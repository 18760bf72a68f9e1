"""What a pretraining finds out before it begins: its scans, their input contract, the sizes that fit into memory."""

import copy
import ctypes
import gc
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from modelsgenesis.configs import CONTRACTS, InputContract, PretrainingConfig
from modelsgenesis.data import (
    PatchDataset,
    ScanReference,
    SkippedScan,
    VolumeCache,
    choose_contract,
    file_stem,
    find_scans,
    skipped_notes,
)
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.hardware import Hardware, free_memory
from modelsgenesis.networks import Network, enable_activation_checkpointing
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed
from modelsgenesis.training.splits import read_split
from modelsgenesis.training.steps import Optimization

_SHARE = 0.8  # of the memory that is free: loader processes and validation need some, too
_PROCESS = Path("/proc/self")
_UNKNOWN = "the system does not tell its memory: set batch_size and patch_size yourself"


def choose_scans(
    config: PretrainingConfig, strict: bool, reporter: Reporter
) -> tuple[list[ScanReference], set[str], int]:
    """Return every scan to prepare, the patients to validate on, and the number of excluded scans."""
    data, excluded = config.data, 0
    scans, skipped = find_scans(data.source, group_pattern=data.patient_pattern)
    held_out: list[ScanReference] = []
    if data.validation_source:
        held_out, more = find_scans(data.validation_source, group_pattern=data.patient_pattern)
        skipped = list(dict.fromkeys([*skipped, *more]))
    report_skipped(skipped, strict, reporter)
    if data.exclude_test_cases:
        scans, held_out, excluded = exclude_test_cases(scans, held_out, data.exclude_test_cases, reporter)
    return list(dict.fromkeys([*scans, *held_out])), {scan.group for scan in held_out}, excluded


def report_skipped(skipped: Sequence[SkippedScan], strict: bool, reporter: Reporter) -> None:
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
    patients: set[str] = set()  # not scans: another scan of a test patient would tell the network as much
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
    scans: Sequence[ScanReference], config: PretrainingConfig, init: str, seen: InputContract | None, reporter: Reporter
) -> InputContract:
    """Choose how the scans are prepared: as the initial weights saw theirs, if they are of the same modality.

    Args:
        scans: Scans to train and to validate on.
        config: The network's dimensions, and what was asked for.
        init: Name of the initial weights; "" for random ones.
        seen: Input that these were trained on.
        reporter: Receives what was chosen, and why.

    Raises:
        DataError: The modality cannot be told.
        ConfigurationError: Scans, network and options do not fit together.
    """
    data, dims, name = config.data, config.network.dims, init or "the network"
    if dims == 3 and scans and all(len(scan.shape) == 2 for scan in scans):
        remedy = "choose 2D weights" if init else "set network.dims=2 and patch_size=64,64"
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
    # The weights know images prepared like this; only what is asked for, and what [0, 1] needs, is changed.
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


def smallest_sides(cache: VolumeCache, config: PretrainingConfig) -> np.ndarray:
    """Return the smallest side of all scans along each axis of a patch; slices have the axes that are not cut."""
    axes = len(config.patch_size)
    shapes = [entry.shape[:axes] for entry in map(cache.entry, range(len(cache))) if len(entry.shape) >= axes]
    return np.min(shapes, axis=0) if shapes else np.array(config.patch_size)


def public_facts(training: PatchDataset, validation: PatchDataset, excluded: int) -> dict[str, Any]:
    """Return what a bundle may say of the data; no name is among it."""
    entries, measured = ([one.cache.entry(index) for index in one.scans] for one in (training, validation))
    groups, held = {entry.group for entry in entries}, {entry.group for entry in measured}
    # Planes and volumes may mix.
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


def fit_to_memory(
    network: Network,
    cache: VolumeCache,
    config: PretrainingConfig,
    hardware: Hardware,
    reporter: Reporter,
    *,
    batch: bool,
    patch: bool,
) -> PretrainingConfig:
    """Return the configuration with the largest patch, then the largest batch, that fit into memory.

    No patch is larger than a scan, no batch than an epoch; a patch grows evenly.

    Raises:
        ConfigurationError: Nothing fits, or the system does not tell its memory.
    """
    divisor, world = network.size_divisor, distributed.world_size()
    free = free_memory(hardware.device)
    if free is None:
        raise ConfigurationError(_UNKNOWN)
    beside = 1 if hardware.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    budget = int(_SHARE * free / beside)
    size = f"{budget / 2**30:.1f} GiB"
    if patch:
        one, each = _growth(network, config, hardware)
        share = max(config.batch_size // world, 1)
        voxels = (budget - max(one - each, 0)) / (share * each / prod(config.patch_size))
        most = [max(side // step, 1) * step for side, step in zip(smallest_sides(cache, config), divisor, strict=True)]
        sides = [min(2 * step, limit) for step, limit in zip(divisor, most, strict=True)]
        if prod(sides) > voxels:
            raise ConfigurationError(
                f"a batch of {share} patches of {tuple(sides)} does not fit into {size}: set batch_size smaller, or "
                "checkpoint_activations=true"
            )
        while able := [
            axis
            for axis, step in enumerate(divisor)
            if sides[axis] + step <= most[axis] and prod(sides) // sides[axis] * (sides[axis] + step) <= voxels
        ]:
            shortest = min(able, key=sides.__getitem__)
            sides[shortest] += divisor[shortest]
        config = config.override(patch_size=[int(side) for side in sides])
        reporter.note(f"patch_size={','.join(map(str, config.patch_size))} is what {size} hold")
    if batch:
        one, each = _growth(network, config, hardware)
        if one > budget:
            raise ConfigurationError(
                f"not one patch of {config.patch_size} fits into {size}: set patch_size smaller, or "
                "checkpoint_activations=true"
            )
        most = max(len(cache) * config.samples_per_scan // world, 1)
        fits = min(1 + int((budget - one) / each), most)
        config = config.override(batch_size=fits * world)
        why = "there are no more samples" if fits == most else f"what {size} hold"
        reporter.note(f"batch_size={config.batch_size}: {why}")
    return config


def _growth(network: Network, config: PretrainingConfig, hardware: Hardware) -> tuple[float, float]:
    """Return the bytes that a step with one sample takes, and those of each further sample.

    Activations are nearly all of it, and they grow by the voxel: two steps tell those of any batch or patch.
    """
    # The first step takes what stays: threads, plans of convolutions.
    _, one, two = measure_steps(network, config, hardware, (1, 1, 2))
    return one, max(two - one, one // 4, 1)


def measure_steps(
    network: Network, config: PretrainingConfig, hardware: Hardware, batch_sizes: Sequence[int]
) -> list[int]:
    """Return the bytes that whole training steps on random input take beyond the network, which stays as it is."""
    trained = hardware.place(copy.deepcopy(network))  # the steps change weights and averages
    if config.checkpoint_activations:
        enable_activation_checkpointing(trained)
    optimization = Optimization(trained, config, size=config.batch_size)

    def step(batch_size: int) -> None:
        batch = hardware.place(torch.zeros(batch_size, config.network.in_channels, *config.patch_size))
        optimization.begin(0)
        with hardware.autocast():
            loss = functional.mse_loss(trained(batch).float(), batch)
        loss.backward()
        optimization.finish(0)

    peaks: list[int] = []
    for size in batch_sizes:
        try:
            peaks.append(peak_memory(partial(step, size), hardware.device))
        except torch.OutOfMemoryError:  # on CUDA; the kernel of a CPU would have ended the process
            peaks.append(2**62)
    return peaks


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that `work` took at its peak, beyond what was in use before it.

    Raises:
        ConfigurationError: The system does not tell.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    # Let the C library give back what was freed, or a step would seem to take none of it; only glibc can.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak starts anew: see proc(5)
        before = _resident_memory("VmRSS")
        work()
        return max(_resident_memory("VmHWM") - before, 0)
    except OSError as error:
        raise ConfigurationError(_UNKNOWN) from error


def _resident_memory(name: str) -> int:
    """Return the bytes that this process has in memory now, `VmRSS`, or had at most, `VmHWM`."""
    fields = dict(line.split(":", 1) for line in (_PROCESS / "status").read_text().splitlines())
    return 1024 * int(fields[name].split()[0])
