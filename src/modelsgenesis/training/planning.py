"""What a pretraining finds out before it begins: its scans, their input contract, the batch that fits into memory."""

import copy
import gc
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from modelsgenesis.configs import InputContract, PretrainingConfig
from modelsgenesis.data import PatchDataset, ScanReference, SkippedScan, choose_contract, file_stem, skipped_notes
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import Network, enable_activation_checkpointing
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed
from modelsgenesis.training.splits import read_split
from modelsgenesis.training.steps import Optimization

_SHARE = 0.8  # of the memory that is free: loader processes and validation need some, too


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
        raise DataError("the excluded splits name every scan; nothing is left to train on")
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
    choose = partial(
        choose_contract, scans, spacing=data.spacing, window=data.window, dims=dims, orientation=data.orientation
    )
    try:
        contract, why = choose(modality=data.modality)
    except DataError as error:
        if seen is None:
            raise
        contract, why = choose(modality=seen.modality)[0], f"{error}; taking {seen.modality}, which {name} expects"
    reporter.note(why)
    if seen is None:
        return contract
    if contract.modality != seen.modality:
        reporter.note(
            f"warning: {name} was trained on {seen.modality}, the scans are {contract.modality}: preparing them as "
            f"{contract.modality}; expect less from its weights than from those of the same modality"
        )
        return contract
    # The weights know images prepared like theirs; only what is asked for, and what [0, 1] needs, is changed.
    changes: dict[str, Any] = {"channels": ("image",), "spacing": data.spacing or seen.spacing}
    changes |= {} if data.orientation is None else {"orientation": data.orientation}
    if data.window is not None or seen.intensity not in ("window", "percentiles"):
        changes |= {field: getattr(contract, field) for field in ("intensity", "window", "percentiles")}
    changed = seen.override(**changes)
    reporter.note(f"prepared as for {name}" + ("" if changed == seen else f", but for what was changed: {changed}"))
    return changed


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


def fit_batch(
    network: Network, samples: int, config: PretrainingConfig, hardware: Hardware, reporter: Reporter
) -> PretrainingConfig:
    """Return the configuration with the largest batch that fits into the free memory of a GPU.

    Args:
        network: It stays as it is.
        samples: Of an epoch; no batch is larger.
        config: Everything but the size of a batch.
        hardware: A GPU.
        reporter: Receives what was found.

    Raises:
        ConfigurationError: Not one patch fits.
    """
    budget, world = int(_SHARE * torch.cuda.mem_get_info(hardware.device)[0]), distributed.world_size()
    # Activations are nearly all of it, so that two steps tell those of any batch. The first takes what stays.
    _, one, two = measure_steps(network, config, hardware, (1, 1, 2))
    each, size = max(two - one, one // 4, 1), f"{budget / 2**30:.1f} GiB"
    if one > budget:
        raise ConfigurationError(
            f"not one patch of {config.patch_size} fits into {size}: set patch_size smaller, or "
            "checkpoint_activations=true"
        )
    fits, most = 1 + (budget - one) // each, max(samples // world, 1)
    config = config.override(batch_size=min(fits, most) * world)
    why = "there are no more samples" if fits >= most else f"what {size} hold"
    reporter.note(f"batch_size={config.batch_size}: {why}")
    return config


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
        optimization.finish(0, loss)

    peaks: list[int] = []
    for size in batch_sizes:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(hardware.device)
        before = torch.cuda.memory_allocated(hardware.device)
        try:
            step(size)
            peaks.append(torch.cuda.max_memory_allocated(hardware.device) - before)
        except torch.OutOfMemoryError:
            peaks.append(2**62)
    return peaks
