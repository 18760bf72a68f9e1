"""Making a trained network learn as fast as a new one again, without changing what it computes."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_PAIRS = (("convolution", "norm"), ("conv", "norm"))  # of the Genesis U-Net and of the nnU-Net family


@torch.no_grad()
def rescale_kernels(network: nn.Module) -> dict[str, float]:
    """Bring every kernel that a normalisation follows back to the size of a random one.

    A normalisation cancels the scale of the kernel before it, so kernels grow while they are trained, and the
    larger a kernel, the less a step of the same learning rate turns it. After a pretraining the deep kernels are
    several times larger than random ones: fine-tuning them at the same rate is that much slower. Divided by that
    factor, the network computes the same, up to the epsilon of the normalisation, and learns like a new one.

    Args:
        network: Changed in place; kernels that no normalisation follows stay.

    Returns:
        The factor of each kernel by the name of its convolution.

    Example:
        >>> from modelsgenesis.configs import GenesisUNetConfig
        >>> from modelsgenesis.networks import build_network
        >>> network = build_network(GenesisUNetConfig(widths=(4, 8)))
        >>> len(rescale_kernels(network))
        6

    References:
        Van Laarhoven, L2 regularization versus batch and weight normalization, 2017: the effective learning rate
        falls with the squared norm of a scale-invariant weight.
    """
    factors: dict[str, float] = {}
    for prefix, module in network.named_modules():
        children = dict(module.named_children())
        for kernel_name, norm_name in _PAIRS:
            if kernel_name in children and norm_name in children:
                name = f"{prefix}.{kernel_name}".lstrip(".")
                factors[name] = _rescale(children[kernel_name], children[norm_name])
    return factors


def _rescale(convolution: nn.Module, norm: nn.Module) -> float:
    weight = convolution.get_parameter("weight")
    random_size = math.sqrt(weight.shape[0] / 3)  # of torch's default: uniform within 1 / sqrt(inputs of an output)
    factor = random_size / max(weight.norm().item(), 1e-12)
    for parameter in convolution.parameters():
        parameter.data = parameter.data * factor  # not in place: it may be mapped from a file, or shared
    if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean = norm.running_mean * factor
        norm.running_var = norm.running_var * factor**2
    return factor
