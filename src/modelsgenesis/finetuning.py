"""Fine-tuning: a task network from a Genesis or from scratch, on one split or on folds."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, InputContract, SegmentationConfig
from modelsgenesis.data import LabelledData, PreparedCase, read_labelled, sample_data
from modelsgenesis.data.labelled.reading import find_task
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, ResumeError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Run, Split, read_split
from modelsgenesis.training.distributed import torchrun_ranks
from modelsgenesis.training.finetuning import finetune_network
from modelsgenesis.training.folds import fold_folder, pool_folds
from modelsgenesis.training.outcome import read_results as read_outcome
from modelsgenesis.training.parts import pick_parts, prepare_named
from modelsgenesis.training.run import RUN_NAME
from modelsgenesis.training.splits import choose_labelled, make_split, split_cases
from modelsgenesis.training.task_networks import InitialModel, initial_model

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
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    draw: bool = True,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> tuple[Path, dict[str, float]]:
    """Train a task network with labels and measure it on held-out patients.

    Args:
        source: Labelled images in a layout that `read_labelled` knows, or what it returned; None for the embedded
            sample.
        output: The run's folder, new or empty. With folds it gets a folder a fold.
        task: `"seg"` or `"cls"`; None for what the labels are for.
        init: Weights to start from: a name, `org/repo`, or a folder; None trains from scratch.
        from_scratch: Take the shape and the input contract of `init`, but random weights: its control.
        config: A `SegmentationConfig` or `ClassificationConfig`; by default the task's own.
        split: Which cases are for what, or a file of `write_split`; by default drawn by the configuration.
        labels: Training patients whose labels are used, `"10"` or `"10%"`; instead of the configuration's.
        modality: What the images are, where the data does not say.
        patient_pattern: Regular expression of the patient in a file's name.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Go on with the run in `output`, or with its folds.
        strict: A bad case ends the run instead of being left out.
        draw: Draw a curve and write a card.
        token: Of the Hub, for `init`.
        reporter: Is told the progress.

    Returns:
        The run's folder, and the metrics on the test patients that are defined: `dice`, `iou` and `hausdorff95` (mm)
        of a segmentation, also of each structure; `auc`, `average_precision`, `sensitivity` and `accuracy` of a
        classification. Their intervals are in `results.json`.

    Raises:
        DataError: The data set or the split cannot be used.
        ConfigurationError: Task, configuration, weights and data do not fit together.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run, measured = modelsgenesis.finetune("Task04_Hippocampus", "runs/hippocampus", init="runs/chest", labels="10")
        measured["dice"]
    """
    reporter = reporter or Reporter()
    if torchrun_ranks()[1] > 1:
        raise ConfigurationError("finetune runs in one process: start it without torchrun")
    if config is None or not config.folds:
        Run.check(output, resume=resume)
    if source is None:
        reporter.note("no data given: fine-tuning on the embedded sample of two CT patients, which proves nothing")
    data = read_task(source, task=task, modality=modality, patient_pattern=patient_pattern)
    config = config or default_finetuning(data, sample=source is None)
    config = config if labels is None else config.override(labelled_patients=labels)
    for note in data.notes:
        reporter.note(note)
    hardware = choose_hardware(device, config.precision)
    reporter.note(f"computing on {hardware.describe()}")

    def begin(config: FinetuningConfig, reporter: Reporter) -> InitialModel:
        bundle = None if init is None else load(init, token=token, progress=announce(reporter))
        name = "" if init is None else public_name(init)
        return initial_model(bundle, data, config, name=name, from_scratch=from_scratch, reporter=reporter)

    train = partial(finetune_network, data=data, hardware=hardware, reporter=reporter, draw=draw, strict=strict)
    if config.folds:
        _check_folds(data, config, output, split, resume=resume)
        prepare = partial(prepare_named, data.cases, data, strict=strict, reporter=reporter)
        measured = _train_folds(begin, prepare, train, data, config, Path(output), reporter)
        return (Path(output) if config.fold is None else fold_folder(output, config.fold)), measured
    if source is None and split is None:
        split = sample_split(data)
    chosen = _choose_split(data, config, output, split, resume=resume)
    return Path(output), train(begin(config, reporter), config, split=chosen, output=output, resume=resume)


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


def read_measurements(run: str | Path) -> dict[str, Any]:
    """Return the `results.json` of a fine-tuning, or of its folds together: metrics with intervals, and their basis.

    Raises:
        DataError: It is missing or no JSON.
    """
    return read_outcome(run)


def sample_split(data: LabelledData) -> Split:
    """Return the split of the embedded sample: the trunk to train on, the abdominal slab to test on."""
    training, test = (case.name for case in data.cases)
    return Split(training=(training,), validation=(), test=(test,))


def _choose_split(
    data: LabelledData, config: FinetuningConfig, output: str | Path, split: Split | str | Path | None, *, resume: bool
) -> Split:
    """Return the split: the run's own on resume, the given one with as many labels as asked, or a drawn one."""
    if resume and split is None:
        return make_split(Run(Path(output)).description().get("split"), Path(output) / RUN_NAME)
    if split is None:
        return split_cases(data, config)
    given = split if isinstance(split, Split) else read_split(split)
    return (
        given
        if config.labelled_patients is None
        else choose_labelled(given, data, config.labelled_patients, config.split_seed)
    )


def _train_folds(
    begin: Callable[[FinetuningConfig, Reporter], InitialModel],
    prepare: Callable[[InputContract, FinetuningConfig], dict[str, PreparedCase]],
    train: Callable[..., dict[str, float]],
    data: LabelledData,
    config: FinetuningConfig,
    output: Path,
    reporter: Reporter,
) -> dict[str, float]:
    """Train one fold, or all of them one after the other and put their test patients together.

    Args:
        begin: Makes the network of a fold.
        prepare: Prepares every case once for all folds.
        train: Trains a fold, or finds it finished.
        data: Labelled images.
        config: Of all folds.
        output: Gets a folder a fold.
        reporter: Receives the progress.
    """
    prepared: dict[str, PreparedCase] = {}
    measured: dict[str, float] = {}
    for fold in range(config.folds) if config.fold is None else (config.fold,):
        folder, own = fold_folder(output, fold), config.override(fold=fold)
        resume = (folder / RUN_NAME).exists()
        reporter.note(f"fold {fold}, {fold + 1} of {config.folds}" + (": going on" if resume else ""))
        begun = begin(own, Reporter() if prepared else reporter)
        prepared = prepared or prepare(begun.contract, own)
        chosen = split_cases(data, own)
        try:
            parts = pick_parts(chosen, prepared)
            measured = train(begun, own, split=chosen, output=folder, parts=parts, resume=resume)
        except Interrupted as signal:
            raise Interrupted(
                signal.signum,
                f"interrupted in fold {fold} of {config.folds}, nothing is lost; go on with the same command and "
                f"--resume --output {output}",
            ) from signal
    return measured if config.fold is not None else pool_folds(output, data, config, reporter)


def _check_folds(
    data: LabelledData, config: FinetuningConfig, output: str | Path, split: object, *, resume: bool
) -> None:
    """Refuse folds that cannot be, and an output that holds something else.

    Raises:
        ConfigurationError: A split is given as well, by the user or by the data's own file.
        TrainingError: The output holds a run or a fold that is to be trained.
        ResumeError: There is no fold to go on with.
    """
    if split is not None or any(case.part == "test" for case in data.cases):
        whose = "a split" if split is not None else f"the test part that {data.name} names"
        raise ConfigurationError(
            f"folds: received {config.folds} beside {whose}; each fold is a test part: leave one of them out"
        )
    wanted = range(config.folds) if config.fold is None else (config.fold,)
    if not resume:
        Run.check(output if config.fold is None else fold_folder(output, config.fold))
    elif not any(fold_folder(output, fold).exists() for fold in wanted):
        raise ResumeError(f"{output}: holds no fold to resume; start without --resume")
