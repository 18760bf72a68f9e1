"""The objective of pretraining: restore sub-volumes from their deformed selves, and notice when it does not."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from modelsgenesis.configs import PretrainingConfig
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.trainer import Objective

_MEAN_IMAGE_SAMPLES = 128
_VALIDATION_SEED = 1_000_003  # apart from every seed of training
_COLLAPSED = 0.02


class _Numbered(Dataset[tuple[Tensor, int]]):
    """Sub-volumes with their item, from which the deformation's seed follows."""

    def __init__(self, subvolumes: Dataset[Tensor]) -> None:
        self.subvolumes = subvolumes

    def __len__(self) -> int:
        return len(self.subvolumes)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.subvolumes[item], item


@dataclass(frozen=True)
class FixedPairs:
    """Sub-volumes and deformations that are the same at every validation.

    Attributes:
        deformed: What the network sees, [n, c, *patch].
        original: What it should restore.
        baselines: Losses of two maps that learn nothing: `identity_loss` of returning the deformed input,
            `mean_image_loss` of always returning the mean of the training sub-volumes.
    """

    deformed: Tensor
    original: Tensor
    baselines: dict[str, float]


def spread_items(count: int, dataset: Dataset[Tensor]) -> list[int]:
    """Return `count` items, of every scan in turn, so that a few samples already show all of the scans.

    Example:
        >>> from argparse import Namespace
        >>> class Scans(Namespace):
        ...     def __len__(self):
        ...         return 6
        >>> spread_items(8, Scans(per_scan=2))  # three scans of two samples; then the next epoch
        [0, 2, 4, 1, 3, 5, 6, 8]
    """
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    per_scan = getattr(dataset, "per_scan", 1)
    scans = size // per_scan
    turns = (divmod(number, scans) for number in range(count))
    return [turn // per_scan * size + scan * per_scan + turn % per_scan for turn, scan in turns]


def fix_pairs(
    deformation: Deformation, validation: Dataset[Tensor], training: Dataset[Tensor], count: int
) -> FixedPairs:
    """Draw and deform `count` validation sub-volumes once, of every scan in turn, and measure the baselines on them."""
    original = torch.stack([validation[item] for item in spread_items(count, validation)])
    seeds = torch.arange(count, dtype=torch.int64) + _VALIDATION_SEED
    deformed, original = deformation(original, seeds)
    samples = min(_MEAN_IMAGE_SAMPLES, 4 * len(training))  # pyright: ignore[reportArgumentType]
    mean_image = torch.stack([training[item] for item in spread_items(samples, training)]).mean(dim=0)
    baselines = {
        "identity_loss": functional.mse_loss(deformed, original).item(),
        "mean_image_loss": functional.mse_loss(mean_image.expand_as(original), original).item(),
    }
    return FixedPairs(deformed, original, baselines)


class Restoration(Objective):
    """Restore sub-volumes under a squared error.

    Args:
        subvolumes: Training sub-volumes in [0, 1].
        validation: Fixed pairs.
        deformation: The four deformations; they run on the hardware's device.
        config: Batch size and seed.
        hardware: Where to compute.
        reporter: Is told of a collapse.

    Attributes:
        restored: What the last validation restored, [n, c, *patch]; None before the first.
        collapsed: Whether the last validation found the output to depend hardly on the input.

    References:
        Zhou et al. 2021, section 2: the encoder-decoder restores the original under an L2 loss.
    """

    def __init__(
        self,
        subvolumes: Dataset[Tensor],
        validation: FixedPairs,
        deformation: Deformation,
        config: PretrainingConfig,
        hardware: Hardware,
        reporter: Reporter,
    ) -> None:
        self.dataset = _Numbered(subvolumes)
        self.validation, self.deformation = validation, deformation
        self.config, self.hardware, self.reporter = config, hardware, reporter
        self.restored: Tensor | None = None
        self.collapsed = False
        if validation.baselines["identity_loss"] == 0:
            reporter.note(
                "nothing is deformed in the sub-volumes of validation: this trains an autoencoder; where that is not "
                "meant, choose another scheme, or for shuffling a patch with sides of 20 voxels or more"
            )

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Deform [b, c, *patch] on the device and return the mean squared error of the restoration."""
        original, items = batch
        seeds = items.to(torch.int64) + (self.config.seed + 2) * 2**40
        deformed, original = self.deformation(self.hardware.place(original), seeds)
        restored = network(self.hardware.place(deformed))
        return functional.mse_loss(restored.float(), original)

    def restore(self, network: nn.Module) -> Tensor:
        """Return the restorations of the fixed pairs, [n, c, *patch] on the CPU."""
        batches = self.validation.deformed.split(self.config.batch_size)
        with torch.no_grad(), self.hardware.autocast():
            return torch.cat([network(self.hardware.place(deformed)).float().cpu() for deformed in batches])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the restoration loss beside the losses of maps that learn nothing, and whether it collapsed."""
        restored, original = self.restore(network), self.validation.original
        self.restored = restored
        # A collapsed network gives the same image whatever it sees: compare voxel by voxel between samples.
        spread = _spread(restored) / max(_spread(original), 1e-12)
        collapsed = len(original) > 1 and spread < _COLLAPSED
        self._tell(collapsed, spread)
        loss = functional.mse_loss(restored, original).item()
        return {
            "restoration_loss": loss,
            **self.validation.baselines,
            "output_spread": spread,
            "collapsed": float(collapsed),
        }

    def _tell(self, collapsed: bool, spread: float) -> None:
        """Name a collapse when it comes, and when it is over."""
        if collapsed and not self.collapsed:
            self.reporter.note(
                f"collapse: the output hardly depends on the input (spread {spread:.4f} of the originals'); "
                "lower the learning rate or add warm-up steps"
            )
        elif self.collapsed and not collapsed:
            self.reporter.note(f"no collapse any more: the output's spread is {spread:.4f} of the originals'")
        self.collapsed = collapsed

    def score(self, metrics: dict[str, float]) -> float:
        """Return the restoration loss."""
        return metrics["restoration_loss"]


def _spread(batch: Tensor) -> float:
    """Return the standard deviation between samples, averaged over the voxels."""
    return batch.std(dim=0, correction=0).mean().item()
