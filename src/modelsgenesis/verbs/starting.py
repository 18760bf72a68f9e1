"""What a pretraining starts from: random weights or a checkpoint, and the input that goes with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import CONTRACTS, InputContract, PretrainingConfig
from modelsgenesis.data import ScanReference, choose_contract
from modelsgenesis.errors import ConfigurationError, DataError, ResumeError
from modelsgenesis.files import parsing
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.run import RUN_NAME, Run
from modelsgenesis.training.task_networks import seeded
from modelsgenesis.verbs.requests import Request


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
    divisor, patch = cast("tuple[int, ...]", start.network.size_divisor), start.config.patch_size
    if any(side % factor for side, factor in zip(patch, divisor, strict=True)):  # before any scan is prepared
        near = ",".join(str(max(side // factor, 1) * factor) for side, factor in zip(patch, divisor, strict=True))
        raise ConfigurationError(
            f"patch_size: received {patch}, expected sides that divide by {divisor} for this network; "
            f"set patch_size={near}"
        )
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


def choose_input(scans: Sequence[ScanReference], start: Start, request: Request, reporter: Reporter) -> InputContract:
    """Choose how the scans are prepared: as the weights that training goes on from saw theirs, if they are alike.

    Raises:
        DataError: The modality cannot be told.
        ConfigurationError: Scans, network and options do not fit together.
    """
    dims = start.config.network.dims
    if dims == 3 and scans and all(len(scan.shape) == 2 for scan in scans):
        remedy = "set network.dims=2 and patch_size=64,64" if start.name is None else "choose weights of 2 dimensions"
        what = "the network" if start.name is None else start.name
        raise ConfigurationError(f"{what} has 3 dimensions, the scans are planes of 2: {remedy}")
    choose = partial(choose_contract, scans, spacing=request.spacing, window=request.window, dims=dims)
    if start.contract is None:
        contract, why = choose(modality=request.modality)
        reporter.note(why)
        return contract
    try:
        told = choose_contract(scans, modality=request.modality, dims=dims)[0].modality
    except DataError as error:  # what cannot be told is what the weights saw
        told = start.contract.modality
        reporter.note(f"{error}; taking {told}, which {start.name} was trained on")
    if told == start.contract.modality:
        return _kept(start.contract, start.name, request, reporter)
    reporter.note(
        f"warning: {start.name} was trained on {start.contract.modality}, the scans are {told}: preparing them as "
        f"{told}; expect less from its weights than from those of the same modality"
    )
    return choose(modality=told)[0]


def _kept(contract: InputContract, name: str | None, request: Request, reporter: Reporter) -> InputContract:
    """Return the contract of the weights with what was asked for changed, in [0, 1] as the deformations need it."""
    changes: dict[str, Any] = {"channels": ("image",)}
    if request.spacing is not None:
        changes["spacing"] = request.spacing
    if request.window is not None:
        changes |= {"intensity": "window", "window": request.window}
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


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What `run.json` says of a pretraining.

    Attributes:
        request: What was asked for; None in a run that was not started by `pretrain`.
        config: With the shape of the network and the sizes that were worked out.
        init: What may be said of the weights that it went on from; a folder of that name may be gone.
        contract: How the scans were prepared.
        pretrained: Names of the tensors that came from `init`.
        finished: Whether there is nothing left to do.
    """

    request: Request | None
    config: PretrainingConfig
    init: str | None
    contract: InputContract | None
    pretrained: tuple[str, ...]
    finished: bool

    def start(self, config: PretrainingConfig) -> Start:
        """Return what a resumed run starts from; its weights come from the checkpoint."""
        return Start(
            network=seeded(config.seed, lambda: build_network(config.network)),
            config=config,
            name=self.init,
            contract=self.contract,
            pretrained=self.pretrained,
        )


def read_recorded(output: str | Path) -> Recorded:
    """Return what a run's folder says of how it was started.

    Raises:
        ResumeError: There is no run, or it is no pretraining.
    """
    told, path = Run(Path(output)).description(), Path(output) / RUN_NAME
    if told.get("kind") != "pretraining":
        raise ResumeError(f"{output}: holds a run of {told.get('kind')}, not a pretraining; go on with its own command")
    request, contract = told.get("request"), told.get("input")
    with parsing(path, ResumeError, remedy="restore it, or start again in another folder"):
        return Recorded(
            request=None if request is None else Request.from_dict(request),
            config=PretrainingConfig.from_dict(told["config"], where=str(path)),
            init=told.get("init"),
            contract=None if contract is None else InputContract.from_dict(contract),
            pretrained=tuple(told.get("pretrained", ())),
            finished=bool(told.get("finished")),
        )
