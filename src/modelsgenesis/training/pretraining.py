"""Self-supervised pretraining: restore sub-volumes from their deformed selves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from modelsgenesis import __version__
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import BundleConfig, InputContract, PretrainingConfig, Provenance
from modelsgenesis.data import SubvolumeDataset
from modelsgenesis.errors import ConfigurationError, MissingExtraError, TrainingError
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import describe_environment, network_config, save_run_bundle
from modelsgenesis.training.loop import Objective, Progress, Trainer
from modelsgenesis.training.run import Run

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


def fix_pairs(
    deformation: Deformation, validation: Dataset[Tensor], training: Dataset[Tensor], count: int
) -> FixedPairs:
    """Draw and deform `count` validation sub-volumes once and measure the baselines on them."""
    original = torch.stack([validation[item] for item in range(count)])
    seeds = torch.arange(count, dtype=torch.int64) + _VALIDATION_SEED
    deformed, original = deformation(original, seeds)
    samples = min(_MEAN_IMAGE_SAMPLES, 4 * len(training))  # pyright: ignore[reportArgumentType]
    mean_image = torch.stack([training[item] for item in range(samples)]).mean(dim=0)
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

    References:
        Zhou et al. 2021, section 2: the encoder-decoder restores the original under an L2 loss.
    """

    def __init__(
        self,
        *,
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
        """Return the restoration loss beside the losses of maps that learn nothing."""
        restored, original = self.restore(network), self.validation.original
        # A collapsed network gives the same image whatever it sees: compare voxel by voxel between samples.
        spread = restored.std(dim=0).mean().item() / max(original.std(dim=0).mean().item(), 1e-12)
        if len(original) > 1 and spread < _COLLAPSED:
            self.reporter.note(
                f"collapse: the output hardly depends on the input (spread {spread:.4f} of the originals'); "
                "lower the learning rate or add warm-up steps"
            )
        loss = functional.mse_loss(restored, original).item()
        return {"restoration_loss": loss, **self.validation.baselines, "output_spread": spread}

    def score(self, metrics: dict[str, float]) -> float:
        """Return the restoration loss."""
        return metrics["restoration_loss"]


def pretrain_network(
    *,
    network: nn.Module,
    config: PretrainingConfig,
    contract: InputContract,
    training: SubvolumeDataset,
    validation: SubvolumeDataset,
    output: str | Path,
    split: Mapping[str, Sequence[str]],
    data: Mapping[str, Any],
    hardware: Hardware,
    reporter: Reporter,
    init: str | None = None,
    resume: bool = False,
) -> Path:
    """Pretrain a network on sub-volumes and keep the best as a bundle.

    Args:
        network: Trained in place; [b, c, *patch] to the same shape.
        config: Budget, optimiser, deformations, patch.
        contract: How the sub-volumes were prepared; it must map to [0, 1].
        training: Sub-volumes to learn from.
        validation: Sub-volumes of other patients.
        output: The run's folder.
        split: Names of the scans to train and to validate on; they stay in `run.json`, which stays local.
        data: What the bundle may say of the data: counts, modality, spacing; no names.
        hardware: Where to compute.
        reporter: Is told the progress.
        init: What the network started from, for the provenance.
        resume: Go on with the run in `output`.

    Returns:
        The run's folder, which holds the bundle.

    Raises:
        ConfigurationError: The contract does not map to [0, 1].
        TrainingError: The folder holds a run, or training failed; `ResumeError`, `NonFiniteLossError` among them.
    """
    if contract.intensity not in ("window", "percentiles"):
        raise ConfigurationError(
            f"intensity {contract.intensity!r} leaves [0, 1], which the deformations assume: use window or percentiles"
        )
    asked = {"kind": "pretraining", "config": config.to_dict(), "init": init, "split": dict(split)}
    run = Run.resume(output, asked) if resume else Run.create(output, asked)
    try:
        deformation = Deformation(config.pretext)
        pairs = fix_pairs(deformation, validation, training, config.validation_samples)
        objective = Restoration(
            subvolumes=training,
            validation=pairs,
            deformation=deformation,
            config=config,
            hardware=hardware,
            reporter=reporter,
        )

        def keep(network: nn.Module, progress: Progress) -> None:
            provenance = Provenance(
                origin="pretrained",
                library_version=__version__,
                init=init,
                recipe=config.to_dict(),
                data=dict(data),
                results=publishable(progress, config),
                environment=describe_environment(hardware),
            )
            bundle = BundleConfig(
                task="restoration",
                network=network_config(network),
                input=contract,
                patch_size=config.patch_size,
                provenance=provenance,
            )
            save_run_bundle(run, network, bundle)

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
        trainer.fit()
        finish_run(run, objective, hardware, reporter)
    finally:
        run.close()
    return run.folder


def publishable(progress: Progress, config: PretrainingConfig) -> dict[str, float]:
    """Return the losses of the best validation and what they rest on; the spread is a check, not a result."""
    losses = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
    return {**losses, "step": progress.best_step, "samples": config.validation_samples, "seed": config.seed}


def finish_run(run: Run, objective: Restoration, hardware: Hardware, reporter: Reporter) -> None:
    """Draw the best network's restorations and the curve, and put them on the card."""
    from modelsgenesis.figures import draw_curve, draw_restorations

    if not (run.folder / "config.json").exists():
        raise TrainingError(f"{run.folder}: no validation ended, so there is no bundle; train for more steps")
    bundle = load_bundle(run.folder)
    restored = objective.restore(hardware.place_network(bundle.network).eval())
    pairs = objective.validation
    try:
        draw_restorations(
            pairs.original.numpy(),
            pairs.deformed.numpy(),
            restored.numpy(),
            run.folder / "figures" / "restorations.png",
        )
        draw_curve(run.folder / "log.csv", run.folder / "validation.csv", run.folder / "figures" / "curve.png")
    except MissingExtraError as error:
        reporter.note(f"no figures: {error}")
        return
    figures = {
        "Original, deformed and restored sub-volumes": "figures/restorations.png",
        "Loss in training and validation": "figures/curve.png",
    }
    save_run_bundle(run, bundle.network, bundle.config, figures)
