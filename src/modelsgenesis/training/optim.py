"""Budget, learning rate and optimiser, and the gentler treatment of weights that came from a checkpoint."""

import itertools
import math
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError


def count_steps(config: TrainingConfig, size: int) -> tuple[int, int]:
    """Return the steps of the whole run and of an epoch of `size` samples, the last rounded up.

    Example:
        >>> count_steps(TrainingConfig(steps=100, epochs=3, batch_size=2), 7)
        (12, 4)
    """
    per_epoch = math.ceil(size / config.batch_size)
    limits = [config.steps, config.epochs and config.epochs * per_epoch]
    return min(limit for limit in limits if limit), per_epoch


def learning_rate(config: TrainingConfig, step: int, steps: int, per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Example:
        >>> config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0)
        >>> [round(learning_rate(config, step, 100, 50), 3) for step in (0, 9, 55, 99)]
        [0.1, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "halving":
        return config.learning_rate * 0.5 ** (step // per_epoch // config.halving_epochs)
    if config.schedule == "cosine":
        share = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
        return config.learning_rate * (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate


class Optimization:
    """Moves the weights of a network; scales and biases are not decayed, parameters without gradient not touched.

    Args:
        network: Its parameters are moved in place.
        config: Optimiser, rates, clipping.
        size: Samples of an epoch.
        pretrained: Names of the tensors that came from a checkpoint, of parameters or buffers. In the first
            `freeze_steps` they stay as they are, and their batch norms normalise as in evaluation; after that
            they warm up and learn at `pretrained_lr_scale` times the rate of the others.

    Attributes:
        steps: Steps of the whole run.
        per_epoch: Steps of an epoch.

    Raises:
        ConfigurationError: A name of `pretrained` is not in the network, or nothing is left to train.
    """

    def __init__(
        self, network: nn.Module, config: TrainingConfig, *, size: int, pretrained: Collection[str] = ()
    ) -> None:
        self.network, self.config = network, config
        self.steps, self.per_epoch = count_steps(config, size)
        names = set(pretrained)
        unknown = sorted(names - set(network.state_dict()))
        if unknown:
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
        for old, decayed in itertools.product((False, True), (True, False)):
            members = [p for name, p in trained.items() if (name in names) is old and (p.ndim > 1) is decayed]
            if members:
                decay = config.weight_decay if decayed else 0.0
                groups.append({"params": members, "weight_decay": decay, "pretrained": old})
        sgd = partial(torch.optim.SGD, momentum=config.momentum)
        kind = {"sgd": sgd, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        self.optimizer: torch.optim.Optimizer = kind(groups, lr=config.learning_rate, fused=True)

    def begin(self, step: int) -> float:
        """Make the network and the optimiser ready for a step, counted from 0, and return its learning rate."""
        rate = learning_rate(self.config, step, self.steps, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (self._pretrained_scale(step) if group["pretrained"] else 1.0)
        self.optimizer.zero_grad(set_to_none=True)  # None is passed over; a zero would still decay and drift
        self.network.train()
        if step < self.config.freeze_steps:
            for norm in self._norms:
                norm.eval()  # or the running averages would move though the weights do not
        return rate

    def finish(self, step: int) -> bool:
        """Move the weights by their gradients, unless one of these is not finite; tell whether they moved."""
        if step < self.config.freeze_steps:
            for parameter in self._pretrained:
                parameter.grad = None  # an optimiser passes over it: no decay, no momentum
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # One norm serves both: clipping, and noticing NaN before the weights and the optimiser are spoilt by it.
        norm = nn.utils.get_total_norm(gradients)
        if not math.isfinite(norm.item()):
            return False
        if self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm)
        self.optimizer.step()
        return True

    def _pretrained_scale(self, step: int) -> float:
        """Return the share of the learning rate for what came from a checkpoint.

        What was frozen warms up when its turn comes: the first steps of Adam are as large as the learning rate,
        whatever the gradient, and would wipe out what was learnt.
        """
        scale, frozen, warmup = self.config.pretrained_lr_scale, self.config.freeze_steps, self.config.warmup_steps
        if not frozen or not warmup:
            return scale
        return scale * min(max(step + 1 - frozen, 0) / warmup, 1.0)
