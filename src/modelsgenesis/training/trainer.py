"""The loop of pretraining and fine-tuning: begin with `Trainer.fit`.

Everything random is a function of the seed and the step, so that a resumed run is the uninterrupted one to the bit and
several processes see what one would.
"""

import math
import signal
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from modelsgenesis._version import __version__
from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError, Interrupted, TrainingError
from modelsgenesis.files import parsing
from modelsgenesis.hardware import Hardware, check_compiler
from modelsgenesis.networks import enable_activation_checkpointing, synchronise_batch_norm
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed
from modelsgenesis.training.bundles import describe_environment
from modelsgenesis.training.run import LAST_NAME, VALIDATION_NAME, Progress, Run, check_config, compare
from modelsgenesis.training.steps import Optimization, load_batches

FIRST_LOSSES = 20  # a single batch says little: the loss is compared with the median of so many


class DivergenceError(TrainingError):
    """The loss, a gradient or a weight is NaN or infinite, or the loss exploded."""


class Objective(ABC):
    """A kind of training, as the loop sees it.

    Attributes:
        dataset: Maps an item `epoch * len(dataset) + index` to a sample; its length is the samples of an epoch.
    """

    dataset: Dataset[Any]

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any, items: Sequence[int]) -> Tensor:
        """Return the mean loss of a batch of these items of the data set; the network is called under autocast."""

    @abstractmethod
    def validate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Measure the network, in evaluation mode and without gradients.

        Returns:
            The number that decides which network is kept, lower is better, and the metrics.
        """


@dataclass(kw_only=True, eq=False)
class Trainer:
    """Trains a network on an objective and keeps the best by validation.

    Args:
        network: Trained in place.
        objective: Data, loss and validation.
        config: Budget, optimiser, schedule.
        run: Where the log and the checkpoints go.
        hardware: Device and number format.
        reporter: Receives the progress.
        on_validation: Called on rank 0 after each with where the run is, its metrics, and whether it is the best so
            far: to write the bundle.
        pretrained: Names of the tensors that came from a checkpoint; see `Optimization`.

    Attributes:
        progress: Where the run is.

    Raises:
        ConfigurationError: The batch does not divide by the processes, or nothing is left to train.
    """

    network: nn.Module
    objective: Objective
    config: TrainingConfig
    run: Run
    hardware: Hardware
    reporter: Reporter
    on_validation: Callable[[Progress, dict[str, float], bool], None]
    pretrained: Collection[str] = ()
    progress: Progress = field(default_factory=Progress, init=False)

    def __post_init__(self) -> None:
        config, device = self.config, self.hardware.device
        if config.batch_size % distributed.world_size():
            raise ConfigurationError(
                f"batch_size: received {config.batch_size} for {distributed.world_size()} processes, which share it; "
                "expected a multiple of their number"
            )
        if config.compile:
            check_compiler(device)
        if distributed.world_size() > 1:
            synchronise_batch_norm(self.network, device)
        if config.checkpoint_activations:
            enable_activation_checkpointing(self.network)
        self.hardware.place(self.network)
        self.size = len(self.objective.dataset)  # pyright: ignore[reportArgumentType]
        self.optimization = Optimization(self.network, config, size=self.size, pretrained=self.pretrained)
        self.steps = self.optimization.steps
        self.validate_every = config.validate_every or self.optimization.per_epoch
        self._recent: deque[tuple[float, float]] = deque(maxlen=10)  # seconds of a step, and of waiting for its batch
        self._random: list[dict[str, Any]] = []  # of the checkpoint that a run goes on from, by rank
        self._began = time.monotonic()

    def fit(self) -> Progress:
        """Train to the end of the budget.

        Returns:
            Where the run ended, with the metrics of the best validation.

        Raises:
            DivergenceError: The loss became NaN or infinite or exploded; the last checkpoint is from before.
            TrainingError: A loader process died, or the disk is full.
            Interrupted: A signal came; a checkpoint has been written.
        """
        config, device, rank, start = self.config, self.hardware.device, distributed.rank(), self.progress.step
        gpus = [device] if device.type == "cuda" else []
        self.reporter.begin("training", self.steps, start)
        self.reporter.best(self.progress.best_step, self.progress.metrics)
        # Dropout draws from the global generators; the caller gets theirs back as they were.
        with graceful_stop() as signals, torch.random.fork_rng(gpus):
            torch.manual_seed(config.seed + rank * 1_000_003)  # further apart than usual seeds: no two processes alike
            if len(self._random) > rank:  # of a resumed run, unless it has more processes now
                state = self._random[rank]
                torch.set_rng_state(state["cpu"])
                if gpus and state["cuda"] is not None:
                    torch.cuda.set_rng_state(state["cuda"], device)
            network = self.network
            if distributed.world_size() > 1:  # gradients become the mean over the processes
                network = nn.parallel.DistributedDataParallel(network, device_ids=gpus or None)
            if config.compile:
                network = cast("nn.Module", torch.compile(network))
            batches = load_batches(self.objective.dataset, config, start=start, steps=self.steps)
            with closing(batches):
                while self.progress.step < self.steps:
                    if 0 < config.patience <= self.progress.validations_since_best:
                        self.reporter.note(f"stopped early: no better validation since step {self.progress.best_step}")
                        break
                    signum = self._step(network, batches, signals)
                    step = self.progress.step
                    if is_validated := step % self.validate_every == 0 or step == self.steps:
                        self.progress = distributed.on_rank_zero(self._validate)
                    if signum or is_validated or (config.checkpoint_every and step % config.checkpoint_every == 0):
                        self.save()
                    if signum:
                        self.reporter.end()
                        raise Interrupted(
                            signum,
                            f"interrupted at step {step} of {self.steps}, nothing is lost; resume with the same "
                            f"command and --resume --output {self.run.folder}",
                        )
        self.reporter.end()
        return self.progress

    def _step(self, network: nn.Module, batches: Iterator[tuple[Any, list[int]]], signals: list[int]) -> int:
        """Learn from a batch and log it; return a signal that one of the processes received, else 0."""
        began, first, step = time.perf_counter(), self.progress.first_losses, self.progress.step + 1
        # Before the step, in whose collectives the others would wait for a process that has no batch.
        with distributed.raise_if_any_failed():
            batch, items = next(batches)
        waited = time.perf_counter() - began
        rate = self.optimization.begin(step - 1)
        with self.hardware.autocast():
            loss = self.objective.loss(network, batch, items)
        # Everyone learns what the others know before the weights move: all end or stop together.
        losses, signums = zip(*distributed.gather((loss.item(), max(signals, default=0))), strict=True)
        average, limit = sum(losses) / len(losses), math.inf
        if len(first) < FIRST_LOSSES:
            first.append(average)
        else:
            limit = self.config.divergence_factor * statistics.median(first) or math.inf
        problem = ""
        if not math.isfinite(average):
            problem = f"loss is {average}"
        elif average > limit:
            problem = f"loss is {average:g}, above {limit:g}, divergence_factor times the median of the first ones,"
        else:
            loss.backward()
            if not self.optimization.finish(step - 1):
                problem = "the gradient is not finite"
        if problem:
            with distributed.raise_if_any_failed():  # every process has it, and rank 0 alone reports it
                raise DivergenceError(
                    f"{problem} at step {step} with learning rate {rate:g}: lower it or set clip_norm in a new run; "
                    f"the best network so far and the last checkpoint are in {self.run.folder}, and --init continues "
                    "from it"
                )
        self.progress.step = step
        self._recent.append((time.perf_counter() - began, waited))
        spent, waited = map(sum, zip(*self._recent, strict=True))
        speed = self.config.batch_size * len(self._recent) / spent
        if distributed.rank() == 0:
            row = {"step": step, "learning_rate": rate, "loss": average, "samples_per_second": round(speed, 2)}
            self.run.log_step(row)
        self.reporter.step(step, average, speed, waited / spent)
        # Every process ends with the status of the signal, whichever of them received it.
        return max(signums)

    def _validate(self) -> Progress:
        """Measure the network and keep it if it is the best so far; on rank 0."""
        progress = self.progress
        self.reporter.validating()
        self.network.eval()
        with torch.no_grad():
            score, metrics = self.objective.validate(self.network)
        is_best = score <= progress.best_score  # on ties, the most recent
        progress.validations_since_best = 0 if is_best else progress.validations_since_best + 1
        self.run.log_step({"step": progress.step, **metrics}, VALIDATION_NAME)
        self.reporter.validation(progress.step, metrics, is_best)
        if is_best:
            progress.best_score, progress.best_step, progress.metrics = score, progress.step, metrics
        progress.seconds = time.monotonic() - self._began
        self.on_validation(progress, metrics, is_best)
        return progress

    def save(self) -> None:
        """Write a checkpoint of everything that a resume needs; every process must call it.

        Raises:
            DivergenceError: A weight is not finite; the checkpoint before is intact.
        """
        device, weights = self.hardware.device, self.network.state_dict()
        # Of PyTorch's global generators, from which dropout draws. Everything else that is random draws from a
        # generator of its own, seeded by what it is for.
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        random = distributed.gather({"cpu": torch.get_rng_state(), "cuda": on_device})
        with distributed.raise_if_any_failed():
            if not all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point()):
                raise DivergenceError(
                    f"weights are not finite after step {self.progress.step}; lower the learning rate or set clip_norm "
                    f"in a new run, the checkpoint in {self.run.folder} is from before"
                )
        self.progress.seconds = time.monotonic() - self._began
        state = {  # the place in the schedule and in the data follows from the step
            "network": weights,
            "optimizer": self.optimization.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "size": self.size,
            "random": random,
            "config": self.config.to_dict(),
            "versions": {"modelsgenesis": __version__, **describe_environment(self.hardware, self.config)},
        }
        distributed.on_rank_zero(partial(self.run.save_checkpoint, state))

    def resume(self) -> None:
        """Take up the state of the run's newest checkpoint, or begin if none was written yet.

        Raises:
            TrainingError: There are checkpoints and none can be used, or the data has changed.
        """
        folder = self.run.folder
        state, problem = distributed.on_rank_zero(self.run.load_checkpoint)
        if problem:
            self.reporter.note(problem)
        if state is not None:
            with parsing(folder / LAST_NAME, TrainingError):
                if state["size"] != self.size:
                    raise TrainingError(
                        f"{folder}: an epoch had {state['size']} samples, now {self.size}; resume with the scans that "
                        "the run began with"
                    )
                check_config(folder, state["config"], self.config.to_dict())  # a digest holds this one
                self.network.load_state_dict(state["network"])
                self.optimization.optimizer.load_state_dict(state["optimizer"])
                self.progress, self._random = Progress(**state["progress"]), state["random"]
                self._began -= self.progress.seconds
                # What a result to the bit depends on besides the configuration.
                now = {"modelsgenesis": __version__, **describe_environment(self.hardware, self.config)}
                if changes := compare(state["versions"], now):
                    self.reporter.note(f"resuming, though perhaps not to the bit: {'; '.join(changes)}")
        lost = distributed.on_rank_zero(partial(self.run.truncate_logs, self.progress.step))
        if lost:
            self.reporter.note(lost)


@contextmanager
def graceful_stop() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end a run between two steps, not in the middle of a file.

    Gives a list to which the number of the first signal is added; the second ends the process at once. Outside the
    main thread of a program, where Python allows no handlers, the program that called us handles its signals.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def remember(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        for number in before:
            signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        before |= {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
