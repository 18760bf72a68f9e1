"""The objective of pretraining: restore patches from their deformed selves, and notice when that fails."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from modelsgenesis.configs import PretrainingConfig
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation
from modelsgenesis.pretext.deformations import check_range
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.compilation import compiler_failure
from modelsgenesis.training.trainer import Objective

_MEAN_IMAGE_SAMPLES = 128
_UNCHANGED = 1e-3  # a smaller change of a value is no deformation
_COLLAPSED = 0.02  # of the originals' spread; networks that learn are above 0.1 from the first validation on

# Seeds of the deformations: those of validation count up from here, those of training from (seed + 2) * 2**40. So the
# two never meet, nor do those of two runs with different seeds within the 2**40 patches of either.
_VALIDATION_SEED = 1_000_003
_STRIDE = 2**40


def take_patches(patches: Dataset[Tensor], count: int) -> Tensor:
    """Return at most `count` patches, [n, c, *patch], of every scan in turn: a few already show all of the scans."""
    size: int = len(patches)  # pyright: ignore[reportArgumentType]
    per_scan = getattr(patches, "per_scan", 1)
    scans = size // per_scan
    taken = []
    for number in range(min(count, 4 * size)):  # beyond an epoch come the patches of the next
        turn, scan = divmod(number, scans)
        epoch, place = divmod(turn, per_scan)
        taken.append(patches[epoch * size + scan * per_scan + place])
    return torch.stack(taken)


class CheckedPatches(Dataset[Tensor]):
    """Patches, refused where values lie outside [0, 1].

    So this is looked at in the loader's processes: a training step that asked its GPU would wait for it.

    Raises:
        ShapeError: A patch has such values.
    """

    def __init__(self, patches: Dataset[Tensor]) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, item: int) -> Tensor:
        patch = self.patches[item]
        check_range(patch)
        return patch


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
        restored: What it restored in the last validation, [n, c, *patch]; empty before the first.
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
        self.dataset, self.deformation = CheckedPatches(training), Deformation(config.pretext)
        self.config, self.hardware, self.reporter = config, hardware, reporter
        self.restored = torch.empty(0)
        self._is_collapsed, self._fuses, self._is_tried = False, True, False
        original = take_patches(validation, config.validation_samples)
        seeds = torch.arange(len(original), dtype=torch.int64) + _VALIDATION_SEED
        self.deformed, self.original = self.deformation(original, seeds)
        mean_image = take_patches(training, _MEAN_IMAGE_SAMPLES).mean(dim=0).expand_as(self.original)
        self.baselines = {
            "identity_loss": functional.mse_loss(self.deformed, self.original).item(),
            "mean_image_loss": functional.mse_loss(mean_image, self.original).item(),
        }
        if self.baselines["identity_loss"] == 0:
            reporter.note(
                "no validation patch is deformed: this trains an autoencoder; if that is not intended, choose another "
                "scheme, or for shuffling a patch with sides of 20 voxels or more"
            )

    def loss(self, network: nn.Module, batch: Any, items: Sequence[int]) -> Tensor:
        """Deform [b, c, *patch] on the device and return the mean squared error of the restoration.

        With `deformed_weight` that of the deformed voxels alone is added.
        """
        seeds = torch.tensor(items, dtype=torch.int64) + (self.config.seed + 2) * _STRIDE
        self._fuses &= hasattr(network, "_orig_mod")  # as torch.compile's networks have: fused where the network is
        deformed, original = self._deform(self.hardware.place(batch), seeds)
        restored = network(deformed).float()
        loss = functional.mse_loss(restored, original)
        if self.config.deformed_weight:
            is_deformed = ((deformed - original).abs() > _UNCHANGED).float()
            error = ((restored - original) ** 2 * is_deformed).sum() / is_deformed.sum().clamp_min(1)
            loss = loss + self.config.deformed_weight * error
        return loss

    def _deform(self, batch: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        if self._is_tried or not self._fuses:
            return self.deformation.deform(batch, seeds, compiles=self._fuses)
        self._is_tried = True
        try:
            return self.deformation.deform(batch, seeds, compiles=True)
        except Exception as error:  # torch's compiler, and what it calls, raise what they like
            reason = compiler_failure(error)
        self._fuses = False
        self.reporter.note(f"compile: of the network alone, of the deformations it failed: {reason}")
        return self.deformation.deform(batch, seeds)

    def validate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Return the restoration loss, also beside the trivial baselines, and whether the network collapsed."""
        with torch.no_grad(), self.hardware.autocast():
            batches = map(self.hardware.place, self.deformed.split(self.config.batch_size))
            self.restored = torch.cat([network(batch).float().cpu() for batch in batches])
        # A collapsed network gives the same image whatever it sees: compare voxel by voxel between samples.
        restored, original = (one.std(dim=0, correction=0).mean().item() for one in (self.restored, self.original))
        spread = restored / max(original, 1e-12)
        is_collapsed = len(self.original) > 1 and spread < _COLLAPSED
        if is_collapsed and not self._is_collapsed:  # said when it comes, and when it is over
            self.reporter.note(
                f"collapse: the output hardly depends on the input (spread {spread:.4f} of the originals'); "
                "lower the learning rate or add warm-up steps"
            )
        elif self._is_collapsed and not is_collapsed:
            self.reporter.note(f"the collapse is over: the output's spread is {spread:.4f} of the originals'")
        self._is_collapsed = is_collapsed
        loss = functional.mse_loss(self.restored, self.original).item()
        told = {"output_spread": spread, "collapsed": float(is_collapsed)}
        return loss, {"restoration_loss": loss, **self.baselines, **told}
