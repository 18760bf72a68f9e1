"""The loop of pretraining and fine-tuning."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import Interrupted, NonFiniteLossError, TrainingError
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.batches import StepBatches, make_loader
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.optimization import Optimization, count_steps, learning_rate
from modelsgenesis.training.run import Run
from modelsgenesis.training.signals import GracefulStop


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
    """

    step: int = 0
    best_step: int = 0
    best_score: float = math.inf
    stale: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains a network on an objective; everything random is a function of seed and step, so a resume is exact.

    Args:
        network: Trained in place.
        objective: Data, loss and validation.
        config: Budget, optimiser, schedule.
        run: Where the log and the checkpoints go.
        hardware: Device and number format.
        reporter: Is told the progress.
        keep: Called with the metrics whenever a validation is the best so far, to write the bundle.
        processes: This process among those that train together; None for one alone.
        pretrained: Names of the tensors that came from a checkpoint; see `Optimization`.
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
        self.network = hardware.place_network(network)
        self.objective, self.config, self.run = objective, config, run
        self.hardware, self.reporter, self.keep = hardware, reporter, keep
        self.processes = processes or Processes()
        self.progress = Progress()
        self.steps, self.per_epoch = count_steps(config, len(objective.dataset))  # pyright: ignore[reportArgumentType]
        self.validate_every = config.validate_every or self.per_epoch
        self.optimization = Optimization(
            self.network, config, steps=self.steps, per_epoch=self.per_epoch, pretrained=pretrained
        )

    def resume(self) -> None:
        """Take up the state of the run's newest checkpoint.

        Raises:
            ResumeError: There is none.
        """
        state, problem = self.run.load_checkpoint()
        if problem:
            self.reporter.note(problem)
        self.network.load_state_dict(state["network"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.run.truncate_logs(self.progress.step)

    def fit(self) -> Progress:
        """Train to the end of the budget.

        Returns:
            Where the run ended, with the metrics of the best validation.

        Raises:
            NonFiniteLossError: The loss became NaN or infinite; the last checkpoint is from before.
            TrainingError: A loader process died.
            Interrupted: A signal came; a checkpoint has been written.
        """
        batches = StepBatches(
            size=len(self.objective.dataset),  # pyright: ignore[reportArgumentType]
            batch_size=self.config.batch_size,
            start=self.progress.step,
            steps=self.steps,
            seed=self.config.seed,
        )
        loader = iter(make_loader(self.objective.dataset, batches, self.config))
        self.reporter.begin("training", self.steps, self.progress.step)
        clock = _Clock(self.config.batch_size)
        with GracefulStop() as stop:
            while self.progress.step < self.steps and not self._finished_early():
                with clock.waiting():
                    batch = self._next(loader)
                loss = self._step(batch)
                self.progress.step += 1
                self._log_step(loss, clock)
                if self.progress.step % self.validate_every == 0 or self.progress.step == self.steps:
                    self._validate()
                    self.save()
                if stop.received is not None:
                    self._interrupt(stop.received)
        self.reporter.end()
        return self.progress

    def save(self) -> None:
        """Write a checkpoint of everything that a resume needs."""
        self.run.save_checkpoint(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimization.optimizer.state_dict(),
                "progress": asdict(self.progress),
            }
        )

    def _next(self, loader: Any) -> Any:
        try:
            return next(loader)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            message = f"a loader process died at step {self.progress.step}: {error}; resume with fewer workers"
            raise TrainingError(message.replace("\n", " ")) from error

    def _step(self, batch: Any) -> float:
        step = self.progress.step
        rate = self.optimization.begin(step)
        with self.hardware.autocast():
            loss = self.objective.loss(self.network, batch)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
        if not math.isfinite(value) or not self.optimization.finish(step):
            what = "the gradient is not finite" if math.isfinite(value) else f"loss is {value}"
            raise NonFiniteLossError(
                f"{what} at step {step + 1} with learning rate {rate:g}: lower the learning "
                f"rate or set clip_norm, then start again from the checkpoint in {self.run.folder}"
            )
        return value

    def _log_step(self, loss: float, clock: "_Clock") -> None:
        step = self.progress.step
        speed, waiting = clock.tick()
        rate = learning_rate(self.config, step - 1, self.steps, self.per_epoch)
        self.run.log_step({"step": step, "learning_rate": rate, "loss": loss, "samples_per_second": round(speed, 2)})
        self.reporter.step(step, loss, speed, waiting)

    def _validate(self) -> None:
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


class _Clock:
    """Samples a second and the share of time spent waiting for data, over the last steps."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.last = time.perf_counter()
        self.step_seconds = self.wait_seconds = self._waited = 0.0

    def waiting(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited = time.perf_counter() - self._start

    def tick(self) -> tuple[float, float]:
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        # Exponential averages over about ten steps; the first step sets them.
        weight = 0.1 if self.step_seconds else 1.0
        self.step_seconds += weight * (spent - self.step_seconds)
        self.wait_seconds += weight * (self._waited - self.wait_seconds)
        return self.batch_size / self.step_seconds, min(self.wait_seconds / self.step_seconds, 1.0)
