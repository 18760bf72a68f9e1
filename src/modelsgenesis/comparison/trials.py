"""One training of a comparison: from an arm, a label count and a seed to what was measured; nothing is left on disk."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from modelsgenesis import __version__
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.comparison.payload import read_payload
from modelsgenesis.configs import ClassifierConfig, FinetuningConfig, InputContract, NetworkConfig, apply_settings
from modelsgenesis.data import LabelledData, PreparedCase
from modelsgenesis.evaluation import flat
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.networks import adapt, build_network, empty_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.finetuning import make_objective
from modelsgenesis.training.loop import Progress, Trainer
from modelsgenesis.training.run import Run
from modelsgenesis.training.supervised import SupervisedObjective


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A starting point, ready to be trained.

    Attributes:
        name: What tables and figures call it.
        init: What it starts from, as a card may call it; None for random weights.
        weights: Folder of the bundle that it starts from; None for random weights.
        digest: SHA-256 of those weights.
        shape: Its task network.
        contract: How its images are prepared.
        config: Its training, the arm's own settings included.
        settings: Those settings, as they were given.
        adaptation: Options of `adapt` for the weights.
    """

    name: str
    init: str | None
    weights: Path | None
    digest: str | None
    shape: NetworkConfig
    contract: InputContract
    config: FinetuningConfig
    settings: tuple[str, ...] = ()
    adaptation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        """Spatial dimensions of the network."""
        return (self.shape.encoder if isinstance(self.shape, ClassifierConfig) else self.shape).dims


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training.

    Attributes:
        arm: Name of the arm.
        labels: Patients whose labels are learnt from.
        seed: Of what is new in the network, of order and augmentation.
        cases: Names of the training cases.
        settings: `key=value` on top of the arm's own: a candidate, or what was chosen.
        tuning: Whether it chooses settings: such a trial is measured on the validation patients alone.
    """

    arm: str
    labels: int
    seed: int
    cases: tuple[str, ...]
    settings: tuple[str, ...] = ()
    tuning: bool = False

    def __str__(self) -> str:
        chosen = f" with {', '.join(self.settings)}" if self.settings else ""
        return f"{self.arm}, {self.labels} labels, seed {self.seed}{chosen}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all trials share; small enough to be sent to a process.

    Attributes:
        arms: By name.
        data: The labelled data, without its cases.
        device: Where to compute.
        parts: By arm, the files of its prepared `training`, `validation` and, unless settings are being chosen, `test`.
        models: Folder to keep the trained weights in; None keeps none.
    """

    arms: Mapping[str, Arm]
    data: LabelledData
    device: str
    parts: Mapping[str, Mapping[str, Path]]
    models: Path | None = None


class Unlogged(Run):
    """A run that leaves nothing on disk; the best weights stay in memory."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.best: dict[str, torch.Tensor] = {}

    def log_step(self, row: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def log_validation(self, row: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep nothing: a trial that was cut short starts again."""

    def keep(self, network: nn.Module, _progress: Progress) -> None:
        """Keep the weights of the best validation so far."""
        self.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def run_trial(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Train one network and measure it.

    Args:
        trial: What to train.
        bench: Arms, data and device.

    Returns:
        JSON values: what was asked, the metrics of the kept network on the validation patients and, unless the
        trial chooses settings, on the test patients, each test case by itself included.

    Raises:
        NonFiniteLossError: The training diverged.
        Interrupted: A signal came.
    """
    started = time.perf_counter()
    arm = bench.arms[trial.arm]
    config = apply_settings(arm.config, trial.settings).override(seed=trial.seed, bootstrap=1)  # no interval a run
    hardware = choose_hardware(bench.device, config.precision)
    network, pretrained = start_network(arm, config)
    objective = _objective(trial, bench, config, hardware)
    if config.freeze_encoder:
        objective.freeze(cast("nn.Module", network.encoder))
    run = Unlogged()
    trainer = Trainer(
        network=network,
        objective=objective,
        config=config,
        run=run,
        hardware=hardware,
        reporter=Reporter(),
        keep=run.keep,
        pretrained=pretrained,
    )
    progress = trainer.fit()
    network.load_state_dict(run.best)
    network.eval()
    record = {**_asked(trial, config), "steps": progress.step, "kept_step": progress.best_step}
    record |= {"validation": _plain(progress.metrics), "notes": objective.notes()}
    record |= hardware.for_results().recorded()
    if not trial.tuning:
        rows = objective.measure(network, _part(bench, trial.arm, "test"))
        record |= {"test": flat(objective.summarize(rows)), "cases": [_plain(row) for row in rows]}
        _save(network, trial, bench)
    return {**record, "seconds": round(time.perf_counter() - started, 2), "library_version": __version__}


def start_network(arm: Arm, config: FinetuningConfig) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the arm's network before training, and the names of its tensors that came from the weights.

    What is not from the weights is drawn from the seed of the configuration.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # initialisation draws from the global generator
        if arm.weights is None:
            return build_network(arm.shape), ()
        options = {"encoder_only": config.encoder_only, "rescale": config.rescale, **arm.adaptation}
        network, report = adapt(load_bundle(arm.weights).network, copy=False, **options)
        return network, (*report.loaded, *report.adapted)


def build_size(shape: NetworkConfig) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in empty_network(shape).parameters())


def _asked(trial: Trial, config: FinetuningConfig) -> dict[str, Any]:
    return {
        "arm": trial.arm,
        "labels": trial.labels,
        "seed": trial.seed,
        "settings": list(trial.settings),
        "learning_rate": config.learning_rate,
        "training": list(trial.cases),
    }


def _objective(trial: Trial, bench: Bench, config: FinetuningConfig, hardware: Hardware) -> SupervisedObjective:
    wanted = set(trial.cases)
    training = [case for case in _part(bench, trial.arm, "training") if case.name in wanted]
    if bench.arms[trial.arm].dims == 2:
        training = [plane for case in training for plane in planes_of(case)]
    validation = _part(bench, trial.arm, "validation")
    return make_objective(
        config,
        training=training,
        validation=validation,
        labels=bench.data.labels,
        hardware=hardware,
        multilabel=bench.data.multilabel,
    )


def planes_of(case: PreparedCase) -> list[PreparedCase]:
    """Return the slices of a volume along its last axis as cases of two dimensions; an image is its own only plane."""
    if case.image.ndim == 3:
        return [case]
    label = case.label
    return [
        PreparedCase(
            name=f"{case.name} slice {index}",
            patient=case.patient,
            image=np.ascontiguousarray(case.image[..., index]),
            label=None if label is None else np.ascontiguousarray(label[..., index]),
            classes=case.classes,
        )
        for index in range(case.image.shape[-1])
    ]


def _part(bench: Bench, arm: str, part: str) -> Sequence[PreparedCase]:
    path = bench.parts[arm].get(part)
    return [] if path is None else _read_part(path)


@cache
def _read_part(path: Path) -> Sequence[PreparedCase]:
    return read_payload(path)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: None for what is not defined."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _save(network: nn.Module, trial: Trial, bench: Bench) -> None:
    if bench.models is None:
        return
    from safetensors.torch import save_file

    from modelsgenesis.configs.comparison import file_name

    path = bench.models / file_name(trial.arm) / f"labels-{trial.labels}-seed-{trial.seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, path)
