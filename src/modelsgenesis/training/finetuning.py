"""Supervised training of a task network, from a Genesis or from scratch: one flow for both tasks."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from torch import nn

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import (
    BundleConfig,
    ClassificationConfig,
    ClassifierConfig,
    FinetuningConfig,
    InputContract,
    SegmentationConfig,
)
from modelsgenesis.data import LabelledData, PreparedCase
from modelsgenesis.errors import ConfigurationError, MissingExtraError, ResumeError
from modelsgenesis.evaluation import Summary, explanations, flat
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config, save_run_bundle
from modelsgenesis.training.classification import Classification
from modelsgenesis.training.loop import Progress, Trainer
from modelsgenesis.training.outcome import (
    RESULTS_NAME,
    SPLIT_NAME,
    TEST_NAME,
    describe_bundle,
    read_results,
    with_results,
    write_results,
)
from modelsgenesis.training.parts import Parts, prepare_parts, settle_patch_size
from modelsgenesis.training.run import Run, compare
from modelsgenesis.training.segmentation import Segmentation
from modelsgenesis.training.splits import Split, check_split, count_split, write_split
from modelsgenesis.training.supervised import Row, SupervisedObjective, write_rows


def make_objective(
    config: FinetuningConfig,
    *,
    training: Sequence[PreparedCase],
    validation: Sequence[PreparedCase],
    labels: Sequence[str],
    hardware: Hardware,
    multilabel: bool = False,
) -> SupervisedObjective:
    """Return the objective of a configuration's task.

    Args:
        config: A `SegmentationConfig` or a `ClassificationConfig`.
        training: Cases to learn from.
        validation: Cases that decide which network is kept; none keeps the last.
        labels: Class names; of a segmentation the background first.
        hardware: Where to compute.
        multilabel: Of a classification: whether several classes may hold.

    Raises:
        ConfigurationError: The configuration is of no task.
        DataError: There is nothing to learn, or no example of a class.
    """
    if isinstance(config, SegmentationConfig):
        return Segmentation(training=training, validation=validation, config=config, labels=labels, hardware=hardware)
    if isinstance(config, ClassificationConfig):
        return Classification(
            training=training,
            validation=validation,
            config=config,
            labels=labels,
            hardware=hardware,
            multilabel=multilabel,
        )
    raise ConfigurationError(
        f"config: received a {type(config).__name__}, expected a SegmentationConfig or a ClassificationConfig"
    )


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
    *,
    network: nn.Module,
    config: FinetuningConfig,
    contract: InputContract,
    data: LabelledData,
    split: Split,
    output: str | Path,
    hardware: Hardware,
    reporter: Reporter,
    init: str | None = None,
    pretrained: Collection[str] = (),
    parts: Parts | None = None,
    draw: bool = True,
    resume: bool = False,
    strict: bool = False,
) -> dict[str, float]:
    """Train a task network, keep the best on the validation patients, measure it on the test patients.

    Args:
        network: Trained in place; [b, c, *patch] to logits [b, classes, *patch] or [b, classes].
        config: Budget, optimiser, patch, augmentation; of the task.
        contract: How the images are prepared.
        data: Labelled images.
        split: Which are for what.
        output: The run's folder; gets the bundle, `results.json`, `test.csv` and `split.json`.
        hardware: Where to compute.
        reporter: Is told the progress.
        init: What the network started from, for the provenance.
        pretrained: Names of its tensors that came from there; see `frozen_steps` and `pretrained_rate`.
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
    check_split(split, data)
    config = settle_config(config, data)
    parts = parts or prepare_parts(split, data, contract, config, strict=strict, reporter=reporter)
    config = settle_patch_size(config, network, parts["training"], reporter)
    check_network(network, data)
    objective = make_objective(
        config,
        training=parts["training"],
        validation=parts["validation"],
        labels=data.labels,
        hardware=hardware,
        multilabel=data.multilabel,
    )
    run = _open(output, network, config, split, init, resume=resume)
    try:
        if run.description().get("finished") and (run.folder / RESULTS_NAME).exists():
            reporter.note(f"{output}: the run is finished, there is nothing left to resume")
            return flat(read_results(output)["test"])
        for note in objective.notes():
            reporter.note(note)
        if config.freeze_encoder:
            objective.freeze(cast("nn.Module", network.encoder))
            if not pretrained:
                reporter.note("the frozen encoder has random weights: only what is after it learns")
        write_split(split, run.folder / SPLIT_NAME)
        bundle = describe_bundle(network, config, contract, data, parts, init=init, hardware=hardware)
        record = _Record(run, objective, bundle, parts, draw=draw)
        trainer = Trainer(
            network=network,
            objective=objective,
            config=config,
            run=run,
            hardware=hardware,
            reporter=reporter,
            keep=record.keep,
            pretrained=pretrained,
        )
        if resume:
            trainer.resume()
        progress = trainer.fit()
        summary, rows = record.finish(progress, reporter)
        more = {"init": init, "split": count_split(split, data), "step": progress.best_step, "steps": progress.step}
        more |= {"validation": progress.metrics, **hardware.for_results().recorded()}
        write_results(run.folder / RESULTS_NAME, data=data, config=config, test=summary, rows=rows, more=more)
        run.finish()
        return flat(summary)
    finally:
        run.close()


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


def _open(
    output: str | Path, network: nn.Module, config: FinetuningConfig, split: Split, init: str | None, *, resume: bool
) -> Run:
    """Start or resume the run.

    Raises:
        ResumeError: What is there was started otherwise.
    """
    shape = network_config(network).to_dict()
    cases = {part: list(names) for part, names in asdict(split).items()}
    asked = {"kind": "finetuning", "config": config.to_dict(), "init": init, "shape": shape, "split": cases}
    if not resume:
        return Run.create(output, asked)
    run = Run.resume(output, asked)
    before = run.description()
    same = {key: asked[key] for key in ("init", "shape")}
    differences = compare({key: before.get(key, value) for key, value in same.items()}, same)
    if differences:
        run.close()
        raise ResumeError(f"{output}: the run was started otherwise: {'; '.join(differences[:3])}")
    return run


class _Record:
    """Writes the best network so far, and at the end what it is worth.

    Args:
        run: Where to.
        objective: Measures.
        bundle: What `config.json` says, but for the results.
        parts: Prepared cases.
        draw: Whether there are a curve and a card.
    """

    def __init__(
        self, run: Run, objective: SupervisedObjective, bundle: BundleConfig, parts: Parts, *, draw: bool
    ) -> None:
        self.run, self.objective, self.bundle, self.parts, self.draw = run, objective, bundle, parts, draw
        seed = objective.config.seed
        self.rests_on = {
            part: {"patients": len({case.patient for case in cases}), "cases": len(cases), "seed": seed}
            for part, cases in parts.items()
        }

    def keep(self, network: nn.Module, progress: Progress) -> None:
        """Write the bundle of the best validation so far."""
        self._write(network, with_results(self.bundle, progress, self.rests_on, {}), {})

    def finish(self, progress: Progress, reporter: Reporter) -> tuple[Summary, list[Row]]:
        """Measure the kept network on the test patients; write `test.csv`, the curve, and the results on the card."""
        kept = load_bundle(self.run.folder)
        network = self.objective.hardware.place_network(kept.network).eval()
        rows = self.objective.measure(network, self.parts["test"])
        write_rows(self.run.folder / TEST_NAME, rows)
        summary = self.objective.summarize(rows) if rows else {}
        for explanation in explanations(summary):
            reporter.note(explanation)
        results = with_results(self.bundle, progress, self.rests_on, summary)
        self._write(kept.network, results, self._curve(reporter) if self.draw else {})
        return summary, rows

    def _write(self, network: nn.Module, config: BundleConfig, figures: dict[str, str]) -> None:
        if self.draw:
            save_run_bundle(self.run, network, config, figures)
        else:
            save_bundle(self.run.folder, Bundle(network, config))

    def _curve(self, reporter: Reporter) -> dict[str, str]:
        from modelsgenesis.figures import draw_curve

        folder = self.run.folder
        try:
            draw_curve(folder / "log.csv", folder / "validation.csv", folder / "figures" / "curve.png")
        except MissingExtraError as error:
            reporter.note(f"no figures: {error}")
            return {}
        return {"Loss in training, and what the validations measured": "figures/curve.png"}
