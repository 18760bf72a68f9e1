"""Supervised training of a segmentation network on sub-volumes."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from modelsgenesis.configs import PredictionConfig, SegmentationConfig
from modelsgenesis.data import LabelledPatches, PreparedCase, require_label
from modelsgenesis.errors import DataError, MissingExtraError
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.sliding_window import sliding_window
from modelsgenesis.metrics.segmentation import dice_per_class, measure_segmentation
from modelsgenesis.metrics.summary import mean_ignoring_nan
from modelsgenesis.training.supervised import Row, SupervisedObjective


class Segmentation(SupervisedObjective):
    """Segment sub-volumes under Dice and cross-entropy."""

    config: SegmentationConfig

    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training patches; refuse masks of which none has a labelled voxel."""
        from monai.losses.dice import DiceCELoss

        masks = _describe_masks(training, self.labels)
        self.dataset = LabelledPatches(training, self.config)
        self._notes = [*masks, *self.dataset.notes()]
        if find_spec("scipy") is None:
            self._notes.append(str(MissingExtraError("the Hausdorff distance", "report")))
        # Dice over the whole batch: a small structure is absent from many sub-volumes.
        self.criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def notes(self) -> list[str]:
        """Return which masks are empty, which structures have no example, and how many scans are padded."""
        return self._notes

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return Dice plus cross-entropy of images [b, c, *patch] and labels [b, 1, *patch]."""
        image, label = batch
        self.hold_frozen()
        logits = network(self.hardware.place(image))
        return self.criterion(logits.float(), label.to(self.hardware.device))

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean Dice of each structure over the validation cases, and their mean: `dice`."""
        if not self.validation:
            return {}
        rows = [
            dice_per_class(self.segment(network, case, self.hardware), require_label(case), len(self.labels))
            for case in self.validation
        ]
        means = [mean_ignoring_nan(column) for column in zip(*rows, strict=True)]
        each = {f"dice {name}": mean for name, mean in zip(self.labels[1:], means, strict=True)}
        return {"dice": mean_ignoring_nan(means), **each}

    def score(self, metrics: dict[str, float]) -> float:
        """Return the negative mean Dice; where it is undefined every network is as good, and the newest is kept."""
        dice = metrics.get("dice", math.nan)
        return -math.inf if math.isnan(dice) else -dice

    def segment(self, network: nn.Module, case: PreparedCase, hardware: Hardware) -> Any:
        """Return the class indices of a whole scan, NumPy [*spatial]."""
        logits = sliding_window(
            network,
            torch.from_numpy(case.image),
            patch_size=self.patch_size,
            config=PredictionConfig(overlap=self.config.overlap),
            hardware=hardware,
        )
        return logits.argmax(dim=0).numpy()

    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Return Dice, IoU and the 95% Hausdorff distance (mm) of each structure in each case.

        A case without its volumes has lost its voxel size, and gets no distance.
        """
        rows: list[Row] = []
        for case in cases:
            spacing = case.volumes[0].spacing if case.volumes else None
            labels = self.segment(network, case, self.hardware.for_results())
            measured = measure_segmentation(labels, require_label(case), self.labels, spacing)
            rows.append({"case": case.name, "patient": case.patient, **measured})
        return rows


def _describe_masks(training: Sequence[PreparedCase], labels: Sequence[str]) -> list[str]:
    """Say which masks are empty and which structures have no example.

    Raises:
        DataError: All masks are empty.
    """
    held = {case.name: set(torch.from_numpy(require_label(case)).unique().tolist()) - {0} for case in training}
    empty = sorted(name for name, values in held.items() if not values)
    if training and len(empty) == len(held):
        raise DataError(f"none of {len(held)} training masks has a labelled voxel; there is nothing to learn")
    notes = []
    if empty:
        notes.append(
            f"{len(empty)} of {len(held)} training masks are empty, such as {empty[0]}: learnt as all background"
        )
    found = set().union(*held.values())
    absent = [name for index, name in enumerate(labels) if index and index not in found]
    if absent:
        notes.append(f"no training mask has {', '.join(absent)}: the network cannot learn it")
    return notes
