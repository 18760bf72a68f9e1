"""Supervised training of a classification network on whole images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig
from modelsgenesis.data import LabelledImages, PreparedCase, class_weights, resize_or_crop
from modelsgenesis.errors import DataError
from modelsgenesis.hardware import Hardware
from modelsgenesis.metrics.classification import CLASS_SEPARATOR, auc, chosen_classes, classification_row
from modelsgenesis.metrics.segmentation import mean_ignoring_nan
from modelsgenesis.metrics.summary import Summary, summarize_classification
from modelsgenesis.training.supervised import Row, SupervisedObjective


class Classification(SupervisedObjective):
    """Classify whole images under cross-entropy: of exclusive classes, or of each label by itself."""

    config: ClassificationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training images; refuse a class without a training example."""
        truth = true_classes(training, len(self.labels))
        absent = [name for name, held in zip(self.labels, np.any(truth, axis=0), strict=True) if not held]
        if absent:
            raise DataError(
                f"no training example of {', '.join(map(repr, absent))}: take more labels, another split_seed, or "
                "leave the class out"
            )
        options: dict[str, Any] = {"classes": len(self.labels), "multilabel": self.multilabel}
        self.dataset = LabelledImages(training, self.config, **options)
        self.weights = class_weights(training, **options) if self.config.class_weights else None
        self.validation_truth = true_classes(self.validation, len(self.labels))

    def notes(self) -> list[str]:
        """Return the weights of the classes, and by what the network is kept where it is not the AUC."""
        notes = []
        if self.weights is not None:
            each = zip(self.labels, self.weights.tolist(), strict=True)
            notes.append("weights of the classes: " + ", ".join(f"{name} {weight:.3g}" for name, weight in each))
        if len(self.validation) and not self._ranked():
            notes.append(
                f"all {len(self.validation)} validation cases are of one class, so their AUC is undefined: their loss "
                "decides which network is kept"
            )
        return notes

    def _ranked(self) -> list[int]:
        """Return the classes whose AUC is defined on the validation cases."""
        columns = self.validation_truth.T
        first = 1 if len(self.labels) == 2 and not self.multilabel else 0  # of two exclusive classes one says all
        return [index for index in range(first, len(columns)) if columns[index].any() and not columns[index].all()]

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy of images [b, c, *patch] and what holds for them.

        That is [b] of class indices, or with `multilabel` [b, classes] of 0 and 1.
        """
        image, truth = batch
        self.hold_frozen()
        return self._criterion(network(self.hardware.place(image)).float(), truth.to(self.hardware.device))

    def _criterion(self, logits: Tensor, truth: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.multilabel:
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
        return (torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)).numpy()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean AUC of the classes over the validation cases, their loss, and the accuracy."""
        if not self.validation:
            return {}
        logits, truth = self.logits(network, self.validation, self.hardware), self.validation_truth
        target = truth.astype(np.float32) if self.multilabel else truth.argmax(axis=1)
        metrics: dict[str, float] = {}
        probabilities = self.probabilities(logits)
        if ranked := self._ranked():
            metrics["auc"] = mean_ignoring_nan([auc(probabilities[:, index], truth[:, index]) for index in ranked])
        loss = float(self._criterion(logits, torch.from_numpy(target)))
        right = chosen_classes(probabilities, multilabel=self.multilabel) == truth
        accuracy = float(right.mean() if self.multilabel else right.all(axis=1).mean())
        return {**metrics, "loss": loss, "accuracy": accuracy}  # what decides comes first

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative AUC; where it is undefined the loss; without validation the newest network is kept."""
        return -metrics["auc"] if "auc" in metrics else metrics.get("loss", -math.inf)

    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Return what holds for each case, what the network takes for likeliest, and the probabilities."""
        if not cases:
            return []
        probabilities = self.probabilities(self.logits(network, cases, self.hardware.for_results()))
        return [
            {
                "case": case.name,
                "patient": case.patient,
                **classification_row(case.classes, row, self.labels, multilabel=self.multilabel),
            }
            for case, row in zip(cases, probabilities, strict=True)
        ]


def summarize_classification_rows(
    rows: Sequence[Row], labels: Sequence[str], config: FinetuningConfig, *, multilabel: bool
) -> Summary:
    """Return each metric of rows of `Classification.measure` with its interval over the patients.

    Rows of several folds say in `fold` which, and are ranked within each.
    """
    held = [row["class"].split(CLASS_SEPARATOR) for row in rows]
    return summarize_classification(
        np.array([[row[f"probability {name}"] for name in labels] for row in rows]),
        np.array([[name in names for name in labels] for names in held]),
        labels,
        [row["patient"] for row in rows],
        multilabel=multilabel,
        specificity=config.specificity if isinstance(config, ClassificationConfig) else 0.9,
        groups=[int(row.get("fold", 0)) for row in rows],
        resamples=config.bootstrap,
        seed=config.split_seed,
    )


def true_classes(cases: Sequence[PreparedCase], classes: int) -> np.ndarray:
    """Return which classes hold for each case, booleans [cases, classes]."""
    truth = np.zeros((len(cases), classes), dtype=bool)
    for row, case in zip(truth, cases, strict=True):
        row[list(case.classes)] = True
    return truth
