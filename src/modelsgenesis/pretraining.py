"""Pretraining, from a folder of scans to a bundle."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import CONTRACTS, RECIPES, InputContract, PretrainingConfig
from modelsgenesis.configs.base import Config
from modelsgenesis.data import (
    CacheEntry,
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
from modelsgenesis.errors import ConfigurationError, DataError, ResumeError, ScanError
from modelsgenesis.files import parsing
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import describe_computing
from modelsgenesis.training.distributed import (
    connected,
    on_each_machine,
    on_rank_zero,
    rank,
    rank_zero_first,
    torchrun_ranks,
    world_size,
)
from modelsgenesis.training.memory import SHARE, Trial, available_memory, largest_batch, largest_patch
from modelsgenesis.training.pretraining import pretrain_network
from modelsgenesis.training.run import RUN_NAME, Run, check_config
from modelsgenesis.training.splits import read_split
from modelsgenesis.training.task_networks import InitialModel, seeded
from modelsgenesis.training.watching import TensorBoard

Source = str | Path | Sequence[str | Path]

_FREE = ("cache",)  # a resume may find the prepared volumes elsewhere


@dataclass(frozen=True, kw_only=True)
class Request(Config):
    """What was asked for besides the configuration; the paths of scans are absolute.

    Attributes:
        source: Scans.
        validation: Scans to validate on.
        leave_out: Recorded splits whose test cases must not be seen.
        group_pattern: Of the patient in a file's name.
        modality: Of the scans, or `"auto"`.
        spacing: Voxel size in mm to resample to.
        window: CT window in HU.
        init: Weights to go on from.
        cache: Folder of the prepared volumes.
    """

    source: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    group_pattern: str | None = None
    modality: str = "auto"
    spacing: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None
    init: str | None = None
    cache: str | None = None


def absolute(source: Source | None) -> tuple[str, ...]:
    """Return the paths of a source, absolute, so that a resume finds them from any folder."""
    if source is None:
        return ()
    paths = [source] if isinstance(source, (str, Path)) else source
    return tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 - it may be a pattern, and no link is followed


def complete(given: Request, recorded: Request | None, output: str | Path) -> Request:
    """Fill what was not given with what the run was started with.

    Raises:
        ResumeError: Something else is asked for than then; the message lists the differences.
        ConfigurationError: There are no scans.
    """
    if recorded is None:
        if not given.source:
            raise ConfigurationError("source: received nothing, expected the scans to pretrain on")
        return given
    changes: dict[str, Any] = {}
    differences: list[str] = []
    for field in fields(Request):
        asked, before = getattr(given, field.name), getattr(recorded, field.name)
        if asked == field.default:
            changes[field.name] = before
        elif asked != before and field.name not in _FREE:
            differences.append(f"{field.name} was {before}, now {asked}")
    if differences:
        raise ResumeError(f"{output}: the run was started with another request: {'; '.join(differences)}")
    return given.override(**changes)


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


def leave_out_test_cases(
    scans: Sequence[ScanReference],
    held_out: Sequence[ScanReference],
    splits: Sequence[str | Path],
    reporter: Reporter,
) -> tuple[list[ScanReference], list[ScanReference], int]:
    """Take out the scans that a split keeps for testing, and every other scan of the same patients.

    Args:
        scans: To train on.
        held_out: To validate on.
        splits: JSON files; each test case is the name of a file without its suffix, or a patient.
        reporter: Is told how many were left out.

    Returns:
        The scans and the held-out scans that are left, and how many different scans were taken out.

    Raises:
        DataError: A file is no split, or its test cases are not among the scans; nothing would be left to train on.
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
    reporter.note(f"left out {count} scans of {len(patients)} patients that recorded splits keep for testing")
    return left[0], left[1], count


def _names(scan: ScanReference) -> set[str]:
    """Return what a split may call a scan: its patient, its file, with and without suffix, channel and folder."""
    stem, name = file_stem(scan.path), scan.path.name
    names = {scan.group, name, stem, re.sub(r"_\d{4}$", "", stem)}
    return names | {f"{scan.path.parent.name}/{one}" for one in names - {scan.group}}


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
    reporter: Reporter,
) -> Start:
    """Work out the largest patch, then the largest batch, that fit into memory; as little as was asked for.

    Args:
        start: The network and the configuration.
        store: The prepared scans: a patch is to fit all of them, a batch holds no more than an epoch.
        batch: Whether to work out `batch_size`.
        patch: Whether to work out `patch_size`.
        hardware: Where to compute.
        reporter: Receives the result.

    Returns:
        The start with the new configuration.

    Raises:
        ConfigurationError: Nothing fits, or the system does not tell its memory.
    """
    if not (batch or patch):
        return start
    config, world = start.config, world_size()
    budget = int(SHARE * on_rank_zero(partial(available_memory, hardware)))
    holds = f"{budget / 2**30:.1f} GiB hold"
    if patch:
        trial = Trial(start.network, config.override(batch_size=max(config.batch_size // world, 1)), hardware)
        shapes = _shapes(store, config)
        limits = np.min(shapes, axis=0).tolist() if shapes else config.patch_size
        config = config.override(patch_size=on_rank_zero(partial(largest_patch, trial, budget, limits)))
        reporter.note(f"patch_size={','.join(map(str, config.patch_size))} is what {holds}")
    if batch:
        trial = Trial(start.network, config, hardware)
        most = max(len(store) * config.samples_per_scan // world, 1)
        fits = on_rank_zero(partial(largest_batch, trial, budget, most))
        config = config.override(batch_size=fits * world)
        why = "there are no more samples" if fits == most else f"what {holds}"
        reporter.note(f"batch_size={config.batch_size}: {why}")
    return replace(start, config=config)


_MOSTLY = 0.9  # of the sub-volumes refused: the rule is not made for these scans


def pretrain(
    source: Source | None,
    output: str | Path,
    *,
    config: PretrainingConfig | None = None,
    init: str | Path | None = None,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, ...] | None = None,
    validation_source: Source | None = None,
    leave_out: str | Path | Sequence[str | Path] = (),
    group_pattern: str | None = None,
    device: str = "auto",
    cache: str | Path | None = None,
    fit_batch: bool = False,
    fit_patch: bool = False,
    resume: bool = False,
    strict: bool = False,
    tensorboard: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Pretrain on unlabelled scans and keep the best network as a bundle.

    Under `torchrun` every process calls it; rank 0 prepares the scans, validates, writes and speaks.

    Args:
        source: Scans: a folder, file, glob, list file, `dataset.json`, or several of these; None when resuming.
        output: The run's folder, new or empty.
        config: Recipe; see `modelsgenesis.configs.pretraining_recipe`. None for `small`, or the run's when resuming.
        init: Go on from these weights instead of random ones.
        modality: Of the scans; `"auto"` decides from tags and values.
        spacing: Voxel size in mm to resample to; None keeps each scan's own.
        window: CT window in HU.
        validation_source: Scans to validate on; None holds out a share of the patients of `source`.
        leave_out: Recorded splits, JSON files, whose test cases must not be seen: they are neither trained nor
            validated on, nor is any other scan of the same patients.
        group_pattern: A regular expression whose first group is the patient in a file's name; see `find_scans`.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        cache: Folder of the prepared volumes; by default one in the user's cache that runs share.
        fit_batch: Work out the largest `batch_size` that fits into memory.
        fit_patch: Work out the largest `patch_size`, with the batch of the configuration.
        resume: Go on with the run in `output`; what is not given is as it was, what differs is refused. A run that is
            finished is left as it is.
        strict: A bad scan ends the run instead of being left out.
        tensorboard: Write scalars and figures for TensorBoard into `output/tensorboard` too.
        token: Of the Hub, for `init`.
        reporter: Is told the progress.

    Returns:
        The run's folder.

    Raises:
        DataError: There is no usable scan, or none that a split to leave out names.
        ConfigurationError: Patch, network, weights and scans do not fit together.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run = modelsgenesis.pretrain("scans/", "runs/chest")
        network = modelsgenesis.from_pretrained(run)
    """
    given = Request(
        source=absolute(source),
        validation=absolute(validation_source),
        leave_out=absolute(leave_out),
        group_pattern=group_pattern,
        modality=modality,
        spacing=spacing,
        window=window,  # pyright: ignore[reportArgumentType] - of two numbers, which a configuration checks
        init=None if init is None else str(init),
        cache=None if cache is None else absolute(cache)[0],
    )
    number, _, local = torchrun_ranks()
    reporter = (reporter if number == 0 else None) or Reporter()
    with connected(choose_hardware(device, local_rank=local).device):
        recorded = on_rank_zero(partial(_begin, output, resume))
        config = _settle(config, recorded, fit_batch=fit_batch, fit_patch=fit_patch)
        if recorded is not None and recorded.finished:
            on_rank_zero(partial(check_config, output, recorded.config.to_dict(), config.to_dict()))
            reporter.note(f"{output}: the run is finished, there is nothing left to resume")
            return Path(output)
        init = None if given.init is None else public_name(given.init)
        job = _Job(
            output=Path(output),
            request=complete(given, None if recorded is None else recorded.request, output),
            recorded=recorded,
            init=init if recorded is None else recorded.init,
            hardware=choose_hardware(device, config.precision, local_rank=local),
            reporter=reporter,
            strict=strict,
        )
        start = rank_zero_first(partial(job.start, config, token))
        store, held_out, left_out = on_each_machine(partial(job.prepare, start))
        if recorded is None:
            options = {"hardware": job.hardware, "reporter": reporter}
            start = fit_to_memory(start, store, batch=fit_batch, patch=fit_patch, **options)
        return job.train(start, store, held_out, left_out, tensorboard=tensorboard)


def _begin(output: str | Path, resume: bool) -> Recorded | None:
    """Refuse an output that cannot be had, before any work; return what a run to resume recorded."""
    Run.check(output, resume=resume)
    return read_recorded(output) if resume else None


def _settle(
    config: PretrainingConfig | None, recorded: Recorded | None, *, fit_batch: bool, fit_patch: bool
) -> PretrainingConfig:
    """Return the configuration; of a resumed run, what was worked out when it began is taken as it was."""
    if recorded is None:
        return config or RECIPES["small"]
    if config is None:
        return recorded.config
    went_on = recorded.request is not None and recorded.request.init is not None
    worked_out = {"network": went_on, "batch_size": fit_batch, "patch_size": fit_patch}
    return config.override(**{name: getattr(recorded.config, name) for name, was in worked_out.items() if was})


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One pretraining: its parts in their order."""

    output: Path
    request: Request
    recorded: Recorded | None
    init: str | None
    hardware: Hardware
    reporter: Reporter
    strict: bool

    def start(self, config: PretrainingConfig, token: str | None) -> Start:
        """Return the network to train; a resumed one gets its weights from the checkpoint."""
        if self.recorded is not None and self.recorded.contract is not None:
            return self.recorded.start(config)
        return start_pretraining(self.request.init, config, token, self.reporter)

    def prepare(self, start: Start) -> tuple[VolumeCache, set[str], dict[str, int]]:
        """Return the prepared scans, the patients to validate on, and how many scans were left out."""
        request = self.request
        scans, held_out, left_out = _find(request, self.strict, self.reporter)
        contract = None if self.recorded is None else self.recorded.contract
        if contract is None:
            contract = choose_input([*scans, *held_out], start, request, self.reporter)
        store = prepare_scans([*scans, *held_out], contract, request.cache, self.strict, self.reporter)
        return store, {scan.group for scan in held_out}, left_out

    def train(
        self, start: Start, store: VolumeCache, held_out: set[str], left_out: dict[str, int], *, tensorboard: bool
    ) -> Path:
        """Train on the sub-volumes and return the run's folder."""
        reporter = self.reporter
        split = partial(split_subvolumes, store, held_out, start, self.strict, reporter)
        training, validation = rank_zero_first(split)
        if len(training.scans) < world_size():
            reporter.note(
                f"{len(training.scans)} scans for {world_size()} processes: these share the scans, and each "
                "draws sub-volumes of its own"
            )
        reporter.note(f"computing on {describe_computing(self.hardware, start.config)}")
        writes = tensorboard and rank() == 0
        run = pretrain_network(
            InitialModel(start.network, store.contract, self.init, start.pretrained),
            start.config,
            training,
            validation,
            self.output,
            data={**public_facts(training, validation), **left_out},
            hardware=self.hardware,
            reporter=reporter,
            request=self.request.to_dict(),
            resume=self.recorded is not None,
            tensorboard=TensorBoard(self.output / "tensorboard", reporter) if writes else None,
        )
        if training.refused_share:
            share = f"{training.refused_share:.0%} of the sub-volumes drawn were refused"
            remedy = "; consider --set rule=foreground" if training.refused_share > _MOSTLY else ""
            reporter.note(f"{share}: rule {start.config.rule}{remedy}")
        return run


def _find(
    request: Request, strict: bool, reporter: Reporter
) -> tuple[list[ScanReference], list[ScanReference], dict[str, int]]:
    """Return the scans of the source, those to validate on that are not among them, and how many were left out."""
    scans, refused = find_scans(request.source, group_pattern=request.group_pattern)
    held_out: list[ScanReference] = []
    if request.validation:
        held_out, more = find_scans(request.validation, group_pattern=request.group_pattern)
        refused += more
    refuse(list(dict.fromkeys(refused)), strict, reporter)
    if not request.leave_out:
        return scans, held_out, {}
    scans, held_out, count = leave_out_test_cases(scans, held_out, request.leave_out, reporter)
    return scans, held_out, {"left_out_test_scans": count}
