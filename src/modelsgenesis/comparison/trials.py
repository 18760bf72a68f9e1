"""One training of a comparison: from an arm, a label count and a seed to what was measured; nothing is left on disk."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.comparison.payload import read_cases
from modelsgenesis.configs import (
    FinetuningConfig,
    InputContract,
    NetworkConfig,
    PredictionConfig,
    SegmentationConfig,
    apply_settings,
)
from modelsgenesis.configs.base import plain
from modelsgenesis.data import LabelledData, PreparedCase
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.inference.ensemble import Ensemble, Member
from modelsgenesis.inference.measuring import measure_case
from modelsgenesis.metrics.summary import Row, flat
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.results import describe_bundle, summarize
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import Split
from modelsgenesis.training.supervised import make_objective
from modelsgenesis.training.task_networks import initial_model
from modelsgenesis.training.trainer import Progress, Trainer


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A starting point, ready to be trained.

    Attributes:
        name: What tables and figures call it.
        init: What it starts from, as a card may call it; None for random weights.
        weights: Folder of the bundle that it starts from, or takes its shape from; None for a shape of its own.
        digest: SHA-256 of the weights that it starts from; None for random ones.
        shape: Its task network.
        divisor: What each side of its patch must divide by.
        parameters: Number of its parameters.
        contract: How its images are prepared.
        config: Its training, the arm's own settings included.
        settings: Those settings, as they were given.
    """

    name: str
    init: str | None
    weights: Path | None
    digest: str | None
    shape: NetworkConfig
    divisor: tuple[int, ...]
    parameters: int
    contract: InputContract
    config: FinetuningConfig
    settings: tuple[str, ...] = ()

    @property
    def dims(self) -> int:
        """Spatial dimensions of the network."""
        return self.shape.unet.dims


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
        DivergenceError: The training diverged.
        Interrupted: A signal came.
    """
    started = time.perf_counter()
    arm = bench.arms[trial.arm]
    config = apply_settings(arm.config, trial.settings).override(seed=trial.seed, bootstrap=1)  # no interval a run
    hardware = choose_hardware(bench.device, config.precision)
    bundle = None if arm.weights is None else load_bundle(arm.weights)
    config = config.override(from_scratch=arm.weights is not None and arm.init is None)
    begun = initial_model(bundle, bench.data, config, name=arm.init or "")
    network = begun.network
    objective = make_objective(
        bench.data,
        training=_training(trial, bench),
        validation=_part(bench, trial.arm, "validation"),
        config=config,
        hardware=hardware,
        frozen=begun.network.encoder if config.freeze_encoder else None,
    )
    run = Unlogged()
    trainer = Trainer(
        network=network,
        objective=objective,
        config=config,
        run=run,
        hardware=hardware,
        reporter=Reporter(),
        keep=run.keep,
        pretrained=begun.pretrained,
    )
    progress = trainer.fit()
    network.load_state_dict(run.best)
    network.eval()
    record = {**_asked(trial, config), "steps": progress.step, "kept_step": progress.best_step}
    record |= {"validation": progress.metrics, "notes": objective.notes}
    record |= hardware.for_results().recorded()
    if not trial.tuning:
        rows = _measure(network, begun.contract, bench.data, config, hardware.for_results())
        record |= {"test": flat(summarize(rows, bench.data, config)), "cases": rows}
        _save(network, trial, bench)
    return plain({**record, "seconds": round(time.perf_counter() - started, 2), "library_version": __version__})


def _asked(trial: Trial, config: FinetuningConfig) -> dict[str, Any]:
    return {
        "arm": trial.arm,
        "labels": trial.labels,
        "seed": trial.seed,
        "settings": trial.settings,
        "learning_rate": config.learning_rate,
        "training": trial.cases,
    }


def _training(trial: Trial, bench: Bench) -> list[PreparedCase]:
    wanted = set(trial.cases)
    return [case for case in _part(bench, trial.arm, "training") if case.name in wanted]


def _measure(
    network: nn.Module, contract: InputContract, data: LabelledData, config: FinetuningConfig, hardware: Hardware
) -> list[Row]:
    split = Split(training=(), validation=(), test=tuple(case.name for case in data.cases))
    described = describe_bundle(
        network, config, contract, data, split, init=None, hardware=hardware, step=0, validation={}, test={}
    )
    member = Member(name="model", network=network, config=described)
    prediction = PredictionConfig(overlap=config.overlap if isinstance(config, SegmentationConfig) else 0.5)
    ensemble = Ensemble([member], prediction, hardware)
    return [measure_case(ensemble, case, data) for case in data.cases]


def _part(bench: Bench, arm: str, part: str) -> Sequence[PreparedCase]:
    path = bench.parts[arm].get(part)
    return [] if path is None else read_cases(path)


def _save(network: nn.Module, trial: Trial, bench: Bench) -> None:
    if bench.models is None:
        return
    from safetensors.torch import save_file

    from modelsgenesis.configs.comparison import file_name

    path = bench.models / file_name(trial.arm) / f"labels-{trial.labels}-seed-{trial.seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, path)
