"""Fine-tuning: a task network, pretrained or from scratch, trained with labels and measured on held-out patients."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import BundleConfig, ClassificationConfig, FinetuningConfig, PredictionConfig, Provenance
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.training import SCRATCH, SegmentationConfig, require_patch_size
from modelsgenesis.data import SkippedScan
from modelsgenesis.data.cases import LabelledData, PreparedCase, PreparedCases, digest_files, sample_data
from modelsgenesis.data.labelled import find_task, read_labelled
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, TrainingError, counted, require, some
from modelsgenesis.figures.charts import curve_chart, save_chart
from modelsgenesis.files import parsing, read_json, sha256_of, write_csv, write_json
from modelsgenesis.hardware import Hardware, choose_hardware, predicting_hardware
from modelsgenesis.hub.registry import fitting_models
from modelsgenesis.inference.ensemble import Ensemble, Keep, measure_cases
from modelsgenesis.metrics.measures import Row, Summary, flat, summarize_rows
from modelsgenesis.metrics.remarks import remarks_on_cases
from modelsgenesis.models import Download, GenesisModel, as_source, base_repository, load, public_name, split_download
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import Renewals, write_report
from modelsgenesis.reports.cases import KeptCases
from modelsgenesis.reports.pretraining import write_refused
from modelsgenesis.training import bundles, splits
from modelsgenesis.training.distributed import torchrun_ranks
from modelsgenesis.training.results import (
    RESULTS_NAME,
    TEST_NAME,
    read_rows,
    read_test_results,
    summary_options,
    table_of,
)
from modelsgenesis.training.run import LOG_NAME, RUN_NAME, VALIDATION_NAME, Progress, Run, read_recorded
from modelsgenesis.training.splits import Split
from modelsgenesis.training.supervised import initial_model, make_objective, resolve_patch_size
from modelsgenesis.training.trainer import Trainer

SAMPLE_CONFIG = SegmentationConfig(
    steps=200,
    batch_size=4,
    learning_rate=1e-2,
    validate_every=200,
    validation_fraction=0.0,
    patch_size=(48, 48, 16),
    samples_per_scan=32,
    foreground_share=0.75,
    augment=False,
)
"""For the embedded sample, one patient to train on and one to test on: chosen by looking at both, so that each
structure is found in minutes; the figures show that it works and prove nothing."""

SPLIT_NAME = "split.json"


class FinetuningOptions(Download, total=False):
    """Further keywords of `finetune` and `compare`: of the data, and of a download."""

    modality: str | None
    patient_pattern: str | None
    cache: str | Path | None


def finetune(
    source: str | Path | LabelledData | None,
    output: str | Path,
    *,
    task: str | None = None,
    init: str | Path | GenesisModel | None = None,
    from_scratch: bool = False,
    config: FinetuningConfig | None = None,
    split: Split | str | Path | None = None,
    labels: str | None = None,
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    draw: bool = True,
    reporter: Reporter | None = None,
    **options: Unpack[FinetuningOptions],
) -> tuple[Path, dict[str, float]]:
    """Train a task network with labels and measure it on held-out patients.

    What is given here goes on top of the configuration, which then determines the run. To train many times on one data
    set, also in several processes, pass the same `LabelledData` and `cache`: its cases are then prepared once, mapped
    from files, and with a `Split` without test cases no test case is read.

    Args:
        source: Labelled images in a layout that `read_labelled` knows, or what it returned; None for the data of the
            configuration, else the embedded sample.
        output: The run's folder, new or empty. With folds it gets one folder per fold.
        task: `"seg"` or `"cls"`; None for what the labels are for.
        init: Initial weights: a name, `org/repo`, a folder or a model; `"scratch"` for random ones on purpose. None
            takes those of the configuration, without a configuration and data of one's own the embedded model that
            suits the sample best, and else random ones, naming the models that suit.
        from_scratch: Take the shape and the input contract of `init`, but random weights: its control.
        config: A `SegmentationConfig` or `ClassificationConfig`; None for the task's own, or the run's when resuming.
        split: Which cases are for what, or a file of `write_split`; by default drawn by the configuration.
        labels: Training patients whose labels are used, `"10"` or `"10%"`; instead of the configuration's.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Resume the run in `output`, or its folds.
        strict: Stop at the first unusable case instead of skipping it.
        draw: Draw a curve, write a card and a report, and keep the predictions of the test cases.
        reporter: Receives the progress.
        options: Further fields of `LabelledDataConfig`, instead of the configuration's: `modality`, `patient_pattern`,
            `cache`; and for `init` those of `load`: `revision`, `token`, `cache_dir`, `local_files_only`,
            `force_download`.

    Returns:
        The run's folder, and the metrics on the test patients that are defined: `dice`, `iou` and `hausdorff95` (mm)
        of a segmentation, on each scan's own grid, also of each structure; `auc`, `average_precision`, `sensitivity`
        and `accuracy` of a classification. Their intervals are in `results.json`.

    Raises:
        DataError: The data set or the split cannot be used.
        ConfigurationError: Task, configuration, weights and data do not fit together.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run, measured = modelsgenesis.finetune("Task04_Hippocampus", "runs/hippocampus", init="runs/chest", labels="10")
        measured["dice"]
    """
    reporter, output = reporter or Reporter(), Path(output)
    # A fine-tuning is small, and its validation on whole scans is the slow part, which processes would not share.
    alone = torchrun_ranks()[1] == 1
    require(alone, ConfigurationError, "finetune runs in one process: start it without torchrun")
    # Before any data is read: a folder that cannot be used is known at once. Those of folds are checked one by one.
    if config is None or not config.folds:
        Run.check(output, resume=resume)
    if resume and config is None:
        config = read_finetuning(output)
    data, download = split_download(options)
    data |= {"init": as_source(init, download.pop("revision", None))}
    data |= {"split": None if isinstance(split, Split) else split}
    config, labelled = resolve_config(source, config, task=task, **data)
    given = {"labelled_patients": labels, "from_scratch": from_scratch or None}
    config = config.override(**{key: value for key, value in given.items() if value is not None})
    random = config.init is None and init != SCRATCH and not resume
    for note in (*([_suggestion(labelled, config.dims or labelled.dims)] if random else []), *labelled.notes):
        reporter.note(note)
    how: dict[str, Any] = {"strict": strict, "draw": draw, "download": download, "reporter": reporter}
    job = begin_finetuning(config, output, labelled, device=device, **how)
    if config.folds:
        told = f"folds: received {config.folds} and a split; folds make test parts of their own: give one of the two"
        require(not (split or config.data.split), ConfigurationError, told)
        return job.train_folds(resume=resume)
    chosen = split if isinstance(split, Split) else config.data.split and splits.read_split(config.data.split)
    if chosen and config.labelled_patients:
        chosen = splits.choose_labelled(chosen, labelled, config.labelled_patients, config.split_seed)
    elif resume and not chosen:
        chosen = splits.make_split(Run(output).description().get("split"), output / RUN_NAME)
    return output, job.train(chosen or splits.split_cases(labelled, config), resume=resume)


def begin_finetuning(
    config: FinetuningConfig, output: Path, data: LabelledData, *, device: str, strict: bool, **options: Any
) -> "Finetuning":
    """Return a fine-tuning that is to be trained; `options` and the other arguments are its own and those of its cases.

    Raises:
        ConfigurationError: The device is unknown or not there.
    """
    hardware = choose_hardware(device, config.precision)
    options["reporter"].note(f"computing on {bundles.describe_environment(hardware, config)['hardware']}")
    # Images to classify are kept at the size that the network sees: a thousand X-rays of 2,000² pixels take 16 GB.
    brought = {"size": config.patch_size, "fit": config.fit} if isinstance(config, ClassificationConfig) else {}
    cases = PreparedCases(data, strict=strict, folder=config.data.cache, **brought)
    return Finetuning(config, output, data, cases, hardware, **options)


def resolve_config(
    source: str | Path | LabelledData | None, config: FinetuningConfig | None, *, task: str | None = None, **given: Any
) -> tuple[FinetuningConfig, LabelledData]:
    """Return the configuration that determines a run, and its data.

    Args:
        source: The data; None for that of the configuration, else the embedded sample.
        config: What is given goes on top of it; None for the default of the data's task.
        task: What the labels have to be for: `"seg"` or `"cls"`.
        given: Fields of `data`, and `init`; None leaves one as it is.

    Raises:
        DataError: The data cannot be used, or its labels are for another task.
        ConfigurationError: The task is unknown, or the configuration is for another one than the labels.
    """
    path = None if source is None or isinstance(source, LabelledData) else (source,)
    asked = (config or FinetuningConfig()).with_data(source=path, **given)
    told = source if isinstance(source, LabelledData) else next(iter(asked.data.source), None)
    if isinstance(told, str):
        modality = None if asked.data.modality == "auto" else asked.data.modality
        data = read_labelled(told, task=task, modality=modality, patient_pattern=asked.data.patient_pattern)
    else:
        data = told or sample_data()
        if task is not None and find_task(task) != data.task:
            raise DataError(f"{data.name}: its labels are for {data.task}; {find_task(task)} was asked for")
    # The data decides the task, and with it the configuration: so it is read first, with the data options of either.
    default = SegmentationConfig() if told else SAMPLE_CONFIG
    default = ClassificationConfig() if data.task == "classification" else default
    if not told and config is None and given.get("init") is None:
        name = next(card.name for card in fitting_models(data.modality, data.dims) if card.source.repository is None)
        asked = asked.override(init=name)
        start = f"starting from {name}, which comes with the package; --init takes other weights"
        chosen = "the settings were chosen on these very scans: the figures show that it works and prove nothing"
        data = replace(data, notes=(*data.notes, start, chosen))
    config = (config or default).override(data=asked.data, init=asked.init)
    kinds = f"received a {type(config).__name__}, expected a {type(default).__name__}"
    fits = isinstance(config, type(default))
    require(fits, ConfigurationError, f"config: {kinds}: the labels of {data.name} are for {data.task}")
    return config, data


def _suggestion(data: LabelledData, dims: int) -> str:
    """Return a warning of random weights, with what to start from instead."""
    cards = fitting_models(data.modality, dims)
    alike = [card for card in cards if card.source.input.modality == data.modality]
    names = some([card.name for card in alike or cards])
    what = f"{dims}D {data.modality}" if alike else f"{dims}D images, of other modalities"
    told = f"pretrained for {what}: {names}" if cards else f"no pretrained model in the registry is for {dims}D images"
    return f"warning: starting from random weights, as no --init was given; {told} (--init scratch: random on purpose)"


def read_finetuning(source: str | Path) -> FinetuningConfig:
    """Return the configuration of a run, or of a file as `--dry-run` prints it.

    Raises:
        ConfigurationError: It is not a configuration of a fine-tuning.
        TrainingError: The folder holds no run of a fine-tuning.
    """
    path = Path(source)
    run = None if path.is_file() else Run(path).description("finetuning")
    content = read_json(path, ConfigurationError) if run is None else run["config"]
    # `hidden` is a field of a classification alone.
    kind = ClassificationConfig if isinstance(content, dict) and "hidden" in content else SegmentationConfig
    return kind.from_dict(content, str(path)) if run is None else read_recorded(kind, content, path)


@dataclass
class Finetuning:
    """A fine-tuning, from the initial network to its results.

    Attributes:
        config: The configuration of the task; its patch may be open.
        output: The run's folder; gets the bundle, `results.json`, `test.csv` and `split.json`.
        data: The data set.
        cases: Its prepared cases, which folds share.
        hardware: Where to compute.
        draw: Draw a curve, write a card and a report, keep predictions, and measure validation cases as test cases are;
            the most of a short run's time.
        download: How `init` is fetched.
        reporter: Receives the progress.
        resumable: Write checkpoints.
        remarks: What is to be known beside the results: what went wrong, in plain sentences.
        unmeasured: Cases that could not be measured, by their names; other folds may train on them.
    """

    config: FinetuningConfig
    output: Path
    data: LabelledData
    cases: PreparedCases
    hardware: Hardware
    draw: bool
    download: Download
    reporter: Reporter
    resumable: bool = True
    remarks: list[str] = field(default_factory=list, init=False)
    unmeasured: dict[str, SkippedScan] = field(default_factory=dict, init=False)

    def train(self, split: Split, *, resume: bool) -> dict[str, float]:
        """Train on one split, keep the best network on the validation patients, measure it on the test patients."""
        splits.check_split(split, self.data)
        init, note = self.config.init, self.reporter.note
        bundle = None if init is None else load(init, progress=self.reporter.download, **self.download)
        self.begun = initial_model(bundle, self.data, self.config, self.reporter, name=public_name(init or ""))
        network, contract = self.begun.network, self.begun.contract
        self.remarks += self.begun.remarks
        if self.config.patch_size is not None:
            resolve_patch_size(self.config, network, (), self.reporter)  # before hours of preparation
        training, validation = (
            self.cases.get(names, contract, self.reporter) for names in (split.training, split.validation)
        )
        # What could be read, for the counts on the card; `split` stays as it was asked for: a resume can compare.
        parts = (tuple(case.name for case in part) for part in (training, validation))
        self.split, self.used = split, Split(*parts, test=split.test)
        self.config = resolve_patch_size(self.config, network, training, self.reporter)
        frozen = cast("nn.Module", network.encoder) if self.config.freeze_encoder else None
        shared: dict[str, Any] = {"config": self.config, "hardware": self.hardware}
        parts = {"training": training, "validation": validation}
        objective = make_objective(self.data, **parts, frozen=frozen, **shared)
        objective.begin(network)
        # Only now is anything written: whatever cannot be trained leaves no folder behind.
        with closing(Run.open(self.output, self._description([*training, *validation]), resume=resume)) as run:
            run.checkpointed = self.resumable
            if run.description().get("finished") and (self.output / RESULTS_NAME).exists():
                note(f"{self.output}: the run is finished, there is nothing left to resume")
                return flat(read_test_results(self.output)["test"])
            splits.write_split(split, self.output / SPLIT_NAME)
            for told in objective.notes:
                note(told)
            unread = len(split.training) + len(split.validation) - len(training) - len(validation)
            self._remark(f"{unread} cases to train or validate on could not be used" if unread else "")
            for told in objective.remarks:
                self._remark(told)
            if self.config.validation_fraction and not validation:
                self._remark("no validation patients: the last network is kept, not the best")
            if frozen is not None and self.begun.init is None:
                self._remark("the frozen encoder has random weights: only the layers after it are trained")

            renew = Renewals(self.output, self.reporter).renew if self.draw else lambda: None

            def keep(progress: Progress, metrics: dict[str, float], is_best: bool) -> None:
                if is_best:
                    progress.kept = self._save(run, network, progress.step, metrics, {})
                renew()

            shared |= {"reporter": self.reporter, "on_validation": keep, "pretrained": self.begun.pretrained}
            trainer = Trainer(network=network, objective=objective, run=run, **shared)
            if resume:
                trainer.resume()
            return self._finish(run, trainer.fit())

    def _remark(self, text: str) -> None:
        """Say what went wrong, if anything, and keep it for the results and the card."""
        if text:
            self.remarks.append(text)
            self.reporter.note(f"warning: {text}")

    def _description(self, prepared: Sequence[PreparedCase]) -> dict[str, Any]:
        """Return the content of `run.json`, by which a resume tells a change of what is learnt."""
        begun, listed = self.begun, asdict(self.split)
        if self.split.test:
            self.reporter.note(f"hashing the files of {counted(len(self.split.test), 'test case')}")
        # Of test cases the files: they are read when the training has ended.
        digests = {case.name: case.digest for case in prepared} | digest_files(self.data, self.split.test)
        return {
            "kind": "finetuning",
            "config": self.config.to_dict(),
            "init": begun.init,
            "input": begun.contract.to_dict(),
            "shape": bundles.network_config(begun.network).to_dict(),
            "split": {part: list(names) for part, names in listed.items()},
            # A case that was skipped has the digest "", so that a resume notices also that it has been repaired since.
            "digests": {part: [digests.get(name, "") for name in names] for part, names in listed.items()},
        }

    def _save(self, run: Run, network: nn.Module, step: int, validation: Mapping[str, float], test: Summary) -> str:
        """Write the bundle with what was measured so far; return the digest of its weights."""
        counts = splits.count_split(self.used, self.data)
        # Of what is undefined the card says nothing.
        told = {name: entry for name, entry in test.items() if entry["value"] is not None}
        tested = {name: {key: item for key, item in entry.items() if item is not None} for name, entry in told.items()}
        results: dict[str, Any] = {"step": step}
        for part, measured in {"test": tested, "validation": validation}.items():
            basis = {"patients": counts[part]["patients"], "cases": counts[part]["cases"], "seed": self.config.seed}
            results |= {part: {**measured, **basis}} if measured else {}
        results |= {"remarks": self.remarks} if self.remarks else {}
        # Counts and seeds, never names: the bundle is published.
        facts = {f"{part}_patients": count["patients"] for part, count in counts.items()}
        facts |= {key: value for key, value in _how_split(self.config).items() if value is not None}
        base = base_repository(self.begun.init)
        provenance = Provenance(
            origin="finetuned",
            source={"repository": base} if base else {},
            library_version=__version__,
            init=self.begun.init,
            recipe=self.config.recipe(),
            data={"name": self.data.name, "modality": self.begun.contract.modality, **facts},
            results=results,
            environment=bundles.describe_environment(self.hardware, self.config),
        )
        shape = {"network": bundles.network_config(network), "input": self.begun.contract, "provenance": provenance}
        shape |= {"labels": self.data.labels, "multilabel": self.data.multilabel}
        config = BundleConfig(task=self.data.task, patch_size=require_patch_size(self.config), **shape)
        return bundles.save_run_bundle(run, network, config, self.reporter, card=self.draw)

    def _finish(self, run: Run, progress: Progress) -> dict[str, float]:
        """Measure the network that was kept, and write its results and the card that says them."""
        # From the disk and not the network at hand: the best one, and the very file that is published.
        kept, hardware = bundles.load_kept(run, progress), predicting_hardware(self.hardware.device)
        hardware.place(kept.network)
        # Windows overlap as the configuration says; an image to classify has none.
        prediction = PredictionConfig(overlap=getattr(self.config, "overlap", 0.0))
        ensemble = Ensemble([(self.output.name, kept)], prediction, hardware)
        kept_cases = KeptCases(self.output, self.data, self.reporter) if self.draw else None
        validation = {name: value for name, value in progress.metrics.items() if math.isfinite(value)}
        if self.draw:
            validation = flat(self._summarize(self._measure(ensemble, self.used.validation)))
        rows = self._measure(ensemble, self.split.test, kept_cases and kept_cases.add)
        self.used = replace(self.used, test=tuple(row["case"] for row in rows))
        test = self._summarize(rows)
        unread = len(self.split.test) - len(rows)
        self.remarks += [f"{unread} of {len(self.split.test)} test cases could not be measured"] if unread else []
        self.remarks += remarks_on_cases(rows, self.data.labels)
        # Once more with what was measured: until here the card has the validation that chose the network.
        if self.draw:
            logs = (self.output / LOG_NAME, self.output / VALIDATION_NAME)
            bundles.try_drawing(lambda: save_chart(curve_chart(*logs), self.output / bundles.CURVE), self.reporter)
        self._save(run, kept.network, progress.best_step, validation, test)
        more = {"init": self.begun.init, "step": progress.best_step, "steps": progress.step, "validation": validation}
        more |= {"split": splits.count_split(self.used, self.data)}
        more |= {"precision": hardware.precision, "device": hardware.device.type}
        measured = self._write_results(rows, test, **more)
        if kept_cases:
            kept_cases.finish(rows)
        run.finish()
        self._report()
        return measured

    def _measure(self, ensemble: Ensemble, names: Sequence[str], keep: Keep | None = None) -> list[Row]:
        """Return a row for each case that can be used, measured as `evaluate` does: on the scan's own grid."""
        wanted = set(names)
        cases = [case for case in self.data.cases if case.name in wanted]
        # A bad case costs the others nothing after hours of training.
        how: dict[str, Any] = {"strict": self.cases.strict, "reporter": self.reporter, "keep": keep}
        rows, skipped = measure_cases(ensemble, cases, self.data, **how) if cases else ([], [])
        self.unmeasured |= {one.source: one for one in skipped}
        return rows

    def _report(self) -> None:
        """Write the page of the run, and what it did not use."""
        if self.draw:
            names = {name for part in (self.split.training, self.split.validation, self.split.test) for name in part}
            unread = [one for name, one in (self.cases.skipped | self.unmeasured).items() if name in names]
            bundles.try_drawing(partial(write_refused, self.output, unread), self.reporter)
            write_report(self.output, reporter=self.reporter)

    def train_folds(self, *, resume: bool) -> tuple[Path, dict[str, float]]:
        """Train one fold, or all of them one after the other and put their test patients together.

        Returns:
            The folder of the fold, or of all of them, and what was measured.
        """
        alone, count = self.config.fold, self.config.folds
        chosen = range(count) if alone is None else [alone]
        folders = [self.output / f"fold{fold}" for fold in chosen]
        if not resume:
            Run.check(self.output if alone is None else folders[0])
        elif not any(folder.exists() for folder in folders):
            raise TrainingError(f"{self.output}: holds no fold to resume; start without --resume")
        measured: dict[str, float] = {}
        for fold, folder in zip(chosen, folders, strict=True):
            # Each fold is a run of its own, so that one can be trained alone, on another machine, or resumed.
            job = replace(self, config=self.config.override(fold=fold), output=folder)
            begun = (folder / RUN_NAME).exists()
            self.reporter.note(f"fold {fold}, {fold + 1} of {count}" + (": resuming" if begun else ""))
            try:
                measured = job.train(splits.split_cases(self.data, job.config), resume=begun)
            except Interrupted as signal:
                told = (
                    f"interrupted in fold {fold} of {count}, all is kept; repeat with --resume --output {self.output}"
                )
                raise Interrupted(signal.signum, told) from signal
        return (self.output, self._pool(folders)) if alone is None else (folders[0], measured)

    def _pool(self, folders: Sequence[Path]) -> dict[str, float]:
        """Write `results.json` and `test.csv` of all folds: each patient measured by a network that has not seen it.

        Returns:
            The metrics over all patients that are defined; of a classification, cases are ranked within their fold.

        Raises:
            DataError: A fold does not have results.
        """
        results = [read_test_results(folder) for folder in folders]
        with parsing(self.output, DataError, what="as folds", remedy="delete their results.json and resume"):
            read = [read_rows(folder, result) for folder, result in zip(folders, results, strict=True)]
            rows = [{**row, "fold": fold} for fold, own in enumerate(read) for row in own]
            test = self._summarize(rows)
            for name, entry in test.items():
                entry["folds"] = [result["test"].get(name, {}).get("value") for result in results]
            more = {"init": results[0]["init"], "split": [result["split"] for result in results]}
            more |= {key: ", ".join(sorted({result[key] for result in results})) for key in ("precision", "device")}
            remarked = {fold: result.get("remarks", ()) for fold, result in enumerate(results)}
            self.remarks += [f"fold {fold}: {remark}" for fold, said in remarked.items() for remark in said]
            self.remarks += remarks_on_cases(rows, self.data.labels)
        measured = self._write_results(rows, test, **more)
        if self.draw:
            write_report(self.output, reporter=self.reporter)
        return measured

    def _summarize(self, rows: Sequence[Row]) -> Summary:
        """Return each metric of the rows of cases, with its interval over their patients."""
        options = summary_options(self.data, self.config)
        return summarize_rows(rows, **options, resamples=self.config.bootstrap, seed=self.config.split_seed)

    def _write_results(self, rows: Sequence[Row], test: Summary, **more: Any) -> dict[str, float]:
        """Write `test.csv` and `results.json` of a run, or of all folds together; return the defined metrics."""
        path, told = self.output / TEST_NAME, summary_options(self.data, self.config)
        write_csv(path, rows, DataError, ("file", "case", "patient"))
        content = {"data": self.data.name, **told, **more, "patients": len({row["patient"] for row in rows})}
        content |= {"cases": len(rows), "seed": self.config.seed, **_how_split(self.config)}
        # Folds are pooled by their rows, which have to be those of these results.
        content |= {"rows_sha256": sha256_of(path), "test": test, "remarks": self.remarks}
        write_json(self.output / RESULTS_NAME, plain(content), DataError)
        if test:
            table_of(content).write(self.output)
        return flat(test)


def _how_split(config: FinetuningConfig) -> dict[str, Any]:
    """Return what decided which patients were for what."""
    folds = {"folds": config.folds, "fold": config.fold} if config.folds else {}
    return {"labels_used": config.labelled_patients, "split_seed": config.split_seed, **folds}
