"""Loading into a network whatever of other weights fits, and saying what did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from modelsgenesis.errors import CheckpointError
from modelsgenesis.networks.unet import UNet

Stem = Literal["repeat", "average", "new"]

ENCODER_SHARE = 0.9
"""Less of the encoder than this from the checkpoint is an error: the rest would silently be random."""

_SHOWN = 5  # names in a message before "and N more"


@dataclass(frozen=True)
class AdaptationReport:
    """What of a network came from a checkpoint.

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
        """Return one line for people."""
        share = 100 * self.loaded_parameters / max(self.parameters, 1)
        counts = f"{self.loaded_parameters:,} of {self.parameters:,} parameters ({share:.2f}%)"
        parts = [f"{counts} from the checkpoint, {100 * self.encoder_share:.2f}% of the encoder"]
        for way in dict.fromkeys(self.adapted.values()):
            names = [name for name, how in self.adapted.items() if how == way]
            parts.append(f"{way}: {some(names)}")
        if self.new:
            parts.append(f"new: {some(self.new)}")
        if self.rescaled:
            parts.append(f"{self.rescaled} kernels rescaled")
        if self.unused:
            parts.append(f"unused: {some(self.unused)}")
        return "; ".join(parts)


def some(names: Sequence[str]) -> str:
    """Join the first few names for a message and count the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def transfer(
    weights: Mapping[str, Tensor],
    target: nn.Module,
    *,
    stem: Stem = "repeat",
    skipped: tuple[str, ...] = (),
    change_dims: bool = False,
    depth_axis: int = -1,
    copy: bool = True,
) -> AdaptationReport:
    """Load into `target` whatever of `weights` fits by name and shape; the rest of it gets random values.

    Args:
        weights: State dict of a network of the same kind.
        target: The network to fill. On the meta device, only what is not loaded is ever given a value.
        stem: What to do when the first convolution differs in its input channels, see `adapt`.
        skipped: Beginnings of names that are not to be loaded.
        change_dims: Whether kernels may gain or lose a spatial axis.
        depth_axis: The spatial axis that comes or goes then.
        copy: Copy the tensors instead of sharing them.

    Returns:
        What was loaded, adapted, left random, and not used.

    Raises:
        CheckpointError: Under 90% of the parameters of `target.encoder` came from `weights`.
    """
    expected = target.state_dict()
    stem_weight = next(name for name in expected if name.startswith("encoder.") and name.endswith("weight"))
    fitted: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    for name, place in expected.items():
        if name not in weights or name.startswith(skipped):
            continue
        tensor, ways = weights[name], []
        if change_dims and tensor.ndim > 2 and abs(tensor.ndim - place.ndim) == 1:
            transposed = isinstance(target.get_submodule(name.rpartition(".")[0]), _ConvTransposeNd)
            tensor, way = _change_axes(tensor, place, depth_axis, transposed)
            ways.append(way)
        if name == stem_weight and stem != "new" and tensor.ndim == place.ndim:
            tensor, way = _change_channels(tensor, place.shape[1], stem)
            ways += way
        if tensor.shape == place.shape:
            fitted[name] = tensor.clone() if copy and not ways else tensor
            if ways:
                adapted[name] = " and ".join(ways)
    _fill(target, fitted, weights)
    return _report(weights, target, fitted, adapted)


def _change_axes(tensor: Tensor, place: Tensor, depth_axis: int, transposed: bool) -> tuple[Tensor, str]:
    """Inflate a kernel [out, in, *spatial] along a new axis, or average over a dropped one.

    What is constant along the axis keeps its response: an output of a convolution adds up all the taps along
    the axis, hence a share of the kernel for each tap, or the average times their number; an output of a
    transposed convolution with stride = kernel sees one tap alone.
    """
    axis = 2 + depth_axis % (max(place.ndim, tensor.ndim) - 2)
    if place.ndim > tensor.ndim:
        taps = place.shape[axis]
        tensor = tensor.unsqueeze(axis).repeat_interleave(taps, axis)
        return (tensor if transposed else tensor / taps), "inflated along a new axis"
    mean = tensor.mean(axis)
    return (mean if transposed else mean * tensor.shape[axis]), "averaged along an axis"


def _change_channels(tensor: Tensor, channels: int, stem: Stem) -> tuple[Tensor, list[str]]:
    """Fit a stem [out, in, *spatial] to another number of input channels."""
    old = tensor.shape[1]
    if old == channels:
        return tensor, []
    if stem == "average":
        mean = tensor.mean(1, keepdim=True).expand(-1, channels, *tensor.shape[2:])
        return mean.contiguous(), [f"stem of {old} channels averaged for {channels}"]
    index = torch.arange(channels, device=tensor.device) % old
    return tensor[:, index] * (old / channels), [f"stem of {old} channels repeated to {channels}"]


def _fill(target: nn.Module, fitted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Give random values to the modules that are not wholly in `fitted`, then assign what is."""
    device = next(iter(weights.values())).device
    for prefix, module in target.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if any(tensor.is_meta and f"{prefix}.{name}" not in fitted for name, tensor in own):
            module.to_empty(device=device, recurse=False)
            cast("UNet", target).initialize(module)
    target.load_state_dict(fitted, strict=False, assign=True)


def _report(
    weights: Mapping[str, Tensor],
    target: nn.Module,
    fitted: Mapping[str, Tensor],
    adapted: Mapping[str, str],
) -> AdaptationReport:
    sizes = {name: parameter.numel() for name, parameter in target.named_parameters()}
    encoder = {name: size for name, size in sizes.items() if name.startswith("encoder.")}
    share = sum(size for name, size in encoder.items() if name in fitted) / sum(encoder.values())
    if share < ENCODER_SHARE:
        places = target.state_dict()
        problems = [_difference(name, weights, places) for name in encoder if name not in fitted]
        raise CheckpointError(
            f"only {100 * share:.1f}% of the encoder fits the checkpoint, expected {100 * ENCODER_SHARE:.0f}%"
            f" or more: {some(problems)}; choose the configuration that the checkpoint was made with"
        )
    return AdaptationReport(
        loaded=tuple(name for name in fitted if name not in adapted),
        adapted=adapted,
        new=tuple(name for name in target.state_dict() if name not in fitted),
        unused=tuple(name for name in weights if name not in fitted),
        parameters=sum(sizes.values()),
        loaded_parameters=sum(size for name, size in sizes.items() if name in fitted),
        encoder_share=share,
    )


def _difference(name: str, weights: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> str:
    if name not in weights:
        return f"missing {name}"
    return f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(places[name].shape)}"
