"""Batch norm by the batch's own statistics in evaluation, and by those of all processes in training.

Activation checkpointing lives here too, since its second pass must not move the running averages again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class BatchNorm(_BatchNorm):
    """Batch norm for any number of dimensions that can go on using the batch's statistics in evaluation.

    The release of 2019 ran its networks in training mode at inference too, so its weights only work with the
    statistics of the batch at hand: `statistics="batch"`. Unlike there, evaluation leaves the running averages alone:
    inference has no side effect.

    Attributes:
        recomputing: Activations are being computed anew for the gradients: leave the running averages alone.
    """

    def __init__(self, channels: int, epsilon: float, statistics: Literal["batch", "running"]) -> None:
        super().__init__(channels, eps=epsilon)
        self.statistics: Literal["batch", "running"] = statistics
        self.recomputing = False

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the shape is checked by the network
        pass

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """Normalise [b, c, *spatial] per channel."""
        if self.recomputing and self.training and self.running_mean is not None and self.running_var is not None:
            averages = self.running_mean.clone(), self.running_var.clone()  # the same call, which moves copies
            return functional.batch_norm(input, *averages, self.weight, self.bias, training=True, eps=self.eps)
        if self.statistics == "batch" and not self.training:
            return functional.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(input)


class SyncBatchNorm(BatchNorm):
    """Batch norm in training by the statistics of the global batch, on a CPU; in evaluation as `BatchNorm` is.

    PyTorch's `SyncBatchNorm` does not run there. The mean and, around it, the variance are summed over the
    processes, in float32. Outside of a process group it is a plain batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """Normalise [b, c, *spatial] per channel; every process must call it with as many axes."""
        return self._synchronised(input) if self.training and dist.is_initialized() else super().forward(input)

    def _synchronised(self, x: Tensor) -> Tensor:
        values = rearrange(x.float(), "b c ... -> b c (...)")
        count = torch.tensor([values.numel() / values.shape[1]], dtype=torch.float64)
        dist.all_reduce(count)  # the last batch of a process may be smaller
        voxels = count.item()
        mean = _total(reduce(values, "b c x -> c", "sum")) / voxels
        centred = values - mean[:, None]
        variance = _total(reduce(centred.square(), "b c x -> c", "sum")) / voxels
        self._track(mean.detach(), variance.detach() * (voxels / max(voxels - 1, 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None] + self.bias[:, None]).view(x.shape).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running averages, unless activations are only being computed anew."""
        if self.recomputing or self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class SyncBatchNormCuda(BatchNorm, nn.SyncBatchNorm):
    """The same on CUDA, where PyTorch has it: `super().forward` of `BatchNorm` is that of `nn.SyncBatchNorm`."""


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0].contiguous())


def _total(values: Tensor) -> Tensor:
    return _Sum.apply(values)  # pyright: ignore[reportReturnType]


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of this package by one over all processes, in place, with the same tensors.

    Args:
        network: Its names of tensors stay.
        device: Where it will compute.

    Returns:
        The network.

    Example:
        >>> from modelsgenesis.configs import GenesisUNetConfig
        >>> from modelsgenesis.networks import GenesisUNet
        >>> network = synchronise_batch_norm(GenesisUNet(GenesisUNetConfig(widths=(4, 8))), torch.device("cpu"))
        >>> type(network.encoder.levels[0][0].norm).__name__
        'SyncBatchNorm'
    """
    kind = SyncBatchNormCuda if device.type == "cuda" else SyncBatchNorm
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is BatchNorm:
                synced = kind(module.num_features, module.eps, module.statistics)
                synced.weight, synced.bias = module.weight, module.bias
                for buffer, value in module.named_buffers():
                    setattr(synced, buffer, value)
                synced.train(module.training)
                synced.momentum = module.momentum
                setattr(parent, name, synced)
    return network


def enable_activation_checkpointing(network: nn.Module) -> nn.Module:
    """Let every level of a U-Net keep its input alone and compute the rest anew for the gradients, in place.

    The results are the same; the running averages of batch norms move once a step, as ever. Tensors keep their
    names.

    Args:
        network: Encoder-decoder or classifier of this package.

    Returns:
        The network.
    """
    for part in (network.encoder, getattr(network, "decoder", None)):
        for level in getattr(part, "levels", None) or getattr(part, "stages", None) or ():
            contexts = partial(_first_and_second_pass, level)
            level.forward = partial(checkpoint, level.forward, use_reentrant=False, context_fn=contexts)
    return network


def _first_and_second_pass(level: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), _recomputing(level)


@contextmanager
def _recomputing(level: nn.Module) -> Iterator[None]:
    norms = [module for module in level.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.recomputing = True
    try:
        yield
    finally:
        for norm in norms:
            norm.recomputing = False
