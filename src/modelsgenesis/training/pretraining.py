"""Self-supervised pretraining: restore sub-volumes from their deformed selves."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import BundleConfig, InputContract, PretrainingConfig, Provenance
from modelsgenesis.data import SubvolumeDataset
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter, Reporters
from modelsgenesis.training.bundles import describe_environment, load_kept, network_config, save_run_bundle
from modelsgenesis.training.cost import COST_NAME, Meter, find_counters
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.loop import Progress, Trainer
from modelsgenesis.training.pictures import Pictures
from modelsgenesis.training.restoration import Restoration, fix_pairs
from modelsgenesis.training.run import Run


def pretrain_network(
    *,
    network: nn.Module,
    config: PretrainingConfig,
    contract: InputContract,
    training: SubvolumeDataset,
    validation: SubvolumeDataset,
    output: str | Path,
    data: Mapping[str, Any],
    hardware: Hardware,
    reporter: Reporter,
    init: str | None = None,
    pretrained: Collection[str] = (),
    request: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
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
        data: What the bundle may say of the data: counts, modality, spacing; no names.
        hardware: Where to compute.
        reporter: Is told the progress.
        init: What the network started from, for the provenance.
        pretrained: Names of the tensors that came from there.
        request: What was asked for besides the configuration, for `run.json`.
        processes: This process among those that train together, connected; rank 0 keeps the folder.
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
    if config.batch_size > len(training):
        reporter.note(
            f"a batch of {config.batch_size} is more than the {len(training)} sub-volumes of an epoch: "
            "scans recur in a batch, at other places"
        )
    processes = processes or Processes()
    scans = {"training": list(training.entries()), "validation": list(validation.entries())}
    asked = {
        "kind": "pretraining",
        "config": config.to_dict(),
        "init": init,
        "pretrained": list(pretrained),
        "input": contract.to_dict(),
        "request": request,
        "split": {part: [entry.name for entry in entries] for part, entries in scans.items()},  # it stays local
        "digests": {part: [entry.key[:16] for entry in entries] for part, entries in scans.items()},
    }
    run = Run.open(output, asked, resume=resume, processes=processes)

    def build() -> tuple[Trainer, _Keeper]:
        deformation = Deformation(config.pretext)
        objective = Restoration(
            subvolumes=training,
            validation=fix_pairs(deformation, validation, training, config.validation_samples),
            deformation=deformation,
            config=config,
            hardware=hardware,
            reporter=reporter,
        )
        keeper = _Keeper(run, objective, contract, data, init, reporter, processes)
        trainer = Trainer(
            network=network,
            objective=objective,
            config=config,
            run=run,
            hardware=hardware,
            reporter=Reporters(reporter, keeper.pictures, keeper.meter),
            keep=keeper.keep,
            processes=processes,
            pretrained=pretrained,
        )
        return trainer, keeper

    try:
        trainer, keeper = processes.in_turn(build)
        reporter.baselines(keeper.objective.validation.baselines)
        if resume:
            trainer.resume()
        progress = trainer.fit()
        if processes.is_main:
            keeper.finish(progress)
            run.finish()
    finally:
        reporter.end()
        run.close()
    return run.folder


class _Keeper:
    """Writes the bundle of the best network so far: its configuration, card and pictures."""

    def __init__(
        self,
        run: Run,
        objective: Restoration,
        contract: InputContract,
        data: Mapping[str, Any],
        init: str | None,
        reporter: Reporter,
        processes: Processes,
    ) -> None:
        self.run, self.objective, self.reporter, self.processes = run, objective, reporter, processes
        self.contract, self.data, self.init = contract, data, init
        self.pictures = Pictures(run.folder, objective, reporter)
        hardware = objective.hardware
        gpus = processes.world_size if hardware.device.type == "cuda" else 0
        self.meter = Meter(run.folder / COST_NAME, gpus=gpus, counters=find_counters(hardware))

    def keep(self, network: nn.Module, progress: Progress) -> None:
        """Write the bundle of the network that was just validated."""
        self.pictures.best(progress.step, progress.metrics)
        self.reporter.best(progress.step, progress.metrics)
        config = self.objective.config
        bundle = BundleConfig(
            task="restoration",
            network=network_config(network),
            input=self.contract,
            patch_size=config.patch_size,
            provenance=Provenance(
                origin="pretrained",
                library_version=__version__,
                init=self.init,
                recipe=config.to_dict(),
                data=dict(self.data),
                results=publishable(progress, config),
                environment=self._environment(),
            ),
        )
        progress.kept = save_run_bundle(self.run, network, bundle, self.pictures.on_card(), self.reporter)

    def finish(self, progress: Progress) -> None:
        """Draw the curve and write the card anew, with the cost of the whole run."""
        bundle = load_kept(self.run, progress)
        self.pictures.finish(progress.step)
        whole = replace(bundle.config.provenance, environment=self._environment())
        config = replace(bundle.config, provenance=whole)
        save_run_bundle(self.run, bundle.network, config, self.pictures.on_card(), self.reporter)

    def _environment(self) -> dict[str, Any]:
        objective = self.objective
        return {**describe_environment(objective.hardware, objective.config, self.processes), **self.meter.save()}


def publishable(progress: Progress, config: PretrainingConfig) -> dict[str, Any]:
    """Return the losses of the best validation, what they rest on, and whether that network has collapsed."""
    losses = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
    counts = {"step": progress.best_step, "samples": config.validation_samples, "seed": config.seed}
    return {**losses, **counts, "collapsed": bool(progress.metrics.get("collapsed"))}
