"""A configuration becomes a network, and a pretrained network one for a task."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from html import escape
from operator import methodcaller
from typing import Literal, cast, get_args

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, NetworkConfig, UNetConfig
from modelsgenesis.configs.bundle import Task
from modelsgenesis.errors import ConfigurationError, did_you_mean, some
from modelsgenesis.networks.batch_norm import BatchNorm
from modelsgenesis.networks.genesis_unet import GenesisUNet, Network
from modelsgenesis.networks.nnunet import NnUNet

SHORT_TASKS = {"seg": "segmentation", "cls": "classification"}
"""What a task may be called beside its name."""


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
        unet = build_network(config.encoder)  # whose decoder is left behind
        self.encoder, self.size_divisor = unet.encoder, unet.size_divisor
        self.pooled_levels = config.pooled_levels
        channels = sum(config.encoder.widths[level] for level in self.pooled_levels)
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


def build_network(config: NetworkConfig, device: str | None = None) -> Network:
    """Build the network that a configuration describes, with random weights.

    Args:
        config: Its shape.
        device: Where to; on `"meta"`, for weights that are about to come, it takes no memory and no random values.

    Example:
        >>> from modelsgenesis.configs import GENESIS_UNET_2019
        >>> sum(p.numel() for p in build_network(GENESIS_UNET_2019, "meta").parameters())
        19073665
    """
    with torch.device(device) if device else nullcontext():
        if isinstance(config, ClassifierConfig):
            return Classifier(config)
        return GenesisUNet(config) if isinstance(config, GenesisUNetConfig) else NnUNet(config)


@dataclass(frozen=True, repr=False)
class AdaptationReport:
    """Which tensors of a network came from a checkpoint.

    Attributes:
        loaded: Tensors taken as they are.
        adapted: Tensors that were changed to fit, with what was done to them.
        new: Tensors with random values.
        unused: Tensors of the checkpoint that the network has no place for.
        parameters: Parameters of the network.
        loaded_parameters: Those among them that came from the checkpoint, adapted ones included.
        rescaled: Kernels brought back to the size of random ones, see `rescale_kernels`.
        renewed: Normalisations whose scales and shifts begin anew, see `renew_norms`.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    parameters: int
    loaded_parameters: int
    rescaled: int = 0
    renewed: int = 0

    def __repr__(self) -> str:
        return f"AdaptationReport({self.summary()})"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return escape(self.summary()).replace("; ", "<br>")

    def summary(self) -> str:
        """Return one human-readable line."""
        share = 100 * self.loaded_parameters / max(self.parameters, 1)
        counts = f"{self.loaded_parameters:,} of {self.parameters:,} parameters ({share:.2f}%)"
        parts = [f"{counts} from the checkpoint"]
        ways = {way: [name for name, how in self.adapted.items() if how == way] for way in self.adapted.values()}
        parts += [f"{way}: {some(names)}" for way, names in ways.items()]
        parts += [f"new: {some(self.new)}"] if self.new else []
        parts += [f"{self.rescaled} kernels rescaled"] if self.rescaled else []
        parts += [f"{self.renewed} norms begin anew"] if self.renewed else []
        parts += [f"unused: {some(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def adapt(
    network: nn.Module,
    *,
    task: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    hidden: int = 1024,
    levels: tuple[int, ...] | None = None,
    encoder_only: bool = False,
    dims: Literal[2, 3] | None = None,
    statistics: Literal["batch", "running"] | None = None,
    rescale: bool = False,
    fresh_norms: bool = False,
    copy: bool = True,
) -> tuple[Network, AdaptationReport]:
    """Make a network for a task out of a pretrained one.

    The encoder always comes along, the decoder where the task has one. The head of a segmentation or
    classification network is always new; without a task, or to restore, the head that is there is kept, unless
    `num_classes` asks for a new one.

    Args:
        network: A U-Net of this package or a classifier, with the weights to start from.
        task: `"segmentation"` or `"seg"`: logits [b, num_classes, *spatial]. `"classification"` or `"cls"`:
            logits [b, num_classes]. `"restoration"`: as the network is, or with `num_classes` channels that end in
            a sigmoid. None: the task and the head of the network.
        num_classes: Classes, the background of a segmentation among them; channels of a new head that restores.
        in_channels: Channels of the input; None keeps them. The kernels of the first convolution are repeated and
            scaled (N from one: each divided by N), so that N equal channels give what one gave.
        hidden: Width of the dense layer of a classification head, 1024 in the paper; 0 for a linear head.
        levels: Encoder levels that a classification head sees; None for the deepest, see `ClassifierConfig`.
        encoder_only: Start the decoder at random too.
        dims: Spatial dimensions; None keeps them. Kernels are inflated along a new last axis or averaged over it, and
            scaled so that what is constant along the axis keeps its response.
        statistics: Statistics of batch norm in evaluation; None keeps them.
        rescale: Bring the kernels that a normalisation follows back to the size of random ones, so that they learn
            as fast as those: the network computes the same, see `rescale_kernels`.
        fresh_norms: Let the scales and shifts of normalisations begin anew, see `renew_norms`: the network computes
            something else.
        copy: Copy the weights. Without, both networks share them and the old one must not be used any more.

    Returns:
        The network, in evaluation mode on the device of the old one, and what of it came from where.

    Raises:
        ConfigurationError: The task is unknown, or `num_classes` is missing or not positive.

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
    network = getattr(network, "network", network)  # of a model with its configuration
    old, task = cast("Network", network).config, SHORT_TASKS.get(task or "", task)
    if task is not None and task not in get_args(Task):
        raise ConfigurationError(f"task: received {task!r}; {did_you_mean(task, [*SHORT_TASKS, *get_args(Task)])}")
    if task is None and isinstance(old, ClassifierConfig):
        task = None if num_classes is None else "classification"
        if task is None and (levels is not None or hidden != 1024):
            raise ConfigurationError("hidden, levels: received for a head that stays; name num_classes for a new one")
    new_head = task not in (None, "restoration") or num_classes is not None
    if new_head and (num_classes is None or num_classes < 1):
        raise ConfigurationError(f"num_classes: received {num_classes}, expected 1 or more to train a {task}")
    unet: UNetConfig = old.unet
    if dims not in (None, unet.dims):
        unet = unet.with_dims(dims)
    changes = {"in_channels": in_channels, "statistics": statistics}
    if task != "classification" and num_classes is not None:
        changes |= {"out_channels": num_classes, "output": "sigmoid" if task == "restoration" else "linear"}
    config = replace(unet, **{name: value for name, value in changes.items() if value is not None})
    if task is None and isinstance(old, ClassifierConfig):
        config = replace(old, encoder=config)
    elif task == "classification":
        config = ClassifierConfig(encoder=config, num_classes=num_classes or 0, hidden=hidden, levels=levels)
    target = build_network(config, "meta")
    # A head of as many classes would fit by its shape, but its classes are others.
    new = ("decoder.",) if encoder_only else ()
    new += (target.head_prefix,) if new_head else ()
    report = _transfer(network.state_dict(), target, new, copy)
    rescaled = len(rescale_kernels(target)) if rescale else 0
    renewed = renew_norms(target) if fresh_norms else 0
    report = replace(report, rescaled=rescaled, renewed=renewed)
    return target.eval(), report


def _transfer(weights: Mapping[str, Tensor], target: Network, new: tuple[str, ...], copy: bool) -> AdaptationReport:
    """Load into `target`, on the meta device, what fits by name and shape; what is left gets random values.

    Args:
        weights: State dict of a network of the same kind.
        target: The network to fill.
        new: Beginnings of names that are not to be loaded.
        copy: Copy the tensors instead of sharing them.
    """
    places, device = target.state_dict(), next(iter(weights.values())).device
    # The first convolution is the only layer whose input channels are those of the scan.
    stem = next(name for name in places if name.startswith("encoder.") and name.endswith("weight"))
    found: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    for name in [name for name in places if name in weights and not name.startswith(new)]:
        place, tensor, ways = places[name], weights[name], []
        if tensor.ndim > 2 and tensor.ndim != place.ndim:
            # What is constant along the last axis keeps its response: an output of a convolution adds up all the taps
            # along the axis, hence a share of the kernel for each tap, or the average times their number; an output
            # of a transposed convolution with stride = kernel sees one tap alone.
            transposed = isinstance(target.get_submodule(name.rpartition(".")[0]), _ConvTransposeNd)
            if place.ndim > tensor.ndim:
                taps, way = place.shape[-1], "inflated along a new axis"
                tensor = torch.stack([tensor] * taps, -1) / (1 if transposed else taps)
            else:
                way = "averaged along an axis"
                tensor = tensor.mean(-1) * (1 if transposed else tensor.shape[-1])
            ways.append(way)
        if name == stem and tensor.shape[1] != place.shape[1]:
            # [1, 2] becomes [1, 2, 1]: channels repeat in turn, and the sum over them keeps its size.
            old, channels = tensor.shape[1], place.shape[1]
            tensor = tensor[:, torch.arange(channels, device=device) % old] * (old / channels)
            ways.append(f"stem of {old} channels repeated to {channels}")
        found[name] = tensor.clone() if copy and not ways else tensor
        adapted |= {name: " and ".join(ways)} if ways else {}
    # Random values for the modules that are not wholly in `found`: nnU-Net's, or torch's own; then the tensors
    # themselves, without a copy.
    initialize = getattr(target, "initialize", methodcaller("reset_parameters"))
    for prefix, module in target.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if any(f"{prefix}.{name}" not in found for name, _ in own):
            module.to_empty(device=device, recurse=False)
            initialize(module)
    target.load_state_dict(found, strict=False, assign=True)
    sizes = {name: parameter.numel() for name, parameter in target.named_parameters()}
    return AdaptationReport(
        loaded=tuple(name for name in found if name not in adapted),
        adapted=adapted,
        new=tuple(name for name in places if name not in found),
        unused=tuple(name for name in weights if name not in found),
        parameters=sum(sizes.values()),
        loaded_parameters=sum(size for name, size in sizes.items() if name in found),
    )


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
    for name, convolution, norm in _normalized(network):
        kernel = convolution.get_parameter("weight")
        random_size = math.sqrt(kernel.shape[0] / 3)  # torch's default: uniform within 1 / sqrt(inputs of an output)
        factors[name] = factor = random_size / max(kernel.norm().item(), 1e-12)
        for parameter in convolution.parameters():
            parameter.data = parameter.data * factor  # not in place: it may be mapped from a file, or shared
        if isinstance(norm, BatchNorm):
            norm.running_mean = norm.get_buffer("running_mean") * factor
            norm.running_var = norm.get_buffer("running_var") * factor**2
    return factors


@torch.no_grad()
def renew_norms(network: nn.Module) -> int:
    """Set the scales of all normalisations that follow a convolution to one, and their shifts to zero.

    Restoring shifts them down, so that units are silent more often than not, which copying needs and telling classes
    apart does not. Averages of batch norm stay.

    Args:
        network: Changed in place.

    Returns:
        How many normalisations there are.
    """
    norms = [norm for *_, norm in _normalized(network)]
    for norm in norms:
        # Not in place: they may be mapped from a file, or shared.
        norm.weight = nn.Parameter(torch.ones_like(norm.get_parameter("weight")))
        norm.bias = nn.Parameter(torch.zeros_like(norm.get_parameter("bias")))
    return len(norms)


def _normalized(network: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield each convolution that a normalisation follows, by its name, with that."""
    for prefix, module in network.named_modules():
        children = dict(module.named_children())
        kind = "convolution" if "convolution" in children else "conv"  # the Genesis U-Net, the nnU-Net family
        if {kind, "norm"} <= children.keys():
            yield f"{prefix}.{kind}", children[kind], children["norm"]
