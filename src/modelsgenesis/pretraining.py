"""Pretrain on unlabelled scans: from a folder of them to a pretrained network, step by step in `Pretraining`."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np
from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import RECIPES, BundleConfig, InputContract, PretrainingConfig, Provenance
from modelsgenesis.configs.base import Config
from modelsgenesis.data import (
    PatchDataset,
    ScanReference,
    SkippedScan,
    VolumeCache,
    find_scans,
    hold_out,
    split_by_size,
)
from modelsgenesis.errors import ConfigurationError, DataError, MissingExtraError, counted, require
from modelsgenesis.figures.charts import curve_chart, save_chart
from modelsgenesis.figures.pictures import draw_restorations
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.metrics.remarks import remarks_on_restoration
from modelsgenesis.models import Download, GenesisModel, as_source, base_repository, load, public_name, split_download
from modelsgenesis.networks import Network, adapt, build_network
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import Renewals, write_report
from modelsgenesis.reports.pretraining import keep_restorations, write_refused
from modelsgenesis.training import distributed, planning
from modelsgenesis.training.bundles import (
    BEST,
    CURVE,
    describe_environment,
    load_kept,
    save_run_bundle,
    seeded,
    try_drawing,
)
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.run import LOG_NAME, VALIDATION_NAME, Progress, Run, check_config, read_recorded
from modelsgenesis.training.trainer import Trainer

Source = str | Path | Sequence[str | Path]

_VALIDATION_SEED = 1_000_003  # added to the seed of the training patches: larger than the seeds that people choose
_MOSTLY = 0.9  # share of rejected patches above which the rule does not suit the scans


class PretrainingOptions(Download, total=False):
    """Further keywords of `pretrain`: of the data, and of a download."""

    modality: str | None
    spacing: tuple[float, ...] | None
    window: tuple[float, float] | None
    validation_source: Source | None
    exclude_test_cases: Sequence[str | Path] | None
    patient_pattern: str | None
    cache: str | Path | None


def pretrain(
    source: Source | None,
    output: str | Path,
    *,
    config: PretrainingConfig | None = None,
    init: str | Path | GenesisModel | None = None,
    fit_batch: bool = False,
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    tensorboard: bool = False,
    reporter: Reporter | None = None,
    **options: Unpack[PretrainingOptions],
) -> Path:
    """Pretrain on unlabelled scans and keep the best network as a bundle.

    Under `torchrun` every process calls it; rank 0 prepares the scans, validates, writes and reports.

    Args:
        source: Scans: a folder, file, glob, list file, `dataset.json`, or several of these; None for those that the
            configuration names.
        output: The run's folder, new or empty.
        config: Everything that determines the run; see `modelsgenesis.configs.pretraining_recipe`. None for `small`,
            or the run's when resuming.
        init: Initial weights: a name in the registry, `org/name` on the Hub, a folder or a model.
        fit_batch: Find the largest `batch_size` that fits into the memory of a GPU.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Continue the run in `output`. What is not given is as it was; what differs is refused. A finished run
            is left as it is.
        strict: A bad scan ends the run instead of being left out.
        tensorboard: Write the numbers of both logs for TensorBoard into `output/tensorboard` too.
        reporter: Receives the progress.
        options: Further fields of `PretrainingDataConfig`, instead of the configuration's: `modality`, `spacing`,
            `window`, `validation_source`, `exclude_test_cases`, `patient_pattern`, `cache`; and for `init` those of
            `load`: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

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
    if tensorboard and find_spec("tensorboard") is None:
        raise MissingExtraError("writing for TensorBoard", "tensorboard")
    rank, _, local_rank = distributed.torchrun_ranks()  # before there is a connection that would tell it
    reporter = (reporter if rank == 0 else None) or Reporter()
    with distributed.connected(choose_hardware(device, local_rank=local_rank).device):
        before = distributed.on_rank_zero(partial(read_run if resume else Run.check, output))
        config = config or (before.config if before else RECIPES["small"])
        data, download = split_download(options)
        config = config.with_data(as_source(init, download.pop("revision", None)), source=source, **data)
        if before is None:
            require(config.data.source, ConfigurationError, "source: received nothing, expected the scans to train on")
            record = PretrainingRun(config=config, init=config.init and public_name(config.init))
        else:
            record = before.override(config=_take_over(before.config, config, batch=fit_batch))
            if before.finished:
                same = partial(check_config, output, before.config.to_dict(), record.config.to_dict())
                distributed.on_rank_zero(same)
                reporter.note(f"{output}: the run is finished, there is nothing left to resume")
                return Path(output)
        hardware = choose_hardware(device, config.precision, local_rank=local_rank)
        # Before the scans are prepared, which may take hours.
        told = "batch_size=auto: fills the memory of a GPU, and there is none; set a number yourself"
        require(before or not fit_batch or hardware.device.type == "cuda", ConfigurationError, told)
        job = Pretraining(Path(output), record, hardware, reporter, strict)
        network, job.record, seen = distributed.on_rank_zero(partial(job.start, download))
        cache, held_out, excluded = distributed.on_rank_zero(partial(job.prepare, seen), each_machine=True)
        if before is None and fit_batch:
            samples = len(cache) * config.samples_per_scan
            fit = partial(planning.fit_batch, network, samples, job.record.config, hardware, reporter)
            job.record = job.record.override(config=distributed.on_rank_zero(fit))
        training, validation = distributed.on_rank_zero(partial(job.split, network, cache, held_out))
        job.facts = planning.public_facts(training, validation, excluded)
        return job.train(network, training, validation, resume=resume, tensorboard=tensorboard)


@dataclass(frozen=True, kw_only=True)
class PretrainingRun(Config):
    """What `run.json` holds: the configuration that determines the run, and what followed from it and the scans.

    Attributes:
        config: The configuration, with the network of the initial weights and the batch that filled the memory.
        init: Public name of the initial weights.
        pretrained: Names of the tensors that came from them.
        input: How the scans were prepared.
        split: Names of the scans of `training` and of `validation`; they stay local.
        digests: A digest of each scan and its preparation, in the same order.
        finished: Whether there is nothing left to do.
    """

    kind: Literal["pretraining"] = "pretraining"
    config: PretrainingConfig
    init: str | None = None
    pretrained: tuple[str, ...] = ()
    input: InputContract | None = None
    split: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    finished: bool = False


def read_run(output: str | Path) -> PretrainingRun:
    """Return what a run's folder says of a pretraining.

    Raises:
        TrainingError: There is no run, it is not a pretraining, or its record is damaged.
    """
    return read_recorded(PretrainingRun, Run(Path(output)).description("pretraining"), Path(output))


def _take_over(before: PretrainingConfig, now: PretrainingConfig, *, batch: bool) -> PretrainingConfig:
    """Return the configuration to resume with: data and weights that are not named again are those of the run.

    So is what was found when it began: the batch that filled the memory, and the network that came with the weights.
    """
    unnamed = [field.name for field in fields(now.data) if getattr(now.data, field.name) == field.default]
    found = {"network": before.init is not None, "batch_size": batch}
    return now.override(
        data=now.data.override(**{name: getattr(before.data, name) for name in unnamed}),
        init=now.init or before.init,
        **{name: getattr(before, name) for name, is_found in found.items() if is_found},
    )


@dataclass
class Pretraining:
    """One pretraining, step by step: its record fills as the steps are done.

    Attributes:
        output: The run's folder.
        record: The configuration, and what followed from it so far.
        hardware: Where to compute.
        reporter: Receives the progress.
        strict: Whether a bad scan ends the run.
        facts: What the bundle may say of the data; no names.
        remarks: What is to be known beside the results: what went wrong, in plain sentences.
        refused: The scans that are not used.
    """

    output: Path
    record: PretrainingRun
    hardware: Hardware
    reporter: Reporter
    strict: bool
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    refused: list[SkippedScan] = field(default_factory=list)

    def start(self, download: Download) -> tuple[Network, PretrainingRun, InputContract | None]:
        """Build the network, with random or initial weights; a resumed run gets its weights from the checkpoint.

        Returns:
            The network, the record with its shape, and the input that the initial weights were trained on, if any.

        Raises:
            ConfigurationError: The patch does not fit the network.
            CheckpointError: The weights are damaged, or do not fit.
        """
        record, config, patch, seen = self.record, self.record.config, self.record.config.patch_size, None
        if config.init is None or record.input is not None:  # `input` is only known to a run that has begun
            network = seeded(config.seed, lambda: build_network(config.network))
        else:
            bundle = load(config.init, progress=self.reporter.download, **download)
            task, trained, seen = bundle.config.task, bundle.config.network, bundle.config.input
            if len(patch) != trained.unet.dims:
                suited = ",".join(map(str, bundle.config.patch_size))
                raise ConfigurationError(
                    f"{record.init} is a network of {trained.unet.dims} dimensions, patch_size {patch} has "
                    f"{len(patch)} sides: set patch_size={suited}, or choose other weights"
                )
            restores = task == "restoration" and trained.outputs == 1
            head = None if restores else 1  # outputs of a new head; None keeps the one that is there
            options: dict[str, Any] = {"task": "restoration", "num_classes": head, "in_channels": 1, "copy": False}
            adapted, report = seeded(config.seed, lambda: adapt(bundle.network, **options))
            network = cast("Network", adapted)
            self.reporter.note(f"{record.init}: {report.summary()}")
            if not restores:
                self.reporter.note(f"{record.init} was trained for {task}: its head is replaced by a restoration head")
            config = config.override(network=network.config)
            record = record.override(config=config, pretrained=(*report.loaded, *report.adapted))
        Deformation(config.pretext)  # it and the patch refuse what cannot be before any scan is prepared
        divisor = network.size_divisor
        if any(side % factor for side, factor in zip(patch, divisor, strict=True)):
            near = ",".join(str(max(side // factor, 1) * factor) for side, factor in zip(patch, divisor, strict=True))
            raise ConfigurationError(
                f"patch_size: received {patch}, expected sides that divide by {divisor} for this network; "
                f"set patch_size={near}"
            )
        return network, record, seen

    def prepare(self, seen: InputContract | None) -> tuple[VolumeCache, set[str], int]:
        """Return the prepared scans, the patients to validate on, and the number of excluded scans."""
        record, reporter, data = self.record, self.reporter, self.record.config.data
        reporter.note("looking for scans")
        scans, skipped = find_scans(data.source, group_pattern=data.patient_pattern)
        held_out, excluded = list[ScanReference](), 0
        if data.validation_source:
            held_out, more = find_scans(data.validation_source, group_pattern=data.patient_pattern)
            skipped = list(dict.fromkeys([*skipped, *more]))
        self._refuse(skipped)
        if data.exclude_test_cases:
            given = (scans, held_out, data.exclude_test_cases, reporter)
            scans, held_out, excluded = planning.exclude_test_cases(*given)
        found = list(dict.fromkeys([*scans, *held_out]))
        contract = record.input or planning.choose_input(found, record.config, record.init or "", seen, reporter)
        base = os.environ.get("MODELSGENESIS_CACHE") or "~/.cache/modelsgenesis"
        folder = data.cache or Path(base).expanduser() / "volumes"
        reporter.begin("preparing scans", len(found))
        cache, skipped = VolumeCache.build(
            found, contract, folder, strict=self.strict, progress=lambda done, _: reporter.advance(done)
        )
        reporter.end()
        self._refuse(skipped)
        return cache, {scan.group for scan in held_out}, excluded

    def _refuse(self, skipped: Sequence[SkippedScan]) -> None:
        planning.report_skipped(skipped, self.strict, self.reporter)
        self.refused += skipped

    def split(self, network: Network, cache: VolumeCache, held_out: set[str]) -> tuple[PatchDataset, PatchDataset]:
        """Return the patches of the training and of the validation patients.

        Args:
            network: Patches must fit it.
            cache: Every prepared scan.
            held_out: Patients to validate on; empty to draw some.

        Raises:
            DataError: No scan holds a patch, or none is left to train or to validate on.
        """
        config, note = self.record.config, self.reporter.note
        fitting, skipped = split_by_size(cache, config.patch_size)
        self._refuse(skipped)
        if skipped:
            # Slices have the axes that are not cut.
            axes, divisor = len(config.patch_size), np.array(network.size_divisor)
            shapes = [entry.shape[:axes] for entry in map(cache.entry, range(len(cache))) if len(entry.shape) >= axes]
            sides = np.min([config.patch_size, *shapes], axis=0) // divisor * divisor
            remedy = (
                f"patch_size={','.join(map(str, sides))} would fit all" if sides.all() else "set patch_size smaller"
            )
            if not fitting:
                raise DataError(f"no scan is large enough for a patch of {config.patch_size}: {remedy}")
            note(f"too small: {counted(len(skipped), 'scan')}; {remedy}")
        entries = [cache.entry(index) for index in fitting]
        if not held_out and config.validation_fraction:
            held_out = hold_out([entry.group for entry in entries], config.validation_fraction, config.seed)
        training, validation = (
            [index for index, entry in zip(fitting, entries, strict=True) if (entry.group in held_out) is side]
            for side in (False, True)
        )
        if not held_out:
            optimistic = "validation on other patches of the training scans is optimistic"
            self.remarks.append(f"no patient is held out: {optimistic}")
            note(f"warning: {self.remarks[-1]}")
            validation = training
        if not (training and validation):
            purpose = "validate" if training else "train"
            raise DataError(f"no usable scan is left to {purpose} on among {len(entries)}; see what was left out above")
        note(f"{counted(len(training), 'scan')} to train on, {len(validation)} to validate on")
        if len(training) < distributed.world_size():
            note("there are fewer scans than processes: they share the scans, and each draws its own patches")
        sampling: dict[str, Any] = {"per_scan": config.samples_per_scan, "rule": config.rule}
        patches = partial(PatchDataset, cache, patch_size=config.patch_size, **sampling)
        # Two seeds, since with one patient both draw from the same scans, and must draw at other places.
        return patches(training, seed=config.seed), patches(validation, seed=config.seed + _VALIDATION_SEED)

    def train(
        self, network: Network, training: PatchDataset, validation: PatchDataset, *, resume: bool, tensorboard: bool
    ) -> Path:
        """Train the network in place, keep the best as a bundle, and return the run's folder.

        Args:
            network: [b, c, *patch] to the same shape.
            training: Patches to learn from.
            validation: Patches of other patients.
            resume: Continue the run in the folder.
            tensorboard: Write for TensorBoard too.

        Raises:
            TrainingError: The folder holds a run, or training failed.
        """
        config, hardware, reporter = self.record.config, self.hardware, self.reporter
        reporter.note(f"computing on {describe_environment(hardware, config)['hardware']}")
        if config.batch_size > len(training):
            reporter.note(
                f"a batch of {config.batch_size} is more than the {len(training)} patches of an epoch: scans recur in "
                "a batch, at other places"
            )
        parts = {"training": training, "validation": validation}
        listed = {part: [one.cache.entry(index) for index in one.scans] for part, one in parts.items()}
        self.record = self.record.override(
            input=training.cache.contract,
            split={part: [entry.name for entry in entries] for part, entries in listed.items()},
            digests={part: [entry.key[:16] for entry in entries] for part, entries in listed.items()},
        )
        is_main = distributed.rank() == 0
        run = Run.open(self.output, self.record.to_dict(), resume=resume)
        try:
            with distributed.raise_if_any_failed():
                objective = Restoration(training, validation, config, hardware, reporter)
                keep = partial(self._keep, run, objective, network, Renewals(self.output, reporter))
                trainer = Trainer(
                    network=network,
                    objective=objective,
                    config=config,
                    run=run,
                    hardware=hardware,
                    reporter=reporter,
                    on_validation=keep,
                    pretrained=self.record.pretrained,
                )
            reporter.baselines(objective.baselines)
            if is_main:
                try_drawing(partial(write_refused, self.output, self.refused), reporter)
            if resume:
                trainer.resume()
            if tensorboard and is_main:
                from torch.utils.tensorboard import SummaryWriter

                # Events of a killed run may be ahead of its last checkpoint: those that are repeated are hidden.
                events, run.note = str(self.output / "tensorboard"), reporter.note
                with run.trying_events():
                    run.events = SummaryWriter(events, purge_step=trainer.progress.step + 1)
            progress = trainer.fit()
            if is_main:
                logs = (self.output / LOG_NAME, self.output / VALIDATION_NAME)
                try_drawing(lambda: save_chart(curve_chart(*logs), self.output / CURVE), reporter)
                # The card anew, with the curve and the time of the whole run.
                self._save_bundle(run, load_kept(run, progress).network, progress)
                run.finish()
                write_report(self.output, reporter=reporter)
        finally:
            reporter.end()
            run.close()
        if training.refused_share:
            share = f"{training.refused_share:.0%} of the sampled patches were rejected (rule={config.rule})"
            remedy = "; consider --set rule=foreground" if training.refused_share > _MOSTLY else ""
            reporter.note(share + remedy)
        return run.folder

    def _keep(
        self,
        run: Run,
        objective: Restoration,
        network: nn.Module,
        report: Renewals,
        progress: Progress,
        metrics: Any,
        is_best: bool,
    ) -> None:
        """Draw the restorations of a validation; of the best so far write the bundle, with them on its card."""
        loss, baseline, step = metrics["restoration_loss"], metrics["mean_image_loss"], progress.step
        title = f"step {step}: loss {loss:.4g} = {loss / max(baseline, 1e-12):.2f}× the mean-image baseline"
        path = self.output / "figures" / "restorations" / f"step_{step:06d}.png"
        shown = [images.numpy() for images in (objective.original, objective.deformed, objective.restored)]
        draw = partial(draw_restorations, *shown, path, title=title)
        if try_drawing(draw, self.reporter) and is_best:
            try_drawing(partial(shutil.copyfile, path, self.output / BEST), self.reporter)
        if is_best:
            frame = self.facts["median_spacing_mm"], cast("InputContract", self.record.input).orientation
            try_drawing(partial(keep_restorations, self.output, shown, step, *frame), self.reporter)
            self._save_bundle(run, network, progress)
        report.renew()

    def _save_bundle(self, run: Run, network: nn.Module, progress: Progress) -> None:
        """Write the bundle of the best validation: weights, configuration, card."""
        config, record = self.record.config, self.record
        losses = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
        cost = {"hours": float(f"{progress.seconds / 3600:.4g}")}
        cost |= {"peak_memory_gib": round(progress.peak_memory / 2**30, 2)} if progress.peak_memory else {}
        counts = {"step": progress.best_step, "samples": config.validation_samples, "seed": config.seed}
        remarks = [*self.remarks, *remarks_on_restoration(progress.metrics)]
        told = {"collapsed": bool(progress.metrics.get("collapsed")), **({"remarks": remarks} if remarks else {})}
        bundle = BundleConfig(
            task="restoration",
            network=config.network,
            input=cast("InputContract", record.input),
            patch_size=config.patch_size,
            provenance=Provenance(
                origin="pretrained",
                source={"repository": base} if (base := base_repository(record.init)) else {},
                library_version=__version__,
                init=record.init,
                recipe=config.recipe(),
                data=self.facts,
                results={**losses, **counts, **told},
                environment={**describe_environment(self.hardware, config), **cost},
            ),
        )
        progress.kept = save_run_bundle(run, network, bundle, self.reporter)
