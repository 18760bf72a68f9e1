"""Self-supervised pretraining: restore sub-volumes from their deformed selves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import BundleConfig, PretrainingConfig, Provenance
from modelsgenesis.data import PatchDataset
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import describe_environment, load_kept, network_config, save_run_bundle
from modelsgenesis.training.distributed import rank, rank_zero_first
from modelsgenesis.training.restoration import Restoration, fix_pairs
from modelsgenesis.training.run import Run
from modelsgenesis.training.task_networks import InitialModel
from modelsgenesis.training.trainer import Progress, Trainer
from modelsgenesis.training.watching import Pictures, TensorBoard


def pretrain_network(
    begun: InitialModel,
    config: PretrainingConfig,
    training: PatchDataset,
    validation: PatchDataset,
    output: str | Path,
    *,
    data: Mapping[str, Any],
    hardware: Hardware,
    reporter: Reporter,
    request: Mapping[str, Any] | None = None,
    resume: bool = False,
    tensorboard: TensorBoard | None = None,
) -> Path:
    """Pretrain a network on sub-volumes and keep the best as a bundle.

    Args:
        begun: The network, which is trained in place: [b, c, *patch] to the same shape.
        config: Budget, optimiser, deformations, patch.
        training: Sub-volumes to learn from.
        validation: Sub-volumes of other patients.
        output: The run's folder.
        data: What the bundle may say of the data: counts, modality, spacing; no names.
        hardware: Where to compute.
        reporter: Receives the progress.
        request: What was asked for besides the configuration, for `run.json`.
        resume: Go on with the run in `output`.
        tensorboard: Receives scalars and pictures; on rank 0.

    Returns:
        The run's folder, which holds the bundle.

    Raises:
        TrainingError: The folder holds a run, or training failed; `DivergenceError` among them.
    """
    if config.batch_size > len(training):
        reporter.note(
            f"a batch of {config.batch_size} is more than the {len(training)} sub-volumes of an epoch: "
            "scans recur in a batch, at other places"
        )
    scans = {"training": list(training.entries()), "validation": list(validation.entries())}
    asked = {
        "kind": "pretraining",
        "config": config.to_dict(),
        "init": begun.init,
        "pretrained": list(begun.pretrained),
        "input": begun.contract.to_dict(),
        "request": request,
        "split": {part: [entry.name for entry in entries] for part, entries in scans.items()},  # it stays local
        "digests": {part: [entry.key[:16] for entry in entries] for part, entries in scans.items()},
    }
    run = Run.open(output, asked, resume=resume)

    def build() -> tuple[Trainer, _Keeper]:
        deformation = Deformation(config.pretext)
        pairs = fix_pairs(deformation, validation, training, config.validation_samples)
        objective = Restoration(training, pairs, deformation, config, hardware, reporter)
        pictures = Pictures(run.folder, reporter, tensorboard)
        keeper = _Keeper(run, objective, begun, data, reporter, pictures)
        trainer = Trainer(
            network=begun.network,
            objective=objective,
            config=config,
            run=run,
            hardware=hardware,
            reporter=reporter,
            keep=keeper.keep,
            pretrained=begun.pretrained,
            validated=keeper.draw,
            tensorboard=tensorboard,
        )
        return trainer, keeper

    try:
        trainer, keeper = rank_zero_first(build)
        reporter.baselines(keeper.objective.validation.baselines)
        if resume:
            trainer.resume()
        progress = trainer.fit()
        if rank() == 0:
            keeper.finish(progress)
            run.finish()
    finally:
        reporter.end()
        if tensorboard is not None:
            tensorboard.close()
        run.close()
    return run.folder


@dataclass
class _Keeper:
    """Writes the bundle of the best network so far: its configuration, card and pictures."""

    run: Run
    objective: Restoration
    begun: InitialModel
    data: Mapping[str, Any]
    reporter: Reporter
    pictures: Pictures

    def draw(self, step: int, metrics: Mapping[str, float]) -> None:
        """Draw the restorations of the network that was just validated."""
        pairs, restored = self.objective.validation, self.objective.restored
        if restored is not None:
            shown = {"original": pairs.original, "deformed": pairs.deformed, "restored": restored}
            self.pictures.draw_validation(step, **shown, metrics=metrics)

    def keep(self, network: nn.Module, progress: Progress) -> None:
        """Write the bundle of the network that was just validated."""
        self.pictures.keep_newest()
        config = self.objective.config
        losses = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
        counts = {"step": progress.best_step, "samples": config.validation_samples, "seed": config.seed}
        provenance = Provenance(
            origin="pretrained",
            library_version=__version__,
            init=self.begun.init,
            recipe=config.recipe(),
            data=dict(self.data),
            results={**losses, **counts, "collapsed": bool(progress.metrics.get("collapsed"))},
        )
        bundle = BundleConfig(
            task="restoration",
            network=network_config(network),
            input=self.begun.contract,
            patch_size=config.patch_size,
            provenance=provenance,
        )
        progress.kept = self._save(network, bundle, progress)

    def finish(self, progress: Progress) -> None:
        """Draw the curve and write the card anew, with the cost of the whole run."""
        bundle = load_kept(self.run, progress)
        self.pictures.draw_curve(progress.step)
        self._save(bundle.network, bundle.config, progress)

    def _save(self, network: nn.Module, config: BundleConfig, progress: Progress) -> str:
        objective = self.objective
        environment = describe_environment(objective.hardware, objective.config)
        provenance = replace(config.provenance, environment={**environment, **progress.cost()})
        config = replace(config, provenance=provenance)
        return save_run_bundle(self.run, network, config, self.pictures.on_card(), self.reporter)
