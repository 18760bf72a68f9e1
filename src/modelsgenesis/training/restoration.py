"""The objective of pretraining: restore patches from their deformed selves, and notice when that fails."""

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
_COLLAPSED = 0.02  # of the originals' spread; networks that learn are above 0.1 from the first validation on

# Seeds of the deformations: those of validation count up from here, those of training from (seed + 2) * 2**40. So the
# two never meet, nor do those of two runs with different seeds within the 2**40 patches of either.
_VALIDATION_SEED = 1_000_003
_STRIDE = 2**40


class _Numbered(Dataset[tuple[Tensor, int]]):
    """Patches with their item, from which the seed of the deformation follows."""

    def __init__(self, patches: Dataset[Tensor]) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.patches[item], item


def spread_items(count: int, size: int, per_scan: int = 1) -> list[int]:
    """Return `count` items of a data set, of every scan in turn, so that a few already show all of the scans.

    Example:
        >>> spread_items(8, size=6, per_scan=2)  # three scans of two patches; then the next epoch
        [0, 2, 4, 1, 3, 5, 6, 8]
    """
    scans = size // per_scan
    turns = (divmod(number, scans) for number in range(count))
    return [turn // per_scan * size + scan * per_scan + turn % per_scan for turn, scan in turns]


def _take(patches: Dataset[Tensor], count: int) -> Tensor:
    size: int = len(patches)  # pyright: ignore[reportArgumentType]
    items = spread_items(min(count, 4 * size), size, getattr(patches, "per_scan", 1))
    return torch.stack([patches[item] for item in items])


class Restoration(Objective):
    """Restore patches under a squared error.

    Validation is on the same patches with the same deformations every time.

    Args:
        training: Patches in [0, 1] to learn from.
        validation: Patches of other patients.
        config: Deformations, batch size, seed and number of validation patches.
        hardware: Where to deform and to restore.
        reporter: Receives a note of a collapse.

    Attributes:
        original: What the network should restore in validation, [n, c, *patch].
        deformed: What it sees, [n, c, *patch].
        restored: What it restored in the last validation, [n, c, *patch]; None before the first.
        baselines: Losses of the trivial baselines: `identity_loss` of returning the deformed input,
            `mean_image_loss` of always returning the mean of the training patches.

    References:
        Zhou et al. 2021, section 2: the encoder-decoder restores the original under an L2 loss.
    """

    def __init__(
        self,
        training: Dataset[Tensor],
        validation: Dataset[Tensor],
        config: PretrainingConfig,
        hardware: Hardware,
        reporter: Reporter,
    ) -> None:
        self.dataset, self.deformation = _Numbered(training), Deformation(config.pretext)
        self.config, self.hardware, self.reporter = config, hardware, reporter
        self.restored: Tensor | None = None
        self._is_collapsed = False
        original = _take(validation, config.validation_samples)
        seeds = torch.arange(len(original), dtype=torch.int64) + _VALIDATION_SEED
        self.deformed, self.original = self.deformation(original, seeds)
        mean_image = _take(training, _MEAN_IMAGE_SAMPLES).mean(dim=0).expand_as(self.original)
        self.baselines = {
            "identity_loss": functional.mse_loss(self.deformed, self.original).item(),
            "mean_image_loss": functional.mse_loss(mean_image, self.original).item(),
        }
        if self.baselines["identity_loss"] == 0:
            reporter.note(
                "no validation patch is deformed: this trains an autoencoder; if that is not intended, choose another "
                "scheme, or for shuffling a patch with sides of 20 voxels or more"
            )

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Deform [b, c, *patch] on the device and return the mean squared error of the restoration."""
        original, items = batch
        seeds = items.to(torch.int64) + (self.config.seed + 2) * _STRIDE
        deformed, original = self.deformation(self.hardware.place(original), seeds)
        restored = network(self.hardware.place(deformed))
        return functional.mse_loss(restored.float(), original)

    def restore(self, network: nn.Module) -> Tensor:
        """Return the restorations of the validation patches, [n, c, *patch] on the CPU."""
        batches = self.deformed.split(self.config.batch_size)
        with torch.no_grad(), self.hardware.autocast():
            return torch.cat([network(self.hardware.place(deformed)).float().cpu() for deformed in batches])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the restoration loss beside the trivial baselines, and whether the network collapsed."""
        self.restored = self.restore(network)
        # A collapsed network gives the same image whatever it sees: compare voxel by voxel between samples.
        spread = _spread(self.restored) / max(_spread(self.original), 1e-12)
        is_collapsed = len(self.original) > 1 and spread < _COLLAPSED
        if is_collapsed and not self._is_collapsed:  # said when it comes, and when it is over
            self.reporter.note(
                f"collapse: the output hardly depends on the input (spread {spread:.4f} of the originals'); "
                "lower the learning rate or add warm-up steps"
            )
        elif self._is_collapsed and not is_collapsed:
            self.reporter.note(f"no collapse any more: the output's spread is {spread:.4f} of the originals'")
        self._is_collapsed = is_collapsed
        loss = functional.mse_loss(self.restored, self.original).item()
        return {
            "restoration_loss": loss,
            **self.baselines,
            "output_spread": spread,
            "collapsed": float(is_collapsed),
        }

    def score(self, metrics: dict[str, float]) -> float:
        """Return the restoration loss."""
        return metrics["restoration_loss"]


def _spread(batch: Tensor) -> float:
    """Return the standard deviation between samples, averaged over the voxels."""
    return batch.std(dim=0, correction=0).mean().item()
