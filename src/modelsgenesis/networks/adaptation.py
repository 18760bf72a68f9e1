"""Networks built from configurations, and pretrained ones made into networks for a task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
from einops import reduce, repeat
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.configs.bundle import Task
from modelsgenesis.errors import CheckpointError, ConfigurationError, did_you_mean
from modelsgenesis.networks.batch_norm import BatchNorm
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.layers import Network, UNet
from modelsgenesis.networks.nnunet import NnUNet

Stem = Literal["repeat", "average", "new"]

ENCODER_SHARE = 0.9
"""Less of the encoder than this from the checkpoint is an error: the rest would silently be random."""

_SHOWN = 5  # names in a message before "and N more"
_SHORT = {"seg": "segmentation", "cls": "classification"}


class Classifier(Network):
    """An encoder, global average pooling, dense layers: [b, c, *spatial] to logits [b, num_classes].

    Args:
        config: The encoder's network and the head.

    References:
        Zhou et al. 2021, target classification models: global average pooling, dense 1024 with ReLU, dense to
        the classes. `ClassifierConfig.levels` beside the deepest are a deliberate deviation: what was learnt by
        restoring need not be most telling at the bottom.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        unet = cast("UNet", build_network(config.encoder))  # whose decoder is left behind
        self.encoder, self.size_divisor = unet.encoder, unet.size_divisor
        self.pooled_levels = config.pooled_levels
        channels = sum(self.feature_channels[level] for level in self.pooled_levels)
        self.head = (
            nn.Sequential(nn.Linear(channels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.num_classes))
            if config.hidden
            else nn.Linear(channels, config.num_classes)
        )

    def embed(self, x: Tensor) -> Tensor:
        """Return the averages of the chosen levels: [b, c, *spatial] to [b, sum of their widths]."""
        features = self.features(x)
        return torch.cat([reduce(features[level], "b c ... -> b c", "mean") for level in self.pooled_levels], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, num_classes].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        return self.head(self.embed(x))


def build_network(config: NetworkConfig) -> Network:
    """Build the network that a configuration describes, with random weights.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> sum(p.numel() for p in build_network(GENESIS_UNET_2019).parameters())
        19073665
    """
    if isinstance(config, ClassifierConfig):
        return Classifier(config)
    return GenesisUNet(config) if isinstance(config, GenesisUNetConfig) else NnUNet(config)


def build_on_meta(config: NetworkConfig) -> Network:
    """Build a network for weights that are about to come: no memory, no random values.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> next(build_on_meta(GENESIS_UNET_2019).parameters()).is_meta
        True
    """
    with torch.device("meta"):
        return build_network(config)


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
) -> tuple[Network, "AdaptationReport"]:
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
        statistics: Statistics of batch norm in evaluation; None keeps them.
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
    task = _SHORT.get(task, task)
    if task not in get_args(Task):
        raise ConfigurationError(f"task: received {task!r}; {did_you_mean(task, [*_SHORT, *get_args(Task)])}")
    unet: UNetConfig = cast("Network", network).config.unet
    if dims is not None and dims != unet.dims:
        unet = unet.with_dims(dims, depth_axis)
    changes = {"in_channels": in_channels, "statistics": statistics}
    unet = unet.override(**{name: value for name, value in changes.items() if value is not None})
    target = build_on_meta(_config_for(task, unet, num_classes, hidden, levels))
    # A head of as many classes would fit by its shape, but its classes are others.
    skipped = ("decoder.",) if encoder_only else ()
    if task != "restoration" or num_classes is not None:
        skipped = (*skipped, target.head_prefix)
    axis = None if dims is None else depth_axis
    report = transfer(network.state_dict(), target, stem=stem, skipped=skipped, depth_axis=axis, copy=copy)
    if rescale:
        report = replace(report, rescaled=len(rescale_kernels(target)))
    return target.eval(), report


def _config_for(
    task: str, unet: UNetConfig, num_classes: int | None, hidden: int, levels: tuple[int, ...] | None
) -> NetworkConfig:
    if task == "restoration":
        return unet if num_classes is None else unet.override(out_channels=num_classes, output="sigmoid")
    if num_classes is None or num_classes < 1:
        raise ConfigurationError(f"num_classes: received {num_classes}, expected 1 or more to train a {task}")
    if task == "segmentation":
        return unet.override(out_channels=num_classes, output="linear")
    return ClassifierConfig(encoder=unet, num_classes=num_classes, hidden=hidden, levels=levels)


# --- the transfer of weights ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdaptationReport:
    """Which tensors of a network came from a checkpoint.

    Attributes:
        loaded: Tensors taken as they are.
        adapted: Tensors that were changed to fit, with what was done to them.
        new: Tensors with random values.
        unused: Tensors of the checkpoint that the network has no place for.
        parameters: Parameters of the network.
        loaded_parameters: Those among them that came from the checkpoint, adapted ones included.
        encoder_share: Share of the encoder's parameters that came from the checkpoint, 0 to 1.
        rescaled: Kernels brought back to the size of random ones, see `rescale_kernels`.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    parameters: int
    loaded_parameters: int
    encoder_share: float
    rescaled: int = 0

    def summary(self) -> str:
        """Return one human-readable line."""
        share = 100 * self.loaded_parameters / max(self.parameters, 1)
        counts = f"{self.loaded_parameters:,} of {self.parameters:,} parameters ({share:.2f}%)"
        parts = [f"{counts} from the checkpoint, {100 * self.encoder_share:.2f}% of the encoder"]
        ways = {way: [name for name, how in self.adapted.items() if how == way] for way in self.adapted.values()}
        parts += [f"{way}: {some(names)}" for way, names in ways.items()]
        parts += [f"new: {some(self.new)}"] if self.new else []
        parts += [f"{self.rescaled} kernels rescaled"] if self.rescaled else []
        parts += [f"unused: {some(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def some(names: Sequence[str]) -> str:
    """Join the first few names for a message and count the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def transfer(
    weights: Mapping[str, Tensor],
    target: Network,
    *,
    stem: Stem = "repeat",
    skipped: tuple[str, ...] = (),
    depth_axis: int | None = None,
    copy: bool = True,
) -> AdaptationReport:
    """Load into `target` whatever of `weights` fits by name and shape; the rest of it gets random values.

    Args:
        weights: State dict of a network of the same kind.
        target: The network to fill. On the meta device, only what is not loaded is ever given a value.
        stem: What to do when the first convolution differs in its input channels, see `adapt`.
        skipped: Beginnings of names that are not to be loaded.
        depth_axis: The spatial axis that kernels may gain or lose; None for none.
        copy: Copy the tensors instead of sharing them.

    Returns:
        What was loaded, adapted, left random, and not used.

    Raises:
        CheckpointError: Under 90% of the parameters of `target.encoder` came from `weights`.
    """
    places = target.state_dict()
    # The first convolution is the only layer whose input channels are those of the scan.
    stem_name = next(name for name in places if name.startswith("encoder.") and name.endswith("weight"))
    found: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    for name in [name for name in places if name in weights and not name.startswith(skipped)]:
        place, tensor, ways = places[name], weights[name], []
        if depth_axis is not None and tensor.ndim > 2 and abs(tensor.ndim - place.ndim) == 1:
            transposed = isinstance(target.get_submodule(name.rpartition(".")[0]), _ConvTransposeNd)
            tensor, way = _change_axes(tensor, place, depth_axis, transposed)
            ways.append(way)
        if name == stem_name and stem != "new" and tensor.ndim == place.ndim and tensor.shape[1] != place.shape[1]:
            tensor, way = _change_channels(tensor, place.shape[1], stem)
            ways.append(way)
        if tensor.shape == place.shape:
            found[name] = tensor.clone() if copy and not ways else tensor
            adapted |= {name: " and ".join(ways)} if ways else {}
    _fill(target, found, next(iter(weights.values())).device)
    sizes = {name: parameter.numel() for name, parameter in target.named_parameters()}
    encoder = {name: size for name, size in sizes.items() if name.startswith("encoder.")}
    share = sum(size for name, size in encoder.items() if name in found) / sum(encoder.values())
    if share < ENCODER_SHARE:
        problems = differences({name: places[name] for name in encoder if name not in found}, weights)
        raise CheckpointError(
            f"only {100 * share:.1f}% of the encoder fits the checkpoint, expected {100 * ENCODER_SHARE:.0f}%"
            f" or more: {some(problems)}; choose the configuration that the checkpoint was made with"
        )
    return AdaptationReport(
        loaded=tuple(name for name in found if name not in adapted),
        adapted=adapted,
        new=tuple(name for name in places if name not in found),
        unused=tuple(name for name in weights if name not in found),
        parameters=sum(sizes.values()),
        loaded_parameters=sum(size for name, size in sizes.items() if name in found),
        encoder_share=share,
    )


def _change_axes(tensor: Tensor, place: Tensor, depth_axis: int, transposed: bool) -> tuple[Tensor, str]:
    """Inflate a kernel [out, in, *spatial] along a new axis, or average over a dropped one."""
    # What is constant along the axis keeps its response: an output of a convolution adds up all the taps along the
    # axis, hence a share of the kernel for each tap, or the average times their number; an output of a transposed
    # convolution with stride = kernel sees one tap alone.
    axis = 2 + depth_axis % (max(place.ndim, tensor.ndim) - 2)
    if place.ndim > tensor.ndim:
        taps = place.shape[axis]
        return torch.stack([tensor] * taps, axis) / (1 if transposed else taps), "inflated along a new axis"
    return tensor.mean(axis) * (1 if transposed else tensor.shape[axis]), "averaged along an axis"


def _change_channels(tensor: Tensor, channels: int, stem: Stem) -> tuple[Tensor, str]:
    """Fit a stem [out, in, *spatial] to another number of input channels."""
    old = tensor.shape[1]
    if stem == "average":
        mean = reduce(tensor, "out old ... -> out ...", "mean")
        return repeat(mean, "out ... -> out new ...", new=channels), f"stem of {old} channels averaged for {channels}"
    # [1, 2] becomes [1, 2, 1]: channels repeat in turn, and the sum over them keeps its size.
    index = torch.arange(channels, device=tensor.device) % old
    return tensor[:, index] * (old / channels), f"stem of {old} channels repeated to {channels}"


def _fill(target: Network, found: Mapping[str, Tensor], device: torch.device) -> None:
    """Give random values to the modules that are not wholly in `found`, then assign what is."""
    for prefix, module in target.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if any(tensor.is_meta and f"{prefix}.{name}" not in found for name, tensor in own):
            module.to_empty(device=device, recurse=False)
            target.initialize(module)
    target.load_state_dict(found, strict=False, assign=True)  # the tensors themselves, without a copy


def differences(places: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """List the tensors of a network that weights lack, or have in another shape."""
    missing = [f"missing {name}" for name in places if name not in weights]
    return missing + [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(place.shape)}"
        for name, place in places.items()
        if name in weights and weights[name].shape != place.shape
    ]


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
        kind = "convolution" if "convolution" in children else "conv"  # the Genesis U-Net, the nnU-Net family
        if not {kind, "norm"} <= children.keys():
            continue
        kernel, norm = children[kind].get_parameter("weight"), children["norm"]
        random_size = math.sqrt(kernel.shape[0] / 3)  # torch's default: uniform within 1 / sqrt(inputs of an output)
        factors[f"{prefix}.{kind}"] = factor = random_size / max(kernel.norm().item(), 1e-12)
        for parameter in children[kind].parameters():
            parameter.data = parameter.data * factor  # not in place: it may be mapped from a file, or shared
        if isinstance(norm, BatchNorm):
            norm.running_mean = norm.get_buffer("running_mean") * factor
            norm.running_var = norm.get_buffer("running_var") * factor**2
    return factors
