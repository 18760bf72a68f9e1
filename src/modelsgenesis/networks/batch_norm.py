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
    """

    def __init__(self, channels: int, epsilon: float, statistics: Literal["batch", "running"]) -> None:
        super().__init__(channels, eps=epsilon)
        self.statistics: Literal["batch", "running"] = statistics

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the shape is checked by the network
        pass

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """Normalise [b, c, *spatial] per channel."""
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
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        values = rearrange(input.float(), "b c ... -> b c (...)")
        voxels = torch.tensor([values.numel() / values.shape[1]], dtype=torch.float64)
        dist.all_reduce(voxels)  # the last batch of a process may be smaller
        count = voxels.item()
        # Twice over the data, first for the mean: in float32, E[x²] − E[x]² would cancel.
        mean = _total(reduce(values, "b c x -> c", "sum")) / count
        centred = values - mean[:, None]
        variance = _total(reduce(centred.square(), "b c x -> c", "sum")) / count
        momentum = float(self.momentum or 0)
        self.get_buffer("running_mean").lerp_(mean.detach(), momentum)
        self.get_buffer("running_var").lerp_(variance.detach() * (count / max(count - 1, 1)), momentum)
        self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None] + self.bias[:, None]).view_as(input).to(input.dtype)


class SyncBatchNormCuda(BatchNorm, nn.SyncBatchNorm):
    """The same on CUDA, where PyTorch has it: `super().forward` of `BatchNorm` is that of `nn.SyncBatchNorm`."""

    process_group = None  # in torch's words: all processes


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
    """Let every batch norm of this package take its statistics over all processes, in place.

    Args:
        network: Its tensors and their names stay.
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
    for module in network.modules():
        if type(module) is BatchNorm:
            # Another forward over the same tensors: an optimiser or a schedule that knows them already stays right.
            module.__class__ = SyncBatchNormCuda if device.type == "cuda" else SyncBatchNorm
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
            # One context for the first pass, one for the second, which computes the activations anew.
            contexts = partial(lambda level: (nullcontext(), _on_copies(level)), level)
            level.forward = partial(checkpoint, level.forward, use_reentrant=False, context_fn=contexts)
    return network


@contextmanager
def _on_copies(level: nn.Module) -> Iterator[None]:
    """Let batch norms move copies of their running averages; not to move any would save other tensors for autograd."""
    norms = [module for module in level.modules() if isinstance(module, BatchNorm)]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers()]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)
