"""What supervised training adds to the loop: samples, loss and validation of a segmentation and a classification."""

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
    require_label,
    resize_or_crop,
)
from modelsgenesis.errors import DataError, MissingExtraError
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.sliding_window import sliding_window
from modelsgenesis.metrics.classification import auc, chosen_classes
from modelsgenesis.metrics.segmentation import dice_per_class
from modelsgenesis.metrics.summary import mean_ignoring_nan
from modelsgenesis.training.trainer import Objective


class SupervisedObjective(Objective):
    """Learns from labels.

    Args:
        training: Cases to learn from.
        validation: Cases that decide which network is kept; without any the last one is.
        config: Budget, patch, augmentation.
        data: The data set, whose classes are learnt.
        hardware: Where to compute.
        frozen: Part of the network that stays as it is: no gradient, and batch norms as in evaluation.

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
        hardware: Hardware,
        frozen: nn.Module | None = None,
    ) -> None:
        self.patch_size = require_patch_size(config)
        self.validation, self.config, self.hardware = validation, config, hardware
        self.labels, self.multilabel, self.frozen = data.labels, data.multilabel, frozen
        self.notes: list[str] = []
        # Without gradients neither memory nor time goes into the frozen part.
        if frozen is not None:
            frozen.requires_grad_(False)
        self.prepare(training)

    @abstractmethod
    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training samples, `dataset`, and whatever else follows from the training cases."""

    @abstractmethod
    def criterion(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of float32 logits."""

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the loss of images [b, c, *patch] and what holds for them, as the dataset yields it."""
        image, truth = batch
        if self.frozen is not None:
            self.frozen.eval()  # the loop put it into training mode with the rest
        return self.criterion(network(self.hardware.place(image)).float(), truth.to(self.hardware.device))


class Segmentation(SupervisedObjective):
    """Segment patches under Dice and cross-entropy."""

    config: SegmentationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training patches; refuse masks without a single labelled voxel."""
        from monai.losses.dice import DiceCELoss

        held = {case.name: set(np.unique(require_label(case)).tolist()) - {0} for case in training}
        empty = sorted(name for name, values in held.items() if not values)
        if len(empty) == len(held):
            raise DataError(f"none of {len(held)} training masks has a labelled voxel; there is nothing to learn")
        if empty:
            share = f"{len(empty)} of {len(held)} training masks are empty"
            self.notes.append(f"{share}, such as {empty[0]}: learnt as all background")
        absent = set(range(1, len(self.labels))).difference(*held.values())
        if absent:
            names = ", ".join(self.labels[index] for index in sorted(absent))
            self.notes.append(f"no training mask has {names}: the network cannot learn it")
        self.dataset = LabelledPatches(training, self.config)
        self.notes += self.dataset.notes()
        if find_spec("scipy") is None:
            self.notes.append(str(MissingExtraError("the Hausdorff distance", "report")))
        # Dice over the whole batch: a small structure is absent from many patches, where its Dice would be 0 or 1.
        self._dice_and_entropy = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def criterion(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return Dice plus cross-entropy of logits [b, classes, *patch] and labels [b, 1, *patch]."""
        return self._dice_and_entropy(logits, truth)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean Dice of each structure over the validation cases, and their mean: `dice`.

        It only ranks the networks of one run, and so stays on the prepared grid: the way back to each scan's own could
        take as long as the network. What is reported at the end is measured there, by `measure_case`.
        """
        if not self.validation:
            return {}
        config, rows = PredictionConfig(overlap=self.config.overlap), []
        for case in self.validation:
            image = torch.from_numpy(case.image)
            logits = sliding_window(network, image, patch_size=self.patch_size, config=config, hardware=self.hardware)
            rows.append(dice_per_class(logits.argmax(dim=0).numpy(), require_label(case), len(self.labels)))
        # The mean over cases first, then over structures: a rare structure counts as much as one in every scan.
        means = [mean_ignoring_nan(column) for column in zip(*rows, strict=True)]
        each = {f"dice {name}": mean for name, mean in zip(self.labels[1:], means, strict=True)}
        return {"dice": mean_ignoring_nan(means), **each}

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative mean Dice; where it is undefined every network is as good, and the newest is kept."""
        dice = metrics.get("dice", math.nan)
        return -math.inf if math.isnan(dice) else -dice


class Classification(SupervisedObjective):
    """Classify whole images under cross-entropy: exclusive classes, or each label by itself."""

    config: ClassificationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training images; refuse a class without a training example."""
        known = {index for case in training for index in case.classes}
        absent = [name for index, name in enumerate(self.labels) if index not in known]
        if absent:
            raise DataError(
                f"no training example of {', '.join(map(repr, absent))}: take more labels or another split_seed, leave "
                "the class out, or tell its patients apart with --patient"
            )
        options: dict[str, Any] = {"classes": len(self.labels), "multilabel": self.multilabel}
        self.dataset = LabelledImages(training, self.config, **options)
        self.weights = class_weights(training, **options) if self.config.class_weights else None
        if self.weights is not None:
            each = zip(self.labels, self.weights.tolist(), strict=True)
            self.notes.append("weights of the classes: " + ", ".join(f"{name} {weight:.3g}" for name, weight in each))
        self.truth = self._truth(self.validation)
        ranked = np.flatnonzero(self.truth.any(axis=0) & ~self.truth.all(axis=0)).tolist()
        # With two exclusive classes, the AUC of one is that of the other.
        self.ranked: list[int] = [1] if len(ranked) == len(self.labels) == 2 and not self.multilabel else ranked
        if len(self.validation) and not ranked:
            self.notes.append(
                f"all {len(self.validation)} validation cases are of one class, so their AUC is undefined: their loss "
                "decides which network is kept"
            )

    def _truth(self, cases: Sequence[PreparedCase]) -> np.ndarray:
        """Return which classes hold for each case, booleans [cases, classes]."""
        held = [[index in case.classes for index in range(len(self.labels))] for case in cases]
        return np.array(held, dtype=bool).reshape(len(cases), len(self.labels))  # also without cases

    def criterion(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the cross-entropy of logits [b, classes] and what holds.

        That is [b] of class indices, or with `multilabel` [b, classes] of 0 and 1.
        """
        # Validation computes its loss on the CPU, training on the device.
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.multilabel:
            return functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights)
        return functional.cross_entropy(logits, truth, weight=weights)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean AUC of the classes over the validation cases, their loss, and the accuracy."""
        if not self.validation:
            return {}
        found, size = [], self.config.batch_size
        for start in range(0, len(self.validation), size):
            batch = self.validation[start : start + size]
            image = np.stack([resize_or_crop(case.image, self.patch_size, self.config.fit) for case in batch])
            with self.hardware.autocast():
                found.append(network(self.hardware.place(torch.from_numpy(image))).float().cpu())
        logits, truth = torch.cat(found), self.truth
        soft = (logits.sigmoid() if self.multilabel else logits.softmax(dim=1)).numpy()
        target = truth.astype(np.float32) if self.multilabel else truth.argmax(axis=1)
        right = chosen_classes(soft, multilabel=self.multilabel) == truth
        each = [auc(soft[:, index], truth[:, index]) for index in self.ranked]
        metrics = {"auc": mean_ignoring_nan(each)} if each else {}  # what decides comes first
        metrics["loss"] = float(self.criterion(logits, torch.from_numpy(target)))
        return {**metrics, "accuracy": float(right.mean() if self.multilabel else right.all(axis=1).mean())}

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative AUC; where it is undefined the loss; without validation the newest network is kept."""
        return -metrics["auc"] if "auc" in metrics else metrics.get("loss", -math.inf)


def make_objective(data: LabelledData, **options: Any) -> SupervisedObjective:
    """Return the objective of a data set's task; arguments and errors as of `SupervisedObjective`."""
    return (Classification if data.task == "classification" else Segmentation)(data=data, **options)
