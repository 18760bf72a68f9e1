"""Self-supervised pretraining of a network on patches, and the record of such a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.configs import BundleConfig, Config, InputContract, PretrainingConfig, Provenance
from modelsgenesis.data import PatchDataset
from modelsgenesis.errors import ConfigurationError, TrainingError
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import describe_environment, load_kept, network_config, save_run_bundle
from modelsgenesis.training.distributed import raise_if_any_failed, rank
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.run import RUN_NAME, Run
from modelsgenesis.training.trainer import Progress, Trainer
from modelsgenesis.training.watching import Pictures, TensorBoard


@dataclass(frozen=True, kw_only=True)
class PretrainingRun(Config):
    """What `run.json` holds: the configuration that determines the run, and what followed from it and the scans.

    Attributes:
        config: The configuration, with the network of the initial weights and the sizes that filled the memory.
        init: Public name of the initial weights.
        pretrained: Names of the tensors that came from them.
        input: How the scans were prepared.
        split: Names of the scans of `training` and of `validation`; they stay local.
        digests: A digest of each scan and its preparation, in the same order.
        finished: Whether there is nothing left to do.
    """

    kind: Literal["pretraining"] = "pretraining"
    config: PretrainingConfig
    init: str | None = None
    pretrained: tuple[str, ...] = ()
    input: InputContract | None = None
    split: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    finished: bool = False


def read_run(output: str | Path) -> PretrainingRun:
    """Return what a run's folder says of a pretraining.

    Raises:
        TrainingError: There is no run, it is not a pretraining, or its record is damaged.
    """
    content, path = Run(Path(output)).description(), Path(output) / RUN_NAME
    if content.get("kind") != "pretraining":
        raise TrainingError(
            f"{output}: holds a run of {content.get('kind')}, not a pretraining; resume it with its own command"
        )
    try:
        return PretrainingRun.from_dict(content, where=str(path))
    except ConfigurationError as error:
        raise TrainingError(f"{error}; restore it, or start again in another folder") from error


def pretrain_network(
    network: nn.Module,
    record: PretrainingRun,
    training: PatchDataset,
    validation: PatchDataset,
    output: str | Path,
    *,
    facts: Mapping[str, Any],
    hardware: Hardware,
    reporter: Reporter,
    resume: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Pretrain a network on patches and keep the best as a bundle.

    Args:
        network: Trained in place: [b, c, *patch] to the same shape.
        record: The configuration, and which weights the network starts from.
        training: Patches to learn from.
        validation: Patches of other patients.
        output: The run's folder.
        facts: What the bundle may say of the data: counts, modality, spacing; no names.
        hardware: Where to compute.
        reporter: Receives the progress.
        resume: Continue the run in `output`.
        tensorboard: Write for TensorBoard too.

    Returns:
        The run's folder, which holds the bundle.

    Raises:
        TrainingError: The folder holds a run, or training failed.
    """
    config, contract = record.config, training.cache.contract
    if config.batch_size > len(training):
        reporter.note(
            f"a batch of {config.batch_size} is more than the {len(training)} patches of an epoch: scans recur in a "
            "batch, at other places"
        )
    scans = {"training": list(training.entries()), "validation": list(validation.entries())}
    record = record.override(
        input=contract,
        split={part: [entry.name for entry in entries] for part, entries in scans.items()},
        digests={part: [entry.key[:16] for entry in entries] for part, entries in scans.items()},
    )
    board = TensorBoard(Path(output) / "tensorboard", reporter) if tensorboard and rank() == 0 else None
    run = Run.open(output, record.to_dict(), resume=resume)
    try:
        with raise_if_any_failed():
            objective = Restoration(training, validation, config, hardware, reporter)
            pictures = Pictures(run.folder, reporter, board)
            keeper = _Keeper(run, objective, record, contract, facts, reporter, pictures)
            trainer = Trainer(
                network=network,
                objective=objective,
                config=config,
                run=run,
                hardware=hardware,
                reporter=reporter,
                keep=keeper.keep,
                pretrained=record.pretrained,
                validated=keeper.draw,
                tensorboard=board,
            )
        reporter.baselines(objective.baselines)
        if resume:
            trainer.resume()
        progress = trainer.fit()
        if rank() == 0:
            keeper.finish(progress)
            run.finish()
    finally:
        reporter.end()
        if board is not None:
            board.close()
        run.close()
    return run.folder


@dataclass
class _Keeper:
    """Writes the bundle of the best network so far: its configuration, card and pictures."""

    run: Run
    objective: Restoration
    record: PretrainingRun
    contract: InputContract
    facts: Mapping[str, Any]
    reporter: Reporter
    pictures: Pictures

    def draw(self, step: int, metrics: Mapping[str, float]) -> None:
        """Draw the restorations of the network that was just validated."""
        objective = self.objective
        if objective.restored is not None:
            shown = {"original": objective.original, "deformed": objective.deformed, "restored": objective.restored}
            self.pictures.draw_validation(step, **shown, metrics=metrics)

    def keep(self, network: nn.Module, progress: Progress) -> None:
        """Write the bundle of the network that was just validated."""
        self.pictures.keep_newest()
        progress.kept = self._save(network, progress)

    def finish(self, progress: Progress) -> None:
        """Draw the curve and write the card anew, with the cost of the whole run."""
        self.pictures.draw_curve(progress.step)
        self._save(load_kept(self.run, progress).network, progress)

    def _save(self, network: nn.Module, progress: Progress) -> str:
        config = self.record.config
        losses = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
        counts = {"step": progress.best_step, "samples": config.validation_samples, "seed": config.seed}
        provenance = Provenance(
            origin="pretrained",
            library_version=__version__,
            init=self.record.init,
            recipe=config.recipe(),
            data=dict(self.facts),
            results={**losses, **counts, "collapsed": bool(progress.metrics.get("collapsed"))},
            environment={**describe_environment(self.objective.hardware, config), **progress.cost()},
        )
        bundle = BundleConfig(
            task="restoration",
            network=network_config(network),
            input=self.contract,
            patch_size=config.patch_size,
            provenance=provenance,
        )
        return save_run_bundle(self.run, network, bundle, self.pictures.on_card(), self.reporter)
