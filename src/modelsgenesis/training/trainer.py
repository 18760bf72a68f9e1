"""The loop of pretraining and fine-tuning."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError, ExplodingLossError, Interrupted, NonFiniteLossError, ResumeError
from modelsgenesis.files import parsing
from modelsgenesis.hardware import Hardware, check_compiler
from modelsgenesis.networks import enable_activation_checkpointing, synchronise_batch_norm
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.checkpoint import library_versions, random_states, restore_random_states
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.optim import Optimization, count_steps, learning_rate
from modelsgenesis.training.run import LAST_NAME, Run, check_config, compare
from modelsgenesis.training.sampler import StepBatches, make_loader, next_batch, start_loader
from modelsgenesis.training.stopping import DivergenceCheck, GracefulStop


class Objective(ABC):
    """What a kind of training adds to the loop.

    Attributes:
        dataset: Maps an item `epoch * len(dataset) + index` to a sample; its length is the samples of an epoch.
    """

    dataset: Dataset[Any]

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss of a batch; the network is called under autocast."""

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the network, in evaluation mode and without gradients."""

    @abstractmethod
    def score(self, metrics: dict[str, float]) -> float:
        """Return the number that decides which network is kept; lower is better."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: Steps done.
        best_step: Step of the best validation.
        best_score: Its score; lower is better.
        stale: Validations since the best.
        metrics: Of the best validation.
        kept: SHA-256 of the weights in the bundle, which are of the best validation; "" before the first.
        first_losses: What a loss is compared with to tell a divergence.
    """

    step: int = 0
    best_step: int = 0
    best_score: float = math.inf
    stale: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    kept: str = ""
    first_losses: list[float] = field(default_factory=list)


class Clock:
    """Speed of a loop and the share of time that it waits for data, averaged over about ten steps.

    Args:
        batch_size: Samples per step.

    Attributes:
        waited: Seconds that the current step has waited; set it before `tick`.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.step_seconds = self.wait_seconds = self.waited = 0.0
        self.last = time.perf_counter()

    def tick(self) -> tuple[float, float]:
        """End a step and return samples per second and the share of waiting, 0 to 1."""
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        weight = 0.1 if self.step_seconds else 1.0  # exponential averages; the first step sets them
        self.step_seconds += weight * (spent - self.step_seconds)
        self.wait_seconds += weight * (self.waited - self.wait_seconds)
        return self.batch_size / self.step_seconds, min(self.wait_seconds / self.step_seconds, 1.0)


class Trainer:
    """Trains a network on an objective; everything random is a function of seed and step, so a resume is exact.

    Args:
        network: Trained in place.
        objective: Data, loss and validation.
        config: Budget, optimiser, schedule.
        run: Where the log and the checkpoints go.
        hardware: Device and number format.
        reporter: Is told the progress.
        keep: Called with the metrics whenever a validation is the best so far, to write the bundle; on rank 0.
        processes: This process among those that train together, connected; None for one alone.
        pretrained: Names of the tensors that came from a checkpoint; see `Optimization`.

    Raises:
        ConfigurationError: The batch does not divide by the processes, or nothing is left to train.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        objective: Objective,
        config: TrainingConfig,
        run: Run,
        hardware: Hardware,
        reporter: Reporter,
        keep: Callable[[nn.Module, Progress], None],
        processes: Processes | None = None,
        pretrained: Collection[str] = (),
    ) -> None:
        self.processes = processes or Processes()
        if config.batch_size % self.processes.world_size:
            raise ConfigurationError(
                f"batch_size: received {config.batch_size} for {self.processes.world_size} processes, which share it; "
                "expected a multiple of their number"
            )
        self.objective, self.config, self.run = objective, config, run
        self.hardware, self.reporter, self.keep = hardware, reporter, keep
        self.size = len(objective.dataset)  # pyright: ignore[reportArgumentType]
        self.steps, self.per_epoch = count_steps(config, self.size)
        self.validate_every = config.validate_every or self.per_epoch
        self.network = network if self.processes.is_alone else synchronise_batch_norm(network, hardware.device)
        if config.compile:
            check_compiler(hardware.device)
        if config.checkpoint_activations:
            enable_activation_checkpointing(network)
        hardware.place_network(network)
        self.optimization = Optimization(
            network, config, steps=self.steps, per_epoch=self.per_epoch, pretrained=pretrained
        )
        self.progress = Progress()
        self.random: list[dict[str, Any]] = []
        self._loader: Any = None  # these two exist while `fit` runs
        self._parallel: Any = None

    def resume(self) -> None:
        """Take up the state of the run's newest checkpoint, or begin if none was written yet.

        Raises:
            ResumeError: There are checkpoints and none can be used, or the data has changed.
        """
        state, problem = self.processes.first(self.run.load_checkpoint)
        if problem:
            self.reporter.note(problem)
        changes: list[str] = []
        if state is not None:
            with parsing(self.run.folder / LAST_NAME, ResumeError):
                changes = self._restore(state)
        if changes:
            self.reporter.note(f"going on, though perhaps not to the bit: {'; '.join(changes)}")
        lost = self.processes.first(partial(self.run.truncate_logs, self.progress.step))
        if lost:
            self.reporter.note(lost)

    def _restore(self, state: dict[str, Any]) -> list[str]:
        """Take up a state, and return what has changed since that a result depends on in its last bits."""
        size = state["data"]["size"]
        if size != self.size:
            raise ResumeError(
                f"{self.run.folder}: an epoch had {size} samples, now {self.size}; resume with the scans that the run "
                "began with"
            )
        check_config(self.run.folder, state["config"], self.config.to_dict())  # a digest holds this one
        self.network.load_state_dict(state["network"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.random = state["random"]
        before = {**state["versions"], "processes": len(self.random), "compile": state["config"]["compile"]}
        now = {"processes": self.processes.world_size, "compile": self.config.compile}
        return compare(before, {**library_versions(self.hardware.device), **now})

    def fit(self) -> Progress:
        """Train to the end of the budget.

        Returns:
            Where the run ended, with the metrics of the best validation.

        Raises:
            NonFiniteLossError: The loss became NaN or infinite; the last checkpoint is from before.
            ExplodingLossError: It rose far above the first ones; the last checkpoint is from before.
            TrainingError: A loader process or another process died, or the disk is full.
            Interrupted: A signal came; a checkpoint has been written.
        """
        batches = StepBatches(
            size=self.size,
            batch_size=self.config.batch_size,
            start=self.progress.step,
            steps=self.steps,
            seed=self.config.seed,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )
        device = self.hardware.device
        self.reporter.begin("training", self.steps, self.progress.step)
        with GracefulStop() as stop, torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._set_random_states()
            try:
                self._parallel = self._parallelize()
                self._loader = start_loader(make_loader(self.objective.dataset, batches, self.config))
                self._train(stop)
            finally:
                # Their threads and processes end here. The workers are told, for they ignore SIGTERM, and the traceback
                # of an error can keep the iterator alive until the process exits, which would then wait for them.
                getattr(self._loader, "_shutdown_workers", lambda: None)()
                self._loader = self._parallel = None
        self.reporter.end()
        return self.progress

    def save(self) -> None:
        """Write a checkpoint of everything that a resume needs; every process must call it."""
        self.random = self.processes.gather(random_states(self.hardware.device))
        self.processes.first(self._write)

    def _train(self, stop: GracefulStop) -> None:
        clock = Clock(self.config.batch_size)
        check = DivergenceCheck(self.config, self.run.folder, self.reporter, self.progress.first_losses)
        while self.progress.step < self.steps and not self._finished_early():
            batch = self._fetch(clock)
            loss, signum = self._step(batch, check, stop)
            self.progress.step += 1
            self._log_step(loss, clock)
            if self._record():
                clock.last = time.perf_counter()  # validations and checkpoints do not count
            if signum:
                self._interrupt(signum)

    def _parallelize(self) -> nn.Module:
        """Return the network as the objective calls it in training."""
        parallel = self.processes.wrap(self.network, self.hardware.device)
        return torch.compile(parallel) if self.config.compile else parallel  # pyright: ignore[reportReturnType]

    def _set_random_states(self) -> None:
        """Seed the global generators, which a dropout draws from, or take them up where they were."""
        rank = self.processes.rank
        if len(self.random) > rank:
            restore_random_states(self.random[rank], self.hardware.device)
        else:
            torch.manual_seed(self.config.seed + rank * 1_000_003)

    def _fetch(self, clock: Clock) -> Any:
        """Return the next batch; what goes wrong with the data in one process ends all."""
        batch = problem = None
        started = time.perf_counter()
        try:
            batch = next_batch(self._loader, self.progress.step)
        except Exception as error:
            problem = error
        clock.waited = time.perf_counter() - started
        self.processes.agree(problem)
        return batch

    def _step(self, batch: Any, check: DivergenceCheck, stop: GracefulStop) -> tuple[float, int]:
        """Learn from a batch; return the mean loss over all processes, and a signal that one of them received."""
        step = self.progress.step
        rate = self.optimization.begin(step)
        with self.processes.watching():
            with self.hardware.autocast():
                loss = self.objective.loss(self._parallel, batch)
            told = self.processes.gather_numbers([loss.item(), stop.received or 0])
            mean = sum(row[0] for row in told) / len(told)
            try:
                self._learn(loss, mean, check, rate)
            except (NonFiniteLossError, ExplodingLossError) as error:  # in every process alike
                self.processes.agree(error)
        return mean, int(max(row[1] for row in told))

    def _learn(self, loss: Tensor, mean: float, check: DivergenceCheck, rate: float) -> None:
        step = self.progress.step
        if not check.accept(mean, step + 1, rate):
            return
        loss.backward()
        if self.optimization.finish(step):
            check.skipped = 0
        else:
            check.refuse("the gradient is not finite", step + 1, rate)

    def _log_step(self, loss: float, clock: Clock) -> None:
        step = self.progress.step
        speed, waiting = clock.tick()
        rate = learning_rate(self.config, step - 1, self.steps, self.per_epoch)
        if self.processes.is_main:
            row = {"step": step, "learning_rate": rate, "loss": loss, "samples_per_second": round(speed, 2)}
            self.run.log_step(row)
        self.reporter.step(step, loss, speed, waiting)

    def _record(self) -> bool:
        """Validate and write a checkpoint where these are due; return whether they were."""
        step = self.progress.step
        validated = step % self.validate_every == 0 or step == self.steps
        if validated:
            self.progress = self.processes.first(self._validate)
        due = validated or bool(self.config.checkpoint_every and step % self.config.checkpoint_every == 0)
        if due:
            self.save()
        return due

    def _validate(self) -> Progress:
        self.network.eval()
        with torch.no_grad():
            metrics = self.objective.validate(self.network)
        score = self.objective.score(metrics)
        progress = self.progress
        self.run.log_validation({"step": progress.step, **metrics})
        self.reporter.validation(progress.step, metrics)
        progress.stale += 1
        if score <= progress.best_score:  # of equals the newest
            progress.best_score, progress.best_step, progress.stale = score, progress.step, 0
            progress.metrics = metrics
            self.keep(self.network, progress)
        return progress

    def _write(self) -> None:
        weights = self.network.state_dict()
        if not all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point()):
            raise NonFiniteLossError(
                f"weights are not finite after step {self.progress.step}; lower the learning rate or set clip_norm in "
                f"a new run, the checkpoint in {self.run.folder} is from before"
            )
        step = self.progress.step
        seen = step * self.config.batch_size
        self.run.save_checkpoint(
            {
                "network": weights,
                "optimizer": self.optimization.optimizer.state_dict(),
                "progress": asdict(self.progress),
                "schedule": {"step": step, "steps": self.steps, "steps_per_epoch": self.per_epoch},
                "data": {"size": self.size, "epoch": seen // self.size, "position": seen % self.size},
                "random": self.random,
                "config": self.config.to_dict(),
                "versions": library_versions(self.hardware.device),
            }
        )

    def _finished_early(self) -> bool:
        if not self.config.patience or self.progress.stale < self.config.patience:
            return False
        self.reporter.note(f"stopped early: no better validation since step {self.progress.best_step}")
        return True

    def _interrupt(self, signum: int) -> None:
        self.save()
        self.reporter.end()
        raise Interrupted(
            signum,
            f"interrupted at step {self.progress.step} of {self.steps}, nothing is lost; go on with the same command "
            f"and --resume --output {self.run.folder}",
        )
