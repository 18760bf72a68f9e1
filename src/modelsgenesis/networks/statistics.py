"""Batch norm whose statistics are those of the batch of all processes, not of this process's share."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modelsgenesis.networks.layers import BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0].contiguous())  # pyright: ignore[reportReturnType]


class SharedBatchNorm(BatchNorm):
    """Batch norm in training by the statistics of the global batch, on a CPU; in evaluation as `BatchNorm` is.

    PyTorch's `SyncBatchNorm` does not run there. The mean and, around it, the variance are summed over the
    processes, in float32. Outside of a process group it is a plain batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """Normalise [b, c, *spatial] per channel; every process must call it with as many axes."""
        if self.training and dist.is_initialized():
            return self._normalize_together(input)
        return super().forward(input)

    def _normalize_together(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        each = [1, -1, *[1] * (x.ndim - 2)]  # a channel's number beside its voxels
        values = x.float()
        count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64)
        dist.all_reduce(count)
        voxels = count.item()
        mean = _total(values.sum(axes)) / voxels
        centred = values - mean.view(each)
        variance = _total(centred.square().sum(axes)) / voxels
        self._track(mean.detach(), variance.detach() * (voxels / max(voxels - 1, 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(each) + self.bias.view(each)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running averages, unless activations are only being computed anew."""
        if self.recomputing or self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class SharedBatchNormCuda(BatchNorm, nn.SyncBatchNorm):
    """The same on CUDA, where PyTorch has it: `super().forward` of `BatchNorm` is that of `SyncBatchNorm`."""


def _total(values: Tensor) -> Tensor:
    return _Sum.apply(values)  # pyright: ignore[reportReturnType]


def share_statistics(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of this package by one over all processes, in place, with the same tensors.

    Args:
        network: Its names of tensors stay.
        device: Where it will compute.

    Returns:
        The network.

    Example:
        >>> from modelsgenesis.configs import GenesisUNetConfig
        >>> from modelsgenesis.networks import GenesisUNet
        >>> network = share_statistics(GenesisUNet(GenesisUNetConfig(widths=(4, 8))), torch.device("cpu"))
        >>> type(network.encoder.levels[0][0].norm).__name__
        'SharedBatchNorm'
    """
    kind = SharedBatchNormCuda if device.type == "cuda" else SharedBatchNorm
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is BatchNorm:
                shared = kind(module.num_features, module.eps, module.statistics)
                shared.weight, shared.bias = module.weight, module.bias
                for buffer, value in module.named_buffers():
                    setattr(shared, buffer, value)
                shared.train(module.training)
                shared.momentum = module.momentum
                setattr(parent, name, shared)
    return network
