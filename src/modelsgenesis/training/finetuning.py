"""Supervised training of a task network, from a Genesis or from scratch: one flow for both tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from torch import nn

from modelsgenesis.configs import ClassificationConfig, ClassifierConfig, FinetuningConfig, SegmentationConfig
from modelsgenesis.data import LabelledData, PreparedCase
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.files import sha256_of
from modelsgenesis.hardware import Hardware
from modelsgenesis.metrics.summary import Summary, explanations, flat
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import load_kept, network_config, save_run_bundle
from modelsgenesis.training.classification import Classification
from modelsgenesis.training.outcome import (
    RESULTS_NAME,
    SPLIT_NAME,
    TEST_NAME,
    describe_bundle,
    read_results,
    summarize_rows,
    write_results,
)
from modelsgenesis.training.parts import (
    Parts,
    pick_parts,
    prepare_named,
    recorded_data,
    settle_patch_size,
    slices_of,
)
from modelsgenesis.training.pictures import draw_run_curve
from modelsgenesis.training.run import Run
from modelsgenesis.training.segmentation import Segmentation
from modelsgenesis.training.splits import Split, check_split, count_split, write_split
from modelsgenesis.training.supervised import SupervisedObjective, write_rows
from modelsgenesis.training.task_networks import InitialModel
from modelsgenesis.training.trainer import Progress, Trainer


def make_objective(
    config: FinetuningConfig,
    data: LabelledData,
    *,
    training: Sequence[PreparedCase],
    validation: Sequence[PreparedCase],
    hardware: Hardware,
) -> SupervisedObjective:
    """Return the objective of a data set's task; arguments and errors as of `SupervisedObjective`."""
    kind = Classification if data.task == "classification" else Segmentation
    return kind(training=training, validation=validation, config=config, data=data, hardware=hardware)


def settle_config(config: FinetuningConfig, data: LabelledData) -> FinetuningConfig:
    """Return the configuration with what the data set decides where it is left open: how images are brought to a size.

    Raises:
        ConfigurationError: It is of another task than the labels.
    """
    kind = ClassificationConfig if data.task == "classification" else SegmentationConfig
    if not isinstance(config, kind):
        raise ConfigurationError(
            f"config: received a {type(config).__name__}, expected a {kind.__name__}: the labels of {data.name} are "
            f"for {data.task}"
        )
    if isinstance(config, ClassificationConfig) and config.fit == "auto":
        return config.override(fit=data.fit)
    return config


def finetune_network(
    begun: InitialModel,
    config: FinetuningConfig,
    data: LabelledData,
    split: Split,
    output: str | Path,
    *,
    hardware: Hardware,
    reporter: Reporter,
    parts: Parts | None = None,
    draw: bool = True,
    resume: bool = False,
    strict: bool = False,
) -> dict[str, float]:
    """Train a task network, keep the best on the validation patients, measure it on the test patients.

    Args:
        begun: The network, which is trained in place: [b, c, *patch] to logits [b, classes, *patch] or [b, classes].
        config: Budget, optimiser, patch, augmentation; of the task.
        data: Labelled images.
        split: Which are for what.
        output: The run's folder; gets the bundle, `results.json`, `test.csv` and `split.json`.
        hardware: Where to compute.
        reporter: Receives the progress.
        parts: The prepared cases of the split, if they are in memory already.
        draw: Write a curve and the card's prose; without, a short run spends no time on them.
        resume: Go on with the run in `output`.
        strict: A bad case ends the run instead of being left out.

    Returns:
        The metrics on the test patients that are defined; empty without test patients.

    Raises:
        DataError: A part of the split has no usable case, or there is nothing to learn.
        ConfigurationError: Configuration, network and data do not fit together.
        TrainingError: The folder holds a run, or training failed.
    """
    network, init, contract = begun.network, begun.init, begun.contract
    check_split(split, data)
    config = settle_config(config, data)
    if parts is None:
        wanted = {*split.training, *split.validation, *split.test}
        cases = [case for case in data.cases if case.name in wanted]
        parts = pick_parts(split, prepare_named(cases, data, contract, config, strict=strict, reporter=reporter))
    config = settle_patch_size(config, network, parts["training"], reporter)
    check_network(network, data)
    training = parts["training"]
    if config.dims == 2:
        training = [plane for case in training for plane in slices_of(case)]
    objective = make_objective(config, data, training=training, validation=parts["validation"], hardware=hardware)
    asked = {"kind": "finetuning", "config": config.to_dict(), "init": init, "input": contract.to_dict()}
    asked |= {"shape": network_config(network).to_dict(), **recorded_data(split, parts)}
    run = Run.open(output, asked, resume=resume)

    def save(network: nn.Module, progress: Progress, test: Summary, figures: dict[str, str]) -> str:
        options = {"init": init, "hardware": hardware, "progress": progress, "test": test}
        bundle = describe_bundle(network, config, contract, data, parts, **options)
        return save_run_bundle(run, network, bundle, figures if draw else None, reporter)

    def keep(network: nn.Module, progress: Progress) -> None:
        progress.kept = save(network, progress, {}, {})

    try:
        if run.description().get("finished") and (run.folder / RESULTS_NAME).exists():
            reporter.note(f"{output}: the run is finished, there is nothing left to resume")
            return flat(read_results(output)["test"])
        write_split(split, run.folder / SPLIT_NAME)
        trainer = make_trainer(begun, objective, run, keep, reporter)
        if resume:
            trainer.resume()
        progress = trainer.fit()
        kept = load_kept(run, progress)
        rows = objective.measure(hardware.place_network(kept.network).eval(), parts["test"])
        write_rows(run.folder / TEST_NAME, rows)
        summary = summarize_rows(rows, data, config)
        for explanation in explanations(summary):
            reporter.note(explanation)
        save(kept.network, progress, summary, draw_run_curve(run.folder, reporter) if draw else {})
        more = {"init": init, "split": count_split(split, data), "step": progress.best_step, "steps": progress.step}
        more |= {"validation": progress.metrics, **hardware.for_results().recorded()}
        more |= {"rows_sha256": sha256_of(run.folder / TEST_NAME)}  # folds are put together by their rows
        write_results(run.folder / RESULTS_NAME, data=data, config=config, test=summary, rows=rows, more=more)
        run.finish()
        return flat(summary)
    finally:
        run.close()


def make_trainer(
    begun: InitialModel,
    objective: SupervisedObjective,
    run: Run,
    keep: Callable[[nn.Module, Progress], None],
    reporter: Reporter,
) -> Trainer:
    """Return the trainer of a network, its encoder frozen if that was asked for."""
    config = objective.config
    for note in objective.notes():
        reporter.note(note)
    if config.freeze_encoder:
        objective.freeze(cast("nn.Module", begun.network.encoder))
        if begun.init is None:
            reporter.note("the frozen encoder has random weights: only what is after it learns")
    return Trainer(
        network=begun.network,
        objective=objective,
        config=config,
        run=run,
        hardware=objective.hardware,
        reporter=reporter,
        keep=keep,
        pretrained=begun.pretrained,
    )


def check_network(network: nn.Module, data: LabelledData) -> None:
    """Refuse a network of another task, or with another number of classes or channels than the data has.

    Raises:
        ConfigurationError: They do not fit together.
    """
    shape = network_config(network)
    classifier = isinstance(shape, ClassifierConfig)
    unet = shape.encoder if classifier else shape
    outputs = shape.num_classes if classifier else shape.out_channels
    if classifier is (data.task == "segmentation"):
        raise ConfigurationError(f"the network is a {shape.kind}, but the labels of {data.name} are for {data.task}")
    if (outputs, unet.in_channels) != (len(data.labels), len(data.channels)):
        raise ConfigurationError(
            f"the network maps {unet.in_channels} channels to {outputs} classes, but {data.name} has "
            f"{len(data.channels)} and {len(data.labels)}: adapt it with num_classes and in_channels"
        )
