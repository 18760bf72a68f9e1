"""Pretraining, from a folder of scans to a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelsgenesis.configs import RECIPES, PretrainingConfig
from modelsgenesis.data import ScanReference, VolumeCache, find_scans
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.models import public_name
from modelsgenesis.reporting import Reporter, Reporters
from modelsgenesis.training import Run
from modelsgenesis.training.bundles import describe_computing
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.pretraining import pretrain_network
from modelsgenesis.training.run import check_config
from modelsgenesis.training.task_networks import InitialModel
from modelsgenesis.training.tensorboard import FOLDER_NAME, TensorBoardReporter
from modelsgenesis.verbs.leaving_out import leave_out_test_cases
from modelsgenesis.verbs.requests import Request, Source, absolute, complete
from modelsgenesis.verbs.starting import Recorded, Start, choose_input, read_recorded, start_pretraining
from modelsgenesis.verbs.subvolumes import fit_to_memory, prepare_scans, public_facts, refuse, split_subvolumes

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
    alone = Processes.from_environment()
    reporter = (reporter if alone.is_main else None) or Reporter()
    with alone.connected(choose_hardware(device, local_rank=alone.local_rank).device) as processes:
        recorded = processes.first(partial(_begin, output, resume))
        config = _settle(config, recorded, fit_batch=fit_batch, fit_patch=fit_patch)
        if recorded is not None and recorded.finished:
            processes.first(partial(check_config, output, recorded.config.to_dict(), config.to_dict()))
            reporter.note(f"{output}: the run is finished, there is nothing left to resume")
            return Path(output)
        init = None if given.init is None else public_name(given.init)
        job = _Job(
            output=Path(output),
            request=complete(given, None if recorded is None else recorded.request, output),
            recorded=recorded,
            init=init if recorded is None else recorded.init,
            hardware=choose_hardware(device, config.precision, local_rank=alone.local_rank),
            processes=processes,
            reporter=reporter,
            strict=strict,
        )
        start = processes.in_turn(partial(job.start, config, token))
        store, held_out, left_out = processes.first_on_each_machine(partial(job.prepare, start))
        if recorded is None:
            options = {"hardware": job.hardware, "processes": processes, "reporter": reporter}
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
    processes: Processes
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
        reporter, processes = self.reporter, self.processes
        split = partial(split_subvolumes, store, held_out, start, self.strict, reporter)
        training, validation = processes.in_turn(split)
        if len(training.scans) < processes.world_size:
            reporter.note(
                f"{len(training.scans)} scans for {processes.world_size} processes: these share the scans, and each "
                "draws sub-volumes of its own"
            )
        reporter.note(f"computing on {describe_computing(self.hardware, start.config, processes)}")
        if tensorboard and processes.is_main:
            reporter = Reporters(reporter, TensorBoardReporter(self.output / FOLDER_NAME, reporter))
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
            processes=processes,
            resume=self.recorded is not None,
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
