"""Pretraining, from a folder of scans to a bundle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modelsgenesis.configs import RECIPES, InputContract, PretrainingConfig
from modelsgenesis.data import (
    ScanReference,
    SubvolumeDataset,
    Refusal,
    VolumeCache,
    choose_contract,
    find_scans,
    split_by_group,
)
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Run, pretrain_network
from modelsgenesis.verbs.models import load, public_name, seeded

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
    scans, refusals = find_scans(source)
    _refuse(refusals, strict, reporter)
    if contract is None or modality != "auto" or spacing or window:
        contract, why = choose_contract(
            scans, modality=modality, spacing=spacing, window=_pair(window), dims=config.network.dims
        )
        reporter.note(why)
    held_out = find_scans(validation_source)[0] if validation_source is not None else []
    store = _fill_cache([*scans, *held_out], contract, cache, config, strict, reporter)
    groups = {scan.group for scan in held_out}
    training, validation = _datasets(store, groups, contract, config, reporter)
    reporter.note(f"computing on {hardware.describe()}")
    spacings = np.array([store.entry(index).spacing for index in training.scans])
    return pretrain_network(
        network=network,
        config=config,
        contract=contract,
        training=training,
        validation=validation,
        output=output,
        description={
            "split": {
                "training": [store.entry(index).name for index in training.scans],
                "validation": [store.entry(index).name for index in validation.scans],
            }
        },
        data={
            "modality": contract.modality,
            "training_scans": len(training.scans),
            "validation_scans": len(validation.scans),
            "median_spacing_mm": [round(float(size), 3) for size in np.median(spacings, axis=0)],
        },
        hardware=hardware,
        reporter=reporter,
        init=None if init is None else public_name(init),
        resume=resume,
    )


def _start(
    init: str | Path | None, config: PretrainingConfig, token: str | None, reporter: Reporter
) -> tuple[nn.Module, InputContract | None, PretrainingConfig]:
    """Return the network to train, the contract that it brings along, and the configuration with its shape."""
    if init is None:
        return seeded(config.seed, lambda: build_network(config.network)), None, config
    bundle = load(init, token=token)
    network, report = adapt(bundle.network, task="restoration", copy=False)
    reporter.note(f"{public_name(init)}: {report}")
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
        if strict:
            raise ScanError(f"{refusal.source}: {refusal.reason}")
        reporter.note(f"left out {refusal.source}: {refusal.reason}")
