"""Supervised training of a segmentation network, from a Genesis or from scratch."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelsgenesis import __version__
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import (
    BundleConfig,
    ClassifierConfig,
    InputContract,
    Provenance,
    SegmentationConfig,
    require_patch_size,
)
from modelsgenesis.data import LabelledData, LabelledPatches, PreparedCase, prepare_cases, require_label
from modelsgenesis.errors import ConfigurationError, MissingExtraError
from modelsgenesis.evaluation import dice_per_class, mean_ignoring_nan, sliding_window
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import describe_environment, network_config, save_run_bundle
from modelsgenesis.training.loop import Objective, Progress, Trainer
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import Split, check_split

_PATCH_VOXELS = 64 * 64 * 32


def choose_patch_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the median shape in steps of 8, shortened along its longest sides to the voxels of 64×64×32.

    Example:
        >>> choose_patch_size([(35, 50, 36), (33, 49, 40), (36, 52, 31)])
        (40, 56, 40)
    """
    sides = [math.ceil(side / 8) * 8 for side in np.median(shapes, axis=0)]
    while math.prod(sides) > _PATCH_VOXELS:
        sides[int(np.argmax(sides))] -= 8
    return tuple(sides)


def _prepare(
    split: Split, data: LabelledData, contract: InputContract, strict: bool, reporter: Reporter
) -> dict[str, list[PreparedCase]]:
    """Return the prepared cases of each part of the split; bad ones are left out and said."""
    by_name = {case.name: case for case in data.cases}
    parts: dict[str, list[PreparedCase]] = {}
    for part, names in asdict(split).items():
        parts[part], refused = prepare_cases([by_name[name] for name in names], data, contract, strict=strict)
        for refusal in refused:
            reporter.note(f"left out {refusal.source}: {refusal.reason}")
    return parts


class Segmentation(Objective):
    """Segment sub-volumes under Dice and cross-entropy.

    Args:
        training: Cases to learn from.
        validation: Cases that decide which network is kept; none keeps the last.
        config: Patch, augmentation, overlap of the windows.
        labels: Class names, the background first.
        hardware: Where to compute.
    """

    def __init__(
        self,
        *,
        training: Sequence[PreparedCase],
        validation: Sequence[PreparedCase],
        config: SegmentationConfig,
        labels: Sequence[str],
        hardware: Hardware,
    ) -> None:
        from monai.losses.dice import DiceCELoss

        self.patch_size = require_patch_size(config)
        self.dataset = LabelledPatches(training, config)
        self.validation, self.config, self.labels, self.hardware = validation, config, labels, hardware
        # Dice over the whole batch: a small structure is absent from many sub-volumes.
        self.criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return Dice plus cross-entropy of images [b, 1, *patch] and labels of the same shape."""
        image, label = batch
        logits = network(self.hardware.place(image))
        return self.criterion(logits.float(), label.to(self.hardware.device))

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean Dice of each structure over the validation patients, and their mean."""
        if not self.validation:
            return {}
        rows = [self.measure(network, case) for case in self.validation]
        return summarize(rows, self.labels)

    def measure(self, network: nn.Module, case: PreparedCase) -> list[float]:
        """Return the Dice of each structure in a whole scan."""
        image = torch.from_numpy(case.image)
        logits = sliding_window(
            network,
            image,
            patch_size=self.patch_size,
            overlap=self.config.overlap,
            hardware=self.hardware,
        )
        return dice_per_class(logits.argmax(dim=0).numpy(), require_label(case), len(self.labels))

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative mean Dice; where it is undefined every network is as good, and the newest is kept."""
        dice = metrics.get("dice", math.nan)
        return -math.inf if math.isnan(dice) else -dice


def summarize(rows: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, float]:
    """Return the mean over patients of each structure's Dice, and `dice`, the mean over the structures."""
    means = [mean_ignoring_nan([row[index] for row in rows]) for index in range(len(labels) - 1)]
    return {
        "dice": mean_ignoring_nan(means),
        **{f"dice {n}": m for n, m in zip(labels[1:], means, strict=True)},
    }


def finetune_network(
    *,
    network: nn.Module,
    config: SegmentationConfig,
    contract: InputContract,
    data: LabelledData,
    split: Split,
    output: str | Path,
    hardware: Hardware,
    reporter: Reporter,
    init: str | None = None,
    resume: bool = False,
    strict: bool = False,
) -> dict[str, float]:
    """Train a segmentation network, keep the best on the validation patients, measure it on the test patients.

    Args:
        network: Trained in place; [b, 1, *patch] to logits [b, classes, *patch].
        config: Budget, optimiser, patch, augmentation.
        contract: How the scans are prepared.
        data: Labelled scans.
        split: Which are for what.
        output: The run's folder; gets the bundle and `test.csv`.
        hardware: Where to compute.
        reporter: Is told the progress.
        init: What the network started from, for the provenance.
        resume: Go on with the run in `output`.
        strict: A bad case ends the run instead of being left out.

    Returns:
        Dice on the test patients: `dice` and `dice <structure>`; empty without test patients.

    Raises:
        DataError: No usable case in a part of the split.
        TrainingError: The folder holds a run, or training failed.
    """
    check_split(split, data)
    parts = _prepare(split, data, contract, strict, reporter)
    if config.patch_size is None:
        shapes = [case.image.shape[1:] for case in parts["training"]]
        config = config.override(patch_size=choose_patch_size(shapes))
        reporter.note(f"patch of {' × '.join(map(str, require_patch_size(config)))} voxels, by the median scan")
    shape = network_config(network)
    if isinstance(shape, ClassifierConfig) or shape.dims != len(require_patch_size(config)):
        raise ConfigurationError(
            f"patch_size: {require_patch_size(config)} does not fit the network {shape.kind}; expected a segmentation "
            "network of as many dimensions as the patch has sides"
        )
    asked = {"kind": "finetuning", "config": config.to_dict(), "init": init, "split": asdict(split)}
    run = Run.resume(output, asked) if resume else Run.create(output, asked)
    try:
        if config.freeze_encoder:
            network.encoder.requires_grad_(False)  # pyright: ignore[reportCallIssue]
        objective = Segmentation(
            training=parts["training"],
            validation=parts["validation"],
            config=config,
            labels=data.labels,
            hardware=hardware,
        )
        provenance = Provenance(
            origin="finetuned",
            library_version=__version__,
            init=init,
            recipe=config.to_dict(),
            data={
                "name": data.name,
                **{f"{part}_patients": len(cases) for part, cases in parts.items()},
                "modality": contract.modality,
            },
            environment=describe_environment(hardware),
        )
        bundle = BundleConfig(
            task="segmentation",
            network=shape,
            input=contract,
            labels=data.labels,
            patch_size=require_patch_size(config),
            provenance=provenance,
        )

        def keep(network: nn.Module, progress: Progress) -> None:
            results = _validated(progress, objective)
            save_run_bundle(run, network, _with_results(bundle, results))

        trainer = Trainer(
            network=network,
            objective=objective,
            config=config,
            run=run,
            hardware=hardware,
            reporter=reporter,
            keep=keep,
        )
        if resume:
            trainer.resume()
        progress = trainer.fit()
        return _finish(run, objective, parts["test"], progress, hardware, reporter)
    finally:
        run.close()


def _validated(progress: Progress, objective: Segmentation) -> dict[str, Any]:
    """Return what the best validation measured, on how many patients and by which seed."""
    if not progress.metrics:
        return {"step": progress.best_step}
    rests_on = {"patients": len(objective.validation), "seed": objective.config.seed}
    return {"validation": {**progress.metrics, **rests_on}, "step": progress.best_step}


def _with_results(config: BundleConfig, results: Mapping[str, Any]) -> BundleConfig:
    return replace(config, provenance=replace(config.provenance, results=dict(results)))


def _finish(
    run: Run,
    objective: Segmentation,
    test: Sequence[PreparedCase],
    progress: Progress,
    hardware: Hardware,
    reporter: Reporter,
) -> dict[str, float]:
    """Measure the kept network on the test patients; write `test.csv`, the curve, and the results on the card."""
    from modelsgenesis.figures import draw_curve

    bundle = load_bundle(run.folder)
    network = hardware.place_network(bundle.network).eval()
    rows = {case.name: objective.measure(network, case) for case in test}
    with (run.folder / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *(f"dice {name}" for name in objective.labels[1:])])
        writer.writerows([name, *row] for name, row in rows.items())
    measured = summarize(list(rows.values()), objective.labels) if rows else {}
    results = _validated(progress, objective)
    if measured:
        results = {"test": {**measured, "patients": len(rows), "seed": objective.config.seed}, **results}
    figures = {}
    try:
        draw_curve(run.folder / "log.csv", run.folder / "validation.csv", run.folder / "figures" / "curve.png")
        figures = {"Loss in training, Dice in validation": "figures/curve.png"}
    except MissingExtraError as error:
        reporter.note(f"no figures: {error}")
    save_run_bundle(run, bundle.network, _with_results(bundle.config, results), figures)
    return measured
