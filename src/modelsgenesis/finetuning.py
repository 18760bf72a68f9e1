"""Fine-tuning: a task network, pretrained or from scratch, trained with labels and measured on held-out patients."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, PredictionConfig, SegmentationConfig
from modelsgenesis.data import LabelledData, PreparedCases, read_labelled, sample_data
from modelsgenesis.data.labelled import digest_files
from modelsgenesis.data.labelled.reading import find_task
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, TrainingError
from modelsgenesis.files import parsing, read_json
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.inference.ensemble import Ensemble, Member, measure_cases
from modelsgenesis.metrics.summary import Row, explanations, flat
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import Visuals, load_kept, network_config, save_run_bundle
from modelsgenesis.training.distributed import torchrun_ranks
from modelsgenesis.training.results import (
    RESULTS_NAME,
    SPLIT_NAME,
    describe_bundle,
    read_results,
    read_rows,
    summarize,
    write_results,
)
from modelsgenesis.training.run import RUN_NAME, Progress, Run
from modelsgenesis.training.splits import (
    Split,
    check_split,
    choose_labelled,
    count_split,
    make_split,
    read_split,
    split_cases,
    write_split,
)
from modelsgenesis.training.supervised import initial_model, make_objective, resolve_patch_size
from modelsgenesis.training.trainer import Trainer

SAMPLE_CONFIG = SegmentationConfig(
    steps=200, batch_size=4, validate_every=200, validation_fraction=0.0, patch_size=(48, 48, 16), samples_per_scan=32
)
"""For the embedded sample: one patient to train on, one to test on."""


def finetune(
    source: str | Path | LabelledData | None,
    output: str | Path,
    *,
    task: str | None = None,
    init: str | Path | None = None,
    from_scratch: bool = False,
    config: FinetuningConfig | None = None,
    split: Split | str | Path | None = None,
    labels: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    draw: bool = True,
    token: str | None = None,
    reporter: Reporter | None = None,
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
        init: Initial weights: a name, `org/repo`, or a folder; None trains from scratch.
        from_scratch: Take the shape and the input contract of `init`, but random weights: its control.
        config: A `SegmentationConfig` or `ClassificationConfig`; None for the task's own, or the run's when resuming.
        split: Which cases are for what, or a file of `write_split`; by default drawn by the configuration.
        labels: Training patients whose labels are used, `"10"` or `"10%"`; instead of the configuration's.
        modality: What the images are, where the data does not say.
        patient_pattern: Regular expression of the patient in a file's name.
        cache: Folder of the prepared cases, which runs share; None keeps them in memory alone.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Resume the run in `output`, or its folds.
        strict: Stop at the first unusable case instead of skipping it.
        draw: Draw a curve and write a card.
        token: Token of the Hub, for `init`.
        reporter: Receives the progress.

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
    if torchrun_ranks()[1] > 1:
        raise ConfigurationError("finetune runs in one process: start it without torchrun")
    # Before any data is read: a folder that cannot be used is known at once. Those of folds are checked one by one.
    if config is None or not config.folds:
        Run.check(output, resume=resume)
    if resume and config is None:
        config = read_config(output)
    given: dict[str, Any] = {"modality": modality, "patient_pattern": patient_pattern, "cache": cache, "init": init}
    given["split"] = None if isinstance(split, Split) else split
    config, data = resolve_config(source, config, task=task, **given)
    config = config if labels is None else config.override(labelled_patients=labels)
    config = config.override(from_scratch=True) if from_scratch else config
    if source is None and not config.data.source:
        reporter.note("no data given: fine-tuning on the embedded sample of two CT patients, which proves nothing")
        split = split or config.data.split or sample_split(data)
    for note in data.notes:
        reporter.note(note)
    hardware = choose_hardware(device, config.precision)
    reporter.note(f"computing on {hardware.describe()}")
    # Images to classify are kept at the size that the network sees: a thousand X-rays of 2,000² pixels take 16 GB.
    brought = (config.patch_size, config.fit) if isinstance(config, ClassificationConfig) else (None, "auto")
    cases = PreparedCases(data, size=brought[0], fit=brought[1], strict=strict, folder=config.data.cache)
    train = partial(_train, data=data, cases=cases, hardware=hardware, draw=draw, token=token, reporter=reporter)
    if not config.folds:
        chosen = _choose_split(data, config, output, split, resume=resume)
        return output, train(config, chosen, output, resume=resume)
    if split or config.data.split:
        raise ConfigurationError(f"folds: received {config.folds} beside a split; each fold is a test part: name one")
    return _train_folds(train, data, config, output, reporter, resume=resume)


def resolve_config(
    source: str | Path | LabelledData | None, config: FinetuningConfig | None, *, task: str | None = None, **given: Any
) -> tuple[FinetuningConfig, LabelledData]:
    """Return the configuration that determines a run, and its data.

    Args:
        source: The data; None for that of the configuration, else the embedded sample.
        config: What is given goes on top of it; None for the default of the data's task.
        task: What the labels have to be for.
        given: Fields of `data`, and `init`; None leaves one as it is.

    Raises:
        DataError: The data cannot be used, or its labels are for another task.
        ConfigurationError: The configuration is for another task than the labels.
    """
    path = None if source is None or isinstance(source, LabelledData) else (source,)
    asked = (config or FinetuningConfig()).with_data(source=path, **given)
    told = source if isinstance(source, LabelledData) else next(iter(asked.data.source), None)
    data = read_task(told, task=task, modality=asked.data.modality, patient_pattern=asked.data.patient_pattern)
    # The data decides the task, and with it the configuration: so it is read first, with the data options of either.
    default = default_finetuning(data, sample=told is None)
    config = (config or default).override(data=asked.data, init=asked.init)
    if not isinstance(config, type(default)):
        raise ConfigurationError(
            f"config: received a {type(config).__name__}, expected a {type(default).__name__}: the labels of "
            f"{data.name} are for {data.task}"
        )
    return config, data


def read_task(
    source: str | Path | LabelledData | None,
    *,
    task: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
) -> LabelledData:
    """Return labelled data for a task; None is the embedded sample.

    Raises:
        DataError: The data cannot be used, or its labels are for another task.
        ConfigurationError: The task is unknown.
    """
    if isinstance(source, (str, Path)):
        modality = None if modality == "auto" else modality
        return read_labelled(source, task=task, modality=modality, patient_pattern=patient_pattern)
    data = sample_data() if source is None else source
    if task is not None and find_task(task) != data.task:
        raise DataError(f"{data.name}: its labels are for {data.task}; {find_task(task)} was asked for")
    return data


def default_finetuning(data: LabelledData, *, sample: bool = False) -> FinetuningConfig:
    """Return the default configuration of a data set's task; the embedded sample has one of its own."""
    if data.task == "classification":
        return ClassificationConfig()
    return SAMPLE_CONFIG if sample else SegmentationConfig()


def read_config(source: str | Path) -> FinetuningConfig:
    """Return the configuration of a run, or of a file as `--show-config` prints it.

    Raises:
        ConfigurationError: It is not a configuration of a fine-tuning.
        TrainingError: The folder holds no run of a fine-tuning.
    """
    path = Path(source)
    run = None if path.is_file() else Run(path).description("finetuning")
    content = read_json(path, ConfigurationError) if run is None else run["config"]
    # `hidden` is a field of a classification alone.
    kind = ClassificationConfig if isinstance(content, dict) and "hidden" in content else SegmentationConfig
    return kind.from_dict(content, str(path))


def sample_split(data: LabelledData) -> Split:
    """Return the split of the embedded sample: the trunk to train on, the abdominal slab to test on."""
    training, test = (case.name for case in data.cases)
    return Split(training=(training,), validation=(), test=(test,))


def _choose_split(
    data: LabelledData, config: FinetuningConfig, output: Path, split: Split | str | Path | None, *, resume: bool
) -> Split:
    """Return the split: the run's own on resume, the given one with as many labels as asked, or a drawn one."""
    split = split or config.data.split
    if split is None:
        recorded = Run(output).description().get("split") if resume else None
        return make_split(recorded, output / RUN_NAME) if resume else split_cases(data, config)
    chosen, labels = split if isinstance(split, Split) else read_split(split), config.labelled_patients
    return chosen if labels is None else choose_labelled(chosen, data, labels, config.split_seed)


def _train(
    config: FinetuningConfig,
    split: Split,
    output: Path,
    *,
    data: LabelledData,
    cases: PreparedCases,
    hardware: Hardware,
    draw: bool,
    resume: bool,
    token: str | None,
    reporter: Reporter,
) -> dict[str, float]:
    """Train on one split, keep the best network on the validation patients, measure it on the test patients.

    Args:
        config: The configuration of the task; its patch may be open.
        split: Which cases are for what.
        output: The run's folder; gets the bundle, `results.json`, `test.csv` and `split.json`.
        data: The data set.
        cases: Its prepared cases, which folds share.
        hardware: Where to compute.
        draw: Draw a curve and write a card; a short run would spend most of its time on them.
        resume: Resume the run in `output`.
        token: Token of the Hub.
        reporter: Receives the progress.
    """
    check_split(split, data)
    bundle = None if config.init is None else load(config.init, token=token, progress=announce(reporter))
    begun = initial_model(bundle, data, config, reporter, name=public_name(config.init or ""))
    if config.patch_size is not None:
        resolve_patch_size(config, begun.network, (), reporter)  # before hours of preparation
    training, validation = (cases.get(names, begun.contract, reporter) for names in (split.training, split.validation))
    # What could be read, for the counts on the card; `split` stays as it was asked for, so that a resume can compare.
    used = Split(*(tuple(case.name for case in part) for part in (training, validation)), test=split.test)
    config = resolve_patch_size(config, begun.network, training, reporter)
    frozen = cast("nn.Module", begun.network.encoder) if config.freeze_encoder else None
    options: dict[str, Any] = {"config": config, "hardware": hardware, "frozen": frozen}
    objective = make_objective(data, training=training, validation=validation, **options)
    # Of test cases the files: they are read when the training has ended.
    digests = {case.name: case.digest for case in (*training, *validation)} | digest_files(data, split.test)
    described = {"kind": "finetuning", "config": config.to_dict(), "init": begun.init}
    described |= {"input": begun.contract.to_dict(), "shape": network_config(begun.network).to_dict()}
    # A case that was skipped has the digest "", so that a resume notices also that it has been mended since.
    described |= {"split": {part: list(names) for part, names in asdict(split).items()}}
    described["digests"] = {part: [digests.get(name, "") for name in names] for part, names in asdict(split).items()}
    # Only now is anything written: whatever cannot be trained leaves no folder behind.
    run = Run.open(output, described, resume=resume)

    def save(network: nn.Module, figures: dict[str, str] | None = None, **measured: Any) -> str:
        content = describe_bundle(
            network, config, begun.contract, data, used, init=begun.init, hardware=hardware, **measured
        )
        return save_run_bundle(run, network, content, figures or {} if draw else None, reporter)

    def keep(network: nn.Module, progress: Progress) -> None:
        progress.kept = save(network, step=progress.step, validation=progress.metrics, test={})

    try:
        if run.description().get("finished") and (output / RESULTS_NAME).exists():
            reporter.note(f"{output}: the run is finished, there is nothing left to resume")
            return flat(read_results(output)["test"])
        write_split(split, output / SPLIT_NAME)
        for note in objective.notes:
            reporter.note(note)
        if frozen is not None and begun.init is None:
            reporter.note("the frozen encoder has random weights: only what is after it learns")
        trainer = Trainer(
            network=begun.network,
            objective=objective,
            config=config,
            run=run,
            hardware=hardware,
            reporter=reporter,
            on_best=keep,
            pretrained=begun.pretrained,
        )
        if resume:
            trainer.resume()
        progress = trainer.fit()
        # From the disk and not the network at hand: the best one, and the very file that is published.
        kept = load_kept(run, progress)
        member = Member(name=output.name, network=hardware.place_network(kept.network).eval(), config=kept.config)
        # Windows overlap as the configuration says; an image to classify has none.
        prediction = PredictionConfig(overlap=getattr(config, "overlap", 0.0))
        ensemble = Ensemble([member], prediction, hardware.for_results())
        measure = partial(_measure, ensemble, data=data, strict=cases.strict, reporter=reporter)
        validated, rows = measure(used.validation), measure(split.test)
        used = replace(used, test=tuple(row["case"] for row in rows))
        measured = {"validation": flat(summarize(validated, data, config)), "test": summarize(rows, data, config)}
        for explanation in explanations(measured["test"]):
            reporter.note(explanation)
        # Once more with what was measured: until here the card has the validation that chose the network.
        visuals = Visuals(output, reporter)
        if draw:
            visuals.draw_curve(progress.step)
        save(kept.network, visuals.on_card(), step=progress.best_step, **measured)
        steps = {"init": begun.init, "step": progress.best_step, "steps": progress.step}
        more = {**steps, "split": count_split(used, data), **hardware.for_results().recorded(), **measured}
        write_results(output, data, config, rows, **more)
        run.finish()
        return flat(measured["test"])
    finally:
        run.close()


def _measure(
    ensemble: Ensemble, names: Sequence[str], data: LabelledData, *, strict: bool, reporter: Reporter
) -> list[Row]:
    """Return a row for each case that can be used, measured as `evaluate` does: on the scan's own grid."""
    wanted = set(names)
    cases = [case for case in data.cases if case.name in wanted]
    # A bad case costs the others nothing after hours of training, but figures on no case at all are an error.
    rows, skipped = measure_cases(ensemble, cases, data, strict=strict, reporter=reporter) if cases else ([], [])
    if skipped and not rows:
        raise DataError(f"none of {len(cases)} cases to measure is usable; the first: {skipped[0].reason}")
    return rows


def _train_folds(
    train: Callable[..., dict[str, float]],
    data: LabelledData,
    config: FinetuningConfig,
    output: Path,
    reporter: Reporter,
    *,
    resume: bool,
) -> tuple[Path, dict[str, float]]:
    """Train one fold, or all of them one after the other and put their test patients together.

    Args:
        train: Trains a fold, or finds it finished.
        data: The data set.
        config: The configuration of all folds.
        output: Gets one folder per fold.
        reporter: Receives the progress.
        resume: Resume the folds that have begun.
    """
    alone, folds = config.fold is not None, range(config.folds)
    folders = {fold: output / f"fold{fold}" for fold in ([config.fold] if config.fold is not None else folds)}
    if not resume:
        Run.check(*folders.values() if alone else (output,))
    elif not any(folder.exists() for folder in folders.values()):
        raise TrainingError(f"{output}: holds no fold to resume; start without --resume")
    measured: dict[str, float] = {}
    for fold, folder in folders.items():
        # Each fold is a run of its own, so that one can be trained alone, on another machine, or resumed.
        own, begun = config.override(fold=fold), (folder / RUN_NAME).exists()
        reporter.note(f"fold {fold}, {fold + 1} of {config.folds}" + (": resuming" if begun else ""))
        try:
            measured = train(own, split_cases(data, own), folder, resume=begun)
        except Interrupted as signal:
            raise Interrupted(
                signal.signum,
                f"interrupted in fold {fold} of {config.folds}, nothing is lost; resume with the same command and "
                f"--resume --output {output}",
            ) from signal
    places = list(folders.values())
    return (places[0], measured) if alone else (output, pool_folds(places, data, config, reporter))


def pool_folds(
    folders: Sequence[Path], data: LabelledData, config: FinetuningConfig, reporter: Reporter
) -> dict[str, float]:
    """Put the test patients of all folds together, each measured by a network that has not seen it.

    Writes `results.json`, with each fold's own values, and `test.csv` beside the folders of the folds.

    Returns:
        The metrics over all patients that are defined; of a classification, cases are ranked within their fold.

    Raises:
        DataError: A fold does not have results.
    """
    output = folders[0].parent
    results = [read_results(folder) for folder in folders]
    with parsing(output, DataError, what="as folds", remedy="delete their results.json and resume"):
        read = [read_rows(folder, result) for folder, result in zip(folders, results, strict=True)]
        rows = [{**row, "fold": fold} for fold, own in enumerate(read) for row in own]
        test = summarize(rows, data, config)
        for name, entry in test.items():
            entry["folds"] = [result["test"].get(name, {}).get("value") for result in results]
        more = {"init": results[0]["init"], "split": [result["split"] for result in results]}
        for key in ("precision", "device"):  # which folds of version 0.1.0 did not record
            more[key] = ", ".join(sorted({result.get(key, "not recorded") for result in results}))
    for explanation in explanations(test):
        reporter.note(explanation)
    write_results(output, data, config, rows, test=test, **more)
    return flat(test)
