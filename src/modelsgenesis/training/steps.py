"""The steps of a run: their samples, learning rate and update, each a function of seed and step alone.

So neither an interruption nor the number of loader workers and processes changes what is learnt.
"""

import itertools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Generator, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError, GenesisError, TrainingError
from modelsgenesis.training import distributed
from modelsgenesis.training.muon import Muon

_LARGEST = torch.finfo(torch.float32).max


def step_items(
    size: int, batch_size: int, *, start: int, steps: int, seed: int, rank: int = 0, world_size: int = 1
) -> Iterator[list[int]]:
    """Yield the items of each step, from `start` to the end.

    An epoch is every sample once, in an order drawn from seed and epoch. A batch may reach over the end of an epoch,
    so no sample is dropped. Item `epoch * size + index` lets a data set draw anew each epoch.

    Args:
        size: Samples of an epoch.
        batch_size: Samples per step, over all processes.
        start: First step.
        steps: Steps of the whole run.
        seed: Seed of the order.
        rank: This process.
        world_size: Processes; each takes its share of every batch.

    Example:
        >>> list(step_items(3, 2, start=0, steps=3, seed=0))
        [[2, 0], [1, 4], [5, 3]]
    """
    share, epoch, order = batch_size // world_size, -1, torch.empty(0)
    for step in range(start, steps):
        items = []
        first = step * batch_size + rank * share
        for position in range(first, first + share):
            if position // size != epoch:  # positions only grow: no order is drawn twice
                epoch = position // size
                # A prime above any number of epochs: no epoch of one seed has the order of one of the next seed.
                generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
                order = torch.randperm(size, generator=generator)
            items.append(epoch * size + int(order[position % size]))
        yield items


def load_batches(
    dataset: Dataset[Any], config: TrainingConfig, *, start: int, steps: int
) -> Generator[tuple[Any, list[int]], None, None]:
    """Yield this process's batch of each step from `start`, and its items; closing it ends the worker processes.

    Each worker prefetches two batches.

    Raises:
        GenesisError: What the data set raised, in one line also from a worker process.
        TrainingError: A loader process died.
    """
    share = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    size: int = len(dataset)  # pyright: ignore[reportArgumentType]
    items = partial(step_items, size, config.batch_size, start=start, steps=steps, seed=config.seed, **share)
    # By default half of the cores that the processes which torchrun started here share, at most 8.
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    loader = DataLoader(
        dataset,
        batch_sampler=items(),
        num_workers=config.workers if config.workers >= 0 else min(cores // 2, 8),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(config.seed),  # the loader would draw from the global one
        worker_init_fn=_begin_worker,
    )
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # Starting workers installs a handler of SIGCHLD that raises as soon as one dies: in the midst of a step or of
        # the writing of a file. Asking for the next batch tells of it too, where nothing is half done.
        is_its_own = getattr(before, "__module__", "").startswith("torch.")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or is_its_own else before)
    step = start
    try:
        for numbers in items():
            yield next(iterator), numbers
            step += 1
    except GenesisError as error:
        lines = str(error.args[0]).strip().splitlines() if error.args else []
        if len(lines) < 2:
            raise
        # A worker sends its traceback as the message; the error itself is the last line, after the type's name.
        raise TrainingError(f"{lines[-1].partition(': ')[2]}; the last checkpoint is intact") from error
    except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: it died while it sent a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a loader process died at step {step}: {' '.join(str(error).split())}; the last checkpoint is intact, "
            "resume with fewer workers"
        ) from error
    finally:
        # The traceback of an error can keep the iterator alive until the process exits, and that would wait for
        # workers that ignore SIGTERM.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _begin_worker(_: int) -> None:
    # Ctrl-C and a queue's SIGTERM reach every process of the group. It is the trainer that ends the workers, after its
    # step; one that died at once would cost it a batch.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process at once when the one that started it is gone, also by `kill -9`.

    PyTorch's loader processes compare their parent, every five seconds, with the one that they found as they began:
    of one that was killed before that they never notice, and wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class Optimization:
    """Moves the weights of a network; scales and biases are not decayed, parameters without gradient not touched.

    Args:
        network: Its parameters are moved in place.
        config: Budget, optimiser, rates, clipping.
        size: Samples of an epoch.
        pretrained: Names of the tensors that came from a checkpoint, of parameters or buffers. In the first
            `freeze_steps` they stay as they are, and their batch norms normalise as in evaluation; after that
            they warm up and learn at `pretrained_lr_scale` times the rate of the others.

    Attributes:
        limit: Of the loss; a step above it does not move the weights.
        steps: Steps of the whole run.
        per_epoch: Steps of an epoch, the last batch of which may reach into the next.

    Raises:
        ConfigurationError: A name of `pretrained` is not in the network, or nothing is left to train.
    """

    def __init__(
        self, network: nn.Module, config: TrainingConfig, *, size: int, pretrained: Collection[str] = ()
    ) -> None:
        self.network, self.config = network, config
        self.per_epoch = math.ceil(size / config.batch_size)
        self.steps = min(limit for limit in (config.steps, (config.epochs or 0) * self.per_epoch) if limit)
        names = set(pretrained)
        if unknown := sorted(names - set(network.state_dict())):
            raise ConfigurationError(f"pretrained: {unknown[0]!r} and {len(unknown) - 1} more are not in the network")
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not trained:
            raise ConfigurationError("the network has no parameter to train: every one is frozen")
        self.parameters = list(trained.values())
        self._pretrained = [p for name, p in trained.items() if name in names]
        self._norms = [
            module
            for place, module in network.named_modules()
            if isinstance(module, _BatchNorm) and f"{place}.running_mean" in names
        ]
        # Decay draws weights towards zero. That regularises matrices, but a scale of a normalisation belongs near one.
        groups: list[dict[str, Any]] = []
        head = getattr(network, "head_prefix", "head.")

        def kind_of(name: str, parameter: nn.Parameter) -> tuple[bool, bool, bool]:
            # The first and the last layer are not for Muon, as its authors have it.
            hidden = parameter.ndim > 2 and parameter.shape[1] > 1 and not name.startswith(head)
            return name in names, parameter.ndim > 1, hidden and config.optimizer == "muon"

        for old, decayed, kernels in itertools.product((False, True), (True, False), (False, True)):
            members = [p for name, p in trained.items() if kind_of(name, p) == (old, decayed, kernels)]
            if members:
                decay = config.weight_decay if decayed else 0.0
                groups.append({"params": members, "weight_decay": decay, "pretrained": old, "kernels": kernels})
        sgd = partial(torch.optim.SGD, momentum=config.momentum)
        kind = {"sgd": sgd, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[config.optimizer]
        self.optimizer: Any = kind(groups, lr=config.learning_rate, fused=True)
        self.limit = math.inf
        self._is_sound = torch.ones((), dtype=torch.bool, device=self.parameters[0].device)

    def begin(self, step: int) -> float:
        """Make the network and the optimiser ready for a step, counted from 0, and return its learning rate."""
        config = self.config
        rate, scale = config.learning_rate, config.pretrained_lr_scale
        if step < config.warmup_steps:
            rate *= (step + 1) / config.warmup_steps
        elif config.schedule == "halving":
            rate *= 0.5 ** (step // self.per_epoch // config.halving_epochs)
        elif config.schedule == "cosine":
            share = (step - config.warmup_steps) / max(self.steps - config.warmup_steps, 1)
            rate *= (1 + math.cos(math.pi * share)) / 2
        if config.freeze_steps and config.warmup_steps:
            # What was frozen warms up when its turn comes: the first steps of Adam are as large as the learning rate,
            # whatever the gradient, and would wipe out what was learnt.
            scale *= min(max(step + 1 - config.freeze_steps, 0) / config.warmup_steps, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (scale if group["pretrained"] else 1.0)
        self.optimizer.zero_grad(set_to_none=True)  # None is passed over; a zero would still decay and drift
        self.network.train()
        if step < config.freeze_steps:
            for norm in self._norms:
                norm.eval()  # or the running averages would move though the weights do not
        return rate

    def finish(self, step: int, loss: Tensor) -> Tensor:
        """Move the weights by their gradients, as long as those and the loss are finite and the loss within its limit.

        The first step of which that is not true leaves weights and optimiser as they are, and so do all after it.
        Nothing is read from the device.

        Args:
            step: Counted from 0.
            loss: [] of the step.

        Returns:
            [2], the loss and the norm of the gradient.
        """
        if step < self.config.freeze_steps:
            for parameter in self._pretrained:
                parameter.grad = None  # an optimiser passes over it: no decay, no momentum
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # One norm serves both: clipping, and noticing NaN before the weights and the optimiser are spoilt by it.
        norm = nn.utils.get_total_norm(gradients)
        if self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm)
        # NaN is not below anything.
        self._is_sound = self._is_sound & (loss.detach() <= min(self.limit, _LARGEST)) & (norm <= _LARGEST)
        self.optimizer.found_inf = (~self._is_sound).float()  # torch's fused kernels pass over a step where it is 1
        self.optimizer.step()
        return torch.stack((loss.detach(), norm.to(loss.device)))
