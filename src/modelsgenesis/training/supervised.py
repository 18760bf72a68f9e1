"""What supervised training adds to the loop: loss, validation and measuring of a segmentation and a classification."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modelsgenesis.configs import (
    ClassificationConfig,
    FinetuningConfig,
    InputContract,
    PredictionConfig,
    SegmentationConfig,
    require_patch_size,
)
from modelsgenesis.data import (
    LabelledData,
    LabelledImages,
    LabelledPatches,
    PreparedCase,
    class_weights,
    prepare_label,
    require_label,
    resize_or_crop,
)
from modelsgenesis.errors import DataError, MissingExtraError
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.ensemble import SoftAnswer, native_labels
from modelsgenesis.inference.measuring import measure_classes, measure_labels
from modelsgenesis.inference.sliding_window import segment, sliding_window
from modelsgenesis.metrics.classification import auc, chosen_classes
from modelsgenesis.metrics.segmentation import dice_per_class, mean_ignoring_nan
from modelsgenesis.training.trainer import Objective

Row = dict[str, Any]
"""What was measured of a case: a line of `test.csv`, `case` and `patient` first."""


class SupervisedObjective(Objective):
    """Learns from labels.

    Args:
        training: Cases to learn from.
        validation: Cases that decide which network is kept; without any the last one is.
        config: Budget, patch, augmentation.
        data: The data set, whose classes are learnt.
        contract: How its images were prepared.
        hardware: Where to compute.

    Attributes:
        notes: What a person should know of the labels before training.

    Raises:
        DataError: There is nothing to learn.
    """

    def __init__(
        self,
        *,
        training: Sequence[PreparedCase],
        validation: Sequence[PreparedCase],
        config: FinetuningConfig,
        data: LabelledData,
        contract: InputContract,
        hardware: Hardware,
    ) -> None:
        self.patch_size = require_patch_size(config)
        self.validation, self.config, self.hardware = validation, config, hardware
        self.data, self.contract = data, contract
        self.listed = {case.name: case for case in data.cases}
        self.notes: list[str] = []
        self._frozen: nn.Module | None = None
        self.prepare(training)

    @abstractmethod
    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training samples, `dataset`, and whatever else follows from the training cases."""

    @abstractmethod
    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Measure a network, in evaluation mode, on cases: one row each, as `evaluate` measures it."""

    def freeze(self, part: nn.Module) -> None:
        """Keep a part of the network as it is: no gradient, and batch norms as in evaluation."""
        part.requires_grad_(False)
        self._frozen = part

    def hold_frozen(self) -> None:
        """Put the frozen part back into evaluation mode, which the loop left; call it before the network."""
        if self._frozen is not None:
            self._frozen.eval()


class Segmentation(SupervisedObjective):
    """Segment patches under Dice and cross-entropy."""

    config: SegmentationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training patches; refuse masks without a single labelled voxel."""
        from monai.losses.dice import DiceCELoss

        self.dataset = LabelledPatches(training, self.config)
        self.notes = [*self._describe_masks(training), *self.dataset.notes()]
        if find_spec("scipy") is None:
            self.notes.append(str(MissingExtraError("the Hausdorff distance", "report")))
        # Dice over the whole batch: a small structure is absent from many patches, where its Dice would be 0 or 1.
        self.criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def _describe_masks(self, training: Sequence[PreparedCase]) -> list[str]:
        """Tell which masks are empty and which structures have no example."""
        held = {case.name: set(np.unique(require_label(case)).tolist()) - {0} for case in training}
        empty = sorted(name for name, values in held.items() if not values)
        if training and len(empty) == len(held):
            raise DataError(f"none of {len(held)} training masks has a labelled voxel; there is nothing to learn")
        notes = []
        if empty:
            share = f"{len(empty)} of {len(held)} training masks are empty"
            notes.append(f"{share}, such as {empty[0]}: learnt as all background")
        found = set().union(*held.values())
        absent = [name for index, name in enumerate(self.data.labels) if index and index not in found]
        if absent:
            notes.append(f"no training mask has {', '.join(absent)}: the network cannot learn it")
        return notes

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return Dice plus cross-entropy of images [b, c, *patch] and labels [b, 1, *patch]."""
        image, label = batch
        self.hold_frozen()
        logits = network(self.hardware.place(image))
        return self.criterion(logits.float(), label.to(self.hardware.device))

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean Dice of each structure over the validation cases, and their mean: `dice`.

        It only ranks networks of one run, so it stays on the prepared grid: the way back to each scan's own would take
        as long as the network. What is reported at the end is measured by `measure`.
        """
        if not self.validation:
            return {}
        rows = []
        for case in self.validation:
            options: dict[str, Any] = {"patch_size": self.patch_size, "overlap": self.config.overlap}
            logits = sliding_window(network, torch.from_numpy(case.image), hardware=self.hardware, **options)
            labels = logits.argmax(dim=0).numpy()
            rows.append(dice_per_class(labels, require_label(case), len(self.data.labels)))
        means = [mean_ignoring_nan(column) for column in zip(*rows, strict=True)]
        each = {f"dice {name}": mean for name, mean in zip(self.data.labels[1:], means, strict=True)}
        return {"dice": mean_ignoring_nan(means), **each}

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative mean Dice; where it is undefined every network is as good, and the newest is kept."""
        dice = metrics.get("dice", math.nan)
        return -math.inf if math.isnan(dice) else -dice

    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Return Dice, IoU and the 95% Hausdorff distance (mm) of each structure on each scan's own grid."""
        rows, hardware = [], self.hardware.for_results()
        options: dict[str, Any] = {
            "patch_size": self.patch_size,
            "config": PredictionConfig(overlap=self.config.overlap),
        }
        for case in cases:
            if case.scan is None:
                raise DataError(f"{case.name}: its scan is not known, on whose grid it is to be measured")
            soft = segment(network, torch.from_numpy(case.image), hardware=hardware, **options)
            frame = prepare_label(case.scan, self.contract)  # has no voxels, but knows the way back
            labels = native_labels([SoftAnswer(probabilities=soft.numpy(), prepared=frame)])
            rows.append(measure_labels(self.listed[case.name], self.data, labels, case.scan)[0])
        return rows


class Classification(SupervisedObjective):
    """Classify whole images under cross-entropy: exclusive classes, or each label by itself."""

    config: ClassificationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training images; refuse a class without a training example."""
        labels = self.data.labels
        absent = [
            name for name, held in zip(labels, true_classes(training, len(labels)).any(axis=0), strict=True) if not held
        ]
        if absent:
            raise DataError(
                f"no training example of {', '.join(map(repr, absent))}: take more labels, another split_seed, or "
                "leave the class out"
            )
        options: dict[str, Any] = {"classes": len(labels), "multilabel": self.data.multilabel}
        self.dataset = LabelledImages(training, self.config, **options)
        self.weights = class_weights(training, **options) if self.config.class_weights else None
        self.truth = true_classes(self.validation, len(labels))
        if self.weights is not None:
            each = zip(labels, self.weights.tolist(), strict=True)
            self.notes.append("weights of the classes: " + ", ".join(f"{name} {weight:.3g}" for name, weight in each))
        if len(self.validation) and not self._ranked():
            self.notes.append(
                f"all {len(self.validation)} validation cases are of one class, so their AUC is undefined: their loss "
                "decides which network is kept"
            )

    def _ranked(self) -> list[int]:
        """Return the classes whose AUC is defined on the validation cases."""
        # With two exclusive classes, the AUC of one is that of the other.
        first = 1 if len(self.data.labels) == 2 and not self.data.multilabel else 0
        both = self.truth.any(axis=0) & ~self.truth.all(axis=0)
        return [index for index in range(first, len(both)) if both[index]]

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy of images [b, c, *patch] and what holds for them.

        That is [b] of class indices, or with `multilabel` [b, classes] of 0 and 1.
        """
        image, truth = batch
        self.hold_frozen()
        return self._criterion(network(self.hardware.place(image)).float(), truth.to(self.hardware.device))

    def _criterion(self, logits: Tensor, truth: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.data.multilabel:
            return functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights)
        return functional.cross_entropy(logits, truth, weight=weights)

    def logits(self, network: nn.Module, cases: Sequence[PreparedCase], hardware: Hardware) -> Tensor:
        """Return the logits of cases, float32 [cases, classes] on the CPU."""
        found = []
        with torch.no_grad():
            for start in range(0, len(cases), self.config.batch_size):
                batch = cases[start : start + self.config.batch_size]
                images = [resize_or_crop(case.image, self.patch_size, self.config.fit) for case in batch]
                with hardware.autocast():
                    found.append(network(hardware.place(torch.from_numpy(np.stack(images)))).float().cpu())
        return torch.cat(found)

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Return logits as probabilities: over the classes, or of each label by itself."""
        return (torch.sigmoid(logits) if self.data.multilabel else torch.softmax(logits, dim=1)).numpy()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean AUC of the classes over the validation cases, their loss, and the accuracy."""
        if not self.validation:
            return {}
        logits, truth, multilabel = (
            self.logits(network, self.validation, self.hardware),
            self.truth,
            self.data.multilabel,
        )
        target = truth.astype(np.float32) if multilabel else truth.argmax(axis=1)
        metrics: dict[str, float] = {}
        probabilities = self.probabilities(logits)
        if ranked := self._ranked():
            metrics["auc"] = mean_ignoring_nan([auc(probabilities[:, index], truth[:, index]) for index in ranked])
        loss = float(self._criterion(logits, torch.from_numpy(target)))
        right = chosen_classes(probabilities, multilabel=multilabel) == truth
        accuracy = float(right.mean() if multilabel else right.all(axis=1).mean())
        return {**metrics, "loss": loss, "accuracy": accuracy}  # what decides comes first

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative AUC; where it is undefined the loss; without validation the newest network is kept."""
        return -metrics["auc"] if "auc" in metrics else metrics.get("loss", -math.inf)

    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Return what holds for each case, what the network takes for likeliest, and the probabilities."""
        if not cases:
            return []
        probabilities = self.probabilities(self.logits(network, cases, self.hardware.for_results()))
        pairs = zip(cases, probabilities, strict=True)
        return [measure_classes(self.listed[case.name], self.data, soft)[0] for case, soft in pairs]


def make_objective(
    config: FinetuningConfig,
    data: LabelledData,
    contract: InputContract,
    *,
    training: Sequence[PreparedCase],
    validation: Sequence[PreparedCase],
    hardware: Hardware,
) -> SupervisedObjective:
    """Return the objective of a data set's task; arguments and errors as of `SupervisedObjective`."""
    kind = Classification if data.task == "classification" else Segmentation
    return kind(
        training=training, validation=validation, config=config, data=data, contract=contract, hardware=hardware
    )


def true_classes(cases: Sequence[PreparedCase], classes: int) -> np.ndarray:
    """Return which classes hold for each case, booleans [cases, classes]."""
    held = [[index in case.classes for index in range(classes)] for case in cases]
    return np.array(held, dtype=bool).reshape(len(cases), classes)  # also without cases
