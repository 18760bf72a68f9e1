"""Making a pretrained network into one for a task."""

import math
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.configs import ClassifierConfig, NetworkConfig, UNetConfig
from modelsgenesis.errors import ConfigurationError, nearest
from modelsgenesis.networks.building import build_on_meta
from modelsgenesis.networks.transfer import AdaptationReport, Stem, transfer

_PAIRS = (("convolution", "norm"), ("conv", "norm"))  # of the Genesis U-Net and of the nnU-Net family

_TASKS = {
    "restoration": "restoration",
    "seg": "segmentation",
    "segmentation": "segmentation",
    "cls": "classification",
    "classification": "classification",
}


def adapt(
    network: nn.Module,
    *,
    task: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    stem: Stem = "repeat",
    hidden: int = 1024,
    levels: tuple[int, ...] | None = None,
    encoder_only: bool = False,
    dims: Literal[2, 3] | None = None,
    depth_axis: int = -1,
    statistics: Literal["batch", "running"] | None = None,
    rescale: bool = False,
    copy: bool = True,
) -> tuple[nn.Module, AdaptationReport]:
    """Make a network for a task out of a pretrained one.

    The encoder always comes along, the decoder where the task has one. The head of a segmentation or
    classification network is always new; restoration keeps the head that is there, unless `num_classes` asks for
    a new one.

    Args:
        network: A U-Net of this package or a classifier, with the weights to start from.
        task: `"segmentation"` or `"seg"`: logits [b, num_classes, *spatial]. `"classification"` or `"cls"`:
            logits [b, num_classes]. `"restoration"`: as the network is, or with `num_classes` channels that end in
            a sigmoid.
        num_classes: Classes, the background of a segmentation among them; channels of a new head that restores.
        in_channels: Channels of the input; None keeps them.
        stem: What becomes of the first convolution when the channels change. `"repeat"` repeats its channels
            and scales them (N from one: each divided by N), so that N equal channels give what one gave;
            `"average"` gives each channel the average of the old ones, unscaled; `"new"` starts it at random.
        hidden: Width of the dense layer of a classification head, 1024 in the paper; 0 for a linear head.
        levels: Encoder levels that a classification head sees; None for the deepest, see `ClassifierConfig`.
        encoder_only: Start the decoder at random too.
        dims: Spatial dimensions; None keeps them. Kernels are inflated along a new axis or averaged over a
            dropped one, scaled so that what is constant along the axis keeps its response.
        depth_axis: The spatial axis of the 3D network that the 2D one lacks.
        statistics: Of batch norm in evaluation; None keeps them.
        rescale: Bring the kernels that a normalisation follows back to the size of random ones, so that they learn
            as fast as those: the network computes the same, see `rescale_kernels`.
        copy: Copy the weights. Without, both networks share them and the old one must not be used any more.

    Returns:
        The network, in evaluation mode on the device of the old one, and what of it came from where.

    Raises:
        ConfigurationError: The task is unknown, or `num_classes` is missing or not positive.
        CheckpointError: Under 90% of the encoder would come from the old network.

    Example:
        >>> import torch
        >>> from modelsgenesis.configs import GenesisUNetConfig
        >>> from modelsgenesis.networks import build_network
        >>> pretrained = build_network(GenesisUNetConfig(widths=(4, 8)))
        >>> network, report = adapt(pretrained, task="seg", num_classes=3)
        >>> report.new
        ('head.weight', 'head.bias')
        >>> network(torch.rand(1, 1, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])

    References:
        Zhou et al. 2021: the encoder initialises classification, encoder and decoder segmentation.
    """
    if task not in _TASKS:
        raise ConfigurationError(f"task: received {task!r}; {nearest(task, _TASKS)}")
    unet = _adapted_unet(cast("NetworkConfig", network.config), in_channels, dims, depth_axis, statistics)
    target = build_on_meta(_for_task(unet, _TASKS[task], num_classes, hidden, levels))
    skipped = ("decoder.",) if encoder_only else ()
    if _TASKS[task] != "restoration" or num_classes is not None:
        skipped = (*skipped, cast("str", target.head_prefix))
    report = transfer(
        network.state_dict(),
        target,
        stem=stem,
        skipped=skipped,
        change_dims=dims is not None,
        depth_axis=depth_axis,
        copy=copy,
    )
    if rescale:
        report = replace(report, rescaled=len(rescale_kernels(target)))
    return target.eval(), report


def _adapted_unet(
    config: NetworkConfig,
    in_channels: int | None,
    dims: Literal[2, 3] | None,
    depth_axis: int,
    statistics: Literal["batch", "running"] | None,
) -> UNetConfig:
    unet: UNetConfig = config.encoder if isinstance(config, ClassifierConfig) else config
    if dims is not None and dims != unet.dims:
        unet = unet.with_dims(dims, depth_axis)
    if in_channels is not None:
        unet = unet.override(in_channels=in_channels)
    return unet if statistics is None else unet.override(statistics=statistics)


def _for_task(
    unet: UNetConfig, task: str, num_classes: int | None, hidden: int, levels: tuple[int, ...] | None
) -> NetworkConfig:
    if task == "restoration":
        return unet if num_classes is None else unet.override(out_channels=num_classes, output="sigmoid")
    if num_classes is None or num_classes < 1:
        raise ConfigurationError(f"num_classes: received {num_classes}, expected 1 or more to train a {task}")
    if task == "segmentation":
        return unet.override(out_channels=num_classes, output="linear")
    return ClassifierConfig(encoder=unet, num_classes=num_classes, hidden=hidden, levels=levels)


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
