"""What a pretraining starts from: random weights or a checkpoint, and the input that goes with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import CONTRACTS, InputContract, PretrainingConfig
from modelsgenesis.data import ScanReference, choose_contract
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.task_networks import seeded
from modelsgenesis.verbs.models import announce, load, public_name


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a pretraining starts.

    Attributes:
        network: To train.
        config: With the shape of the network in it.
        name: What the weights are called; None for random ones.
        contract: The input that the weights saw; None for random ones.
        pretrained: Names of the parameters that came from the weights.
    """

    network: nn.Module
    config: PretrainingConfig
    name: str | None = None
    contract: InputContract | None = None
    pretrained: tuple[str, ...] = ()


def start_pretraining(
    init: str | Path | None, config: PretrainingConfig, token: str | None, reporter: Reporter
) -> Start:
    """Build the network, with random weights or those of `init`.

    Raises:
        ConfigurationError: The patch does not fit the network.
        CheckpointError: The weights are not sound, or do not fit.
    """
    if init is None:
        start = Start(network=seeded(config.seed, lambda: build_network(config.network)), config=config)
    else:
        bundle = load(init, token=token, progress=announce(reporter))
        start = _go_on(bundle, public_name(init), config, reporter)
    _check_patch(start)
    return start


def _go_on(bundle: Bundle, name: str, config: PretrainingConfig, reporter: Reporter) -> Start:
    """Return the network of a bundle; one that restores keeps its head, any other gets a new one."""
    trained = cast("Any", bundle.config.network)
    restores = bundle.config.task == "restoration" and trained.out_channels == 1
    network, report = seeded(
        config.seed,
        lambda: adapt(
            bundle.network, task="restoration", num_classes=None if restores else 1, in_channels=1, copy=False
        ),
    )
    reporter.note(f"{name}: {report.summary()}")
    if not restores:
        reporter.note(f"{name} was trained for {bundle.config.task}: the head that restores is new")
    shape = cast("Any", network.config)
    if len(config.patch_size) != shape.dims:
        suited = ",".join(map(str, bundle.config.patch_size))
        raise ConfigurationError(
            f"{name} is a network of {shape.dims} dimensions, patch_size {config.patch_size} has "
            f"{len(config.patch_size)} sides: set patch_size={suited}, or choose other weights"
        )
    return Start(
        network=network,
        config=config.override(network=shape),
        name=name,
        contract=bundle.config.input,
        pretrained=(*report.loaded, *report.adapted),
    )


def _check_patch(start: Start) -> None:
    """Refuse a patch that the network cannot halve as often as it must, before any scan is prepared."""
    divisor, patch = cast("tuple[int, ...]", start.network.divisor), start.config.patch_size
    if any(side % factor for side, factor in zip(patch, divisor, strict=True)):
        near = ",".join(str(max(side // factor, 1) * factor) for side, factor in zip(patch, divisor, strict=True))
        raise ConfigurationError(
            f"patch_size: received {patch}, expected sides that divide by {divisor} for this network; "
            f"set patch_size={near}"
        )


def choose_input(
    scans: Sequence[ScanReference],
    start: Start,
    *,
    modality: str,
    spacing: tuple[float, ...] | None,
    window: tuple[float, ...] | None,
    reporter: Reporter,
) -> InputContract:
    """Choose how the scans are prepared: as the weights that training goes on from saw theirs, if they are alike.

    Raises:
        DataError: The modality cannot be told.
        ConfigurationError: Scans, network and options do not fit together.
    """
    _check_axes(scans, start)
    dims = start.config.network.dims
    asked = {"spacing": spacing, "window": _pair(window), "dims": dims}
    if start.contract is None:
        contract, why = choose_contract(scans, modality=modality, **asked)
        reporter.note(why)
        return contract
    told = _modality(scans, modality, start, reporter)
    if told != start.contract.modality:
        reporter.note(
            f"warning: {start.name} was trained on {start.contract.modality}, the scans are {told}: preparing them as "
            f"{told}; expect less from its weights than from those of the same modality"
        )
        return choose_contract(scans, modality=told, **asked)[0]
    return _kept(start.contract, start.name, asked, reporter)


def _kept(contract: InputContract, name: str | None, asked: dict[str, Any], reporter: Reporter) -> InputContract:
    """Return the contract of the weights with what was asked for changed, in [0, 1] as the deformations need it."""
    changes: dict[str, Any] = {"channels": ("image",)}
    if asked["spacing"] is not None:
        changes["spacing"] = asked["spacing"]
    if asked["window"] is not None:
        changes |= {"intensity": "window", "window": asked["window"]}
    elif contract.intensity not in ("window", "percentiles"):
        default = CONTRACTS[contract.modality]
        changes |= {name: getattr(default, name) for name in ("intensity", "window", "percentiles")}
        reporter.note(
            f"{name} saw intensities by {contract.intensity}, the deformations need [0, 1]: scaling by "
            f"{default.intensity} {default.window or default.percentiles} instead"
        )
    kept = contract.override(**changes)
    changed = "" if kept == contract else ", but for what was changed"
    reporter.note(f"{kept.modality}: prepared as the scans that {name} saw{changed}")
    return kept


def _modality(scans: Sequence[ScanReference], modality: str, start: Start, reporter: Reporter) -> str:
    """Return what was asked for, or what the scans are; what cannot be told is what the weights saw."""
    try:
        return choose_contract(scans, modality=modality, dims=start.config.network.dims)[0].modality
    except DataError as error:
        assert start.contract is not None  # noqa: S101 - only asked where weights bring a contract
        reporter.note(f"{error}; taking {start.contract.modality}, which {start.name} was trained on")
        return start.contract.modality


def _check_axes(scans: Sequence[ScanReference], start: Start) -> None:
    """Refuse planes for a network of three dimensions; volumes are cut into slices for one of two."""
    dims = start.config.network.dims
    if dims == 3 and scans and all(len(scan.shape) == 2 for scan in scans):
        what = "the network" if start.name is None else start.name
        raise ConfigurationError(
            f"{what} has 3 dimensions, the scans are planes of 2: "
            + ("set network.dims=2 and patch_size=64,64" if start.name is None else "choose weights of 2 dimensions")
        )


def _pair(window: tuple[float, ...] | None) -> tuple[float, float] | None:
    if window is None:
        return None
    if len(window) != 2:
        raise ConfigurationError(f"window: received {window}, expected a lower and an upper bound")
    return window[0], window[1]
