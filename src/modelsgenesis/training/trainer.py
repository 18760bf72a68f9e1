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
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import enable_activation_checkpointing, synchronise_batch_norm
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed
from modelsgenesis.training.bundles import describe_environment
from modelsgenesis.training.compilation import compiler_failure, is_to_compile
from modelsgenesis.training.readings import Readings
from modelsgenesis.training.run import LAST_NAME, VALIDATION_NAME, Progress, Run, check_config, compare
from modelsgenesis.training.steps import Optimization, load_batches
from modelsgenesis.training.troubles import explained

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
        if distributed.world_size() > 1:
            synchronise_batch_norm(self.network, device)
        if config.checkpoint_activations:
            enable_activation_checkpointing(self.network)
        self.hardware.place(self.network)
        self.size = len(self.objective.dataset)  # pyright: ignore[reportArgumentType]
        self.optimization = Optimization(self.network, config, size=self.size, pretrained=self.pretrained)
        self.steps = self.optimization.steps
        self._gpus = [device] if device.type == "cuda" else []
        self._must_compile = config.compile is True
        self.validate_every = config.validate_every or self.optimization.per_epoch
        self._recent: deque[tuple[float, float]] = deque(maxlen=10)  # seconds of a step, and of waiting for its batch
        self._random: list[dict[str, Any]] = []  # of the checkpoint that a run goes on from, by rank
        self._before: dict[str, str] = {}  # what made that checkpoint
        self.readings = Readings(device)
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
        weights, left = sum(p.numel() for p in self.network.parameters()), self.steps - self.progress.step
        compiled = is_to_compile(self.config, self.hardware, weights, left, self.reporter)
        self.config = config = self.config.override(compile=compiled)
        # What a result to the bit depends on besides the configuration.
        if changes := compare(self._before, self._versions()):
            self.reporter.note(f"resuming, though perhaps not to the bit: {'; '.join(changes)}")
        self.reporter.begin("training", self.steps, self.progress.step)
        self.reporter.best(self.progress.best_step, self.progress.metrics)
        for device in self._gpus:
            torch.cuda.reset_peak_memory_stats(device)
        place = explained(self.network, config, self.run.folder, lambda: self.progress.step + 1)
        # Dropout draws from the global generators; the caller gets theirs back as they were.
        with graceful_stop() as signals, torch.random.fork_rng(self._gpus), self.hardware.products(), place:
            torch.manual_seed(config.seed + distributed.rank() * 1_000_003)  # far apart: no two processes alike
            if len(self._random) > distributed.rank():  # of a resumed run, unless it has more processes now
                self._set_random(self._random[distributed.rank()])
            self._begin(compiled=compiled)
            batches = load_batches(self.objective.dataset, config, start=self.progress.step, steps=self.steps)
            with closing(batches):
                while self.progress.step < self.steps:
                    if 0 < config.patience <= self.progress.validations_since_best:
                        self.reporter.note(f"stopped early: no better validation since step {self.progress.best_step}")
                        break
                    signum = self._step(batches, signals)
                    step = self.progress.step
                    is_validated = step % self.validate_every == 0 or step == self.steps
                    is_saved = bool(signum) or is_validated or step % (config.checkpoint_every or math.inf) == 0
                    self._report(everything=is_saved)
                    if is_validated:
                        self.progress = distributed.on_rank_zero(self._validate)
                    if is_saved:
                        self.save()
                        self.readings.begin()
                    if signum:
                        self.reporter.end()
                        raise Interrupted(
                            signum,
                            f"interrupted at step {step} of {self.steps}, nothing is lost; resume with the same "
                            f"command and --resume --output {self.run.folder}",
                        )
        self.reporter.end()
        if self.progress.peak_memory:
            self.reporter.note(f"peak memory {self.progress.peak_memory / 2**30:.1f} GiB on {self.hardware.device}")
        return self.progress

    def _begin(self, *, compiled: bool) -> None:
        self._set_limit()
        self._plain = self.network
        if distributed.world_size() > 1:  # gradients become the mean over the processes
            self._plain = nn.parallel.DistributedDataParallel(self.network, device_ids=self._gpus or None)
        self._called = cast("nn.Module", torch.compile(self._plain)) if compiled else self._plain
        self._is_tried = not compiled
        self.readings.begin()

    def _step(self, batches: Iterator[tuple[Any, list[int]]], signals: list[int]) -> int:
        """Learn from a batch; return a signal that one of the processes received, else 0. A GPU is not waited for."""
        began, step = time.perf_counter(), self.progress.step + 1
        # Before the step, in whose collectives the others would wait for a process that has no batch.
        with distributed.raise_if_any_failed():
            batch, items = next(batches)
        waited = time.perf_counter() - began
        rate = self.optimization.begin(step - 1)
        loss = self._learn(batch, items)
        numbers = self.optimization.finish(step - 1, distributed.mean(loss))
        self.progress.step = step
        self.readings.add((step, rate, waited), numbers)
        # Every process ends with the status of the signal, whichever of them received it.
        asked = distributed.world_size() == 1 or step % self.readings.every == 0
        return max(distributed.gather(max(signals, default=0))) if asked else 0

    def _learn(self, batch: Any, items: list[int]) -> Tensor:
        """Return the loss of a batch, after its backward pass; without the compiler if that fails in the first step."""
        if self._is_tried:
            return self._differentiate(batch, items)
        self._is_tried = True
        buffers, random = [(buffer, buffer.clone()) for buffer in self.network.buffers()], self._random_state()
        try:
            return self._differentiate(batch, items)
        except Exception as error:  # torch's compiler, and what it calls, raise what they like
            reason = compiler_failure(error)
            if self._must_compile:
                raise ConfigurationError(f"compile: the first step failed: {reason}; set compile=false") from error
        self.reporter.note(f"compile: off, it failed: {reason}")
        self._called, self.config = self._plain, self.config.override(compile=False)
        self.optimization.begin(self.progress.step)
        for buffer, before in buffers:
            buffer.copy_(before)
        self._set_random(random)
        return self._differentiate(batch, items)

    def _differentiate(self, batch: Any, items: list[int]) -> Tensor:
        with self.hardware.autocast():
            loss = self.objective.loss(self._called, batch, items)
        loss.backward()
        return loss.detach()

    def _report(self, *, everything: bool) -> None:
        """Log the steps whose numbers have arrived, or all of them, and stop at the first that diverged."""
        first = self.progress.first_losses
        # At once when the limit can be told: the device has to know it from the first step that it holds for.
        is_full = len(first) < FIRST_LOSSES <= len(first) + self.readings.pending
        for (step, rate, waited), spent, (loss, norm) in self.readings.take(everything=everything or is_full):
            self._recent.append((spent, waited))
            if len(first) < FIRST_LOSSES:
                first.append(loss)
            problem = ""
            if not math.isfinite(loss):
                problem = f"loss is {loss}"
            elif loss > (limit := self.optimization.limit):
                problem = f"loss is {loss:g}, above {limit:g}, divergence_factor times the median of the first ones,"
            elif not math.isfinite(norm):
                problem = "the gradient is not finite"
            if problem:
                with distributed.raise_if_any_failed():  # every process has it, and rank 0 alone reports it
                    raise DivergenceError(
                        f"{problem} at step {step} with learning rate {rate:g}: lower it or set "
                        "clip_norm in a new run; the best network so far and the last checkpoint are in "
                        f"{self.run.folder}, and --init continues from it"
                    )
            seconds, share = map(sum, zip(*self._recent, strict=True))
            speed = self.config.batch_size * len(self._recent) / seconds
            told = {"loss": loss, "samples_per_second": round(speed, 2)}
            if distributed.rank() == 0:
                self.run.log_step({"step": step, "learning_rate": rate, **told})
            self.reporter.step(step, loss, speed, share / seconds)
        if is_full:
            self._set_limit()

    def _set_limit(self) -> None:
        """Let losses explode no further than the first ones allow, once these are known."""
        if len(self.progress.first_losses) >= FIRST_LOSSES:
            median = statistics.median(self.progress.first_losses)
            self.optimization.limit = self.config.divergence_factor * median or math.inf

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

    def _random_state(self) -> dict[str, Any]:
        """Return the state of PyTorch's global generators, from which dropout draws.

        Everything else that is random draws from a generator of its own, seeded by what it is for.
        """
        return {"cpu": torch.get_rng_state(), "cuda": next(map(torch.cuda.get_rng_state, self._gpus), None)}

    def _set_random(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if self._gpus and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.hardware.device)

    def save(self) -> None:
        """Write a checkpoint of everything that a resume needs; every process must call it.

        Raises:
            DivergenceError: A weight is not finite; the checkpoint before is intact.
        """
        weights, random = self.network.state_dict(), distributed.gather(self._random_state())
        with distributed.raise_if_any_failed():
            if not all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point()):
                raise DivergenceError(
                    f"weights are not finite after step {self.progress.step}; lower the learning rate or set clip_norm "
                    f"in a new run, the checkpoint in {self.run.folder} is from before"
                )
        self.progress.seconds = time.monotonic() - self._began
        self.progress.peak_memory = max([self.progress.peak_memory, *map(torch.cuda.max_memory_allocated, self._gpus)])
        state = {  # the place in the schedule and in the data follows from the step
            "network": weights,
            "optimizer": self.optimization.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "size": self.size,
            "random": random,
            "config": self.config.to_dict(),
            "versions": self._versions(),
        }
        distributed.on_rank_zero(partial(self.run.save_checkpoint, state))

    def _versions(self) -> dict[str, str]:
        return {"modelsgenesis": __version__, **describe_environment(self.hardware, self.config)}

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
                self._before = dict(state["versions"])
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
