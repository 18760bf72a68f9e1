"""The loop of pretraining and fine-tuning."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError, ExplodingLossError, Interrupted, NonFiniteLossError, ResumeError
from modelsgenesis.hardware import Hardware, check_compiler
from modelsgenesis.networks import enable_activation_checkpointing, synchronise_batch_norm
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.batches import StepBatches, make_loader, next_batch, start_loader
from modelsgenesis.training.clock import Clock
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.guard import Guard
from modelsgenesis.training.objective import Objective, Progress
from modelsgenesis.training.optimization import Optimization, count_steps, learning_rate
from modelsgenesis.training.run import Run, compare
from modelsgenesis.training.signals import GracefulStop
from modelsgenesis.training.state import changed_surroundings, random_states, restore_random_states, surroundings

__all__ = ["Objective", "Progress", "Trainer"]


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
        self._loader: Iterator[Any] | None = None
        self._parallel: nn.Module | None = None

    def resume(self) -> None:
        """Take up the state of the run's newest checkpoint, or begin if none was written yet.

        Raises:
            ResumeError: There are checkpoints and none can be read, or the data has changed.
        """
        state, problem = self.processes.first(self._load)
        if problem:
            self.reporter.note(problem)
        if state is None:
            self.processes.first(partial(self.run.truncate_logs, 0))
            return
        self.network.load_state_dict(state["network"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.random = state["random"]
        changes = changed_surroundings(state["versions"], self.hardware.device)
        if len(self.random) != self.processes.world_size:
            changes.append(f"processes were {len(self.random)}, now {self.processes.world_size}")
        changes += compare({"compile": state["config"]["compile"]}, {"compile": self.config.compile})
        if changes:
            self.reporter.note(f"going on, though perhaps not to the bit: {'; '.join(changes)}")
        self.processes.first(partial(self.run.truncate_logs, self.progress.step))

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
                self._loader = self._parallel = None  # their threads and processes end here
        self.reporter.end()
        return self.progress

    def _load(self) -> tuple[dict[str, Any] | None, str]:
        state, problem = self.run.load_checkpoint()
        if state is not None and state["data"]["size"] != self.size:
            raise ResumeError(
                f"{self.run.folder}: an epoch had {state['data']['size']} samples, now {self.size}; resume with the "
                "scans that the run began with"
            )
        return state, problem

    def save(self) -> None:
        """Write a checkpoint of everything that a resume needs; every process must call it."""
        self.random = self.processes.gather(random_states(self.hardware.device))
        self.processes.first(self._write)

    def _train(self, stop: GracefulStop) -> None:
        clock = Clock(self.config.batch_size)
        guard = Guard(self.config, self.run.folder, self.reporter, self.progress.first_losses)
        while self.progress.step < self.steps and not self._finished_early():
            batch = self._fetch(clock)
            loss, signum = self._step(batch, guard, stop)
            self.progress.step += 1
            self._log_step(loss, clock)
            self._record(clock)
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
        try:
            with clock.waiting():
                batch = next_batch(_running(self._loader), self.progress.step)
        except Exception as error:
            problem = error
        self.processes.agree(problem)
        return batch

    def _step(self, batch: Any, guard: Guard, stop: GracefulStop) -> tuple[float, int]:
        """Learn from a batch; return the mean loss over all processes, and a signal that one of them received."""
        step = self.progress.step
        rate = self.optimization.begin(step)
        with self.processes.watching():
            with self.hardware.autocast():
                loss = self.objective.loss(_running(self._parallel), batch)
            told = self.processes.gather_numbers([loss.item(), stop.received or 0])
            mean = sum(row[0] for row in told) / len(told)
            try:
                self._learn(loss, mean, guard, rate)
            except (NonFiniteLossError, ExplodingLossError) as error:  # in every process alike
                self.processes.agree(error)
        return mean, int(max(row[1] for row in told))

    def _learn(self, loss: Tensor, mean: float, guard: Guard, rate: float) -> None:
        step = self.progress.step
        if not guard.accept(mean, step + 1, rate):
            return
        loss.backward()
        if self.optimization.finish(step):
            guard.moved()
        else:
            guard.refuse("the gradient is not finite", step + 1, rate)

    def _log_step(self, loss: float, clock: Clock) -> None:
        step = self.progress.step
        speed, waiting = clock.tick()
        rate = learning_rate(self.config, step - 1, self.steps, self.per_epoch)
        if self.processes.is_main:
            row = {"step": step, "learning_rate": rate, "loss": loss, "samples_per_second": round(speed, 2)}
            self.run.log_step(row)
        self.reporter.step(step, loss, speed, waiting)

    def _record(self, clock: Clock) -> None:
        """Validate and write a checkpoint where these are due."""
        step = self.progress.step
        validated = step % self.validate_every == 0 or step == self.steps
        if validated:
            self.progress = self.processes.first(self._validate)
        if validated or (self.config.checkpoint_every and step % self.config.checkpoint_every == 0):
            self.save()
            clock.restart()

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
                "versions": surroundings(self.hardware.device),
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


def _running(part: Any) -> Any:
    """Return what exists only while `fit` runs."""
    if part is None:
        raise RuntimeError("the trainer is not running")
    return part
