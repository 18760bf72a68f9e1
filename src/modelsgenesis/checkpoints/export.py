"""Writing a network for others: nnU-Net v2, or a PyTorch state dict of the original names."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from modelsgenesis.checkpoints.bundle import Bundle
from modelsgenesis.checkpoints.genesis import LAYOUTS, aliases
from modelsgenesis.checkpoints.plan import PLAN_KEY, make_plan
from modelsgenesis.configs import BundleConfig, NetworkConfig, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.configs.base import shown
from modelsgenesis.configs.nnunet_plans import read_nnunet_plan
from modelsgenesis.errors import CheckpointError, ConfigurationError, did_you_mean, require
from modelsgenesis.files import replacing, require_new
from modelsgenesis.networks import adapt

ExportFormat = Literal["nnunet", "torch"]

_AXES = dict(zip("LRPASI", "xxyyzz", strict=True))


def export_bundle(bundle: Bundle, path: str | Path, *, to: ExportFormat, plans: str | Path | None = None) -> Path:
    """Write the network of a bundle for other programs.

    Args:
        bundle: What to write.
        path: The file; it must not be there yet.
        to: `"nnunet"`: a checkpoint for nnU-Net v2's `-pretrained_weights`, with `network_weights` under
            every name that nnU-Net gives them, and a plan; kernels trained on arrays x, y, z are turned, since
            nnU-Net's arrays lie z, y, x; not those of `pretrain --plans`, which lie so already. `"torch"`: a state dict
            of the names of the original release.
        plans: For `"nnunet"`: the plans that it must fit, `nnUNetPlans.json` or `nnUNetPlans.json@2d`; the input gets
            their number of channels.

    Returns:
        The file.

    Raises:
        ConfigurationError: The format is unknown, or the plans cannot be read.
        CheckpointError: The network has no equal in that format or is not that of the plans, the file exists, or it
            cannot be written.

    Example:
        export_bundle(load_bundle("models/resenc"), "resenc.pth", to="nnunet")
    """
    path = Path(path)
    order = None
    if plans is not None:
        order = "".join("SPL"[axis] for axis in read_nnunet_plan(plans)[0].get("transpose_forward", (0, 1, 2)))
    contents = {"nnunet": partial(_nnunet_checkpoint, order=order), "torch": _torch_state_dict}
    require(to in contents, ConfigurationError, f"export: received {to!r}; {did_you_mean(to, contents)}")
    require_new(path)
    if plans is not None:
        require(to == "nnunet", ConfigurationError, f"plans: nnU-Net has them; they are of no use for {to}")
        bundle = _with_channels_of(bundle, read_nnunet_plan(plans)[0])
    weights = {name: tensor.detach().cpu() for name, tensor in bundle.network.state_dict().items()}
    with replacing(path) as temporary:
        content = contents[to](bundle.config, weights)
        if plans is not None:
            _require_fit(content[PLAN_KEY]["architecture_plans"], *read_nnunet_plan(plans))
        torch.save(content, temporary)
    return path


def _with_channels_of(bundle: Bundle, plan: Mapping[str, Any]) -> Bundle:
    channels = len(plan["normalization_schemes"])
    if channels == bundle.config.network.unet.in_channels:
        return bundle
    network, _ = adapt(bundle.network, in_channels=channels)
    input_ = bundle.config.input.override(channels=[f"channel {number}" for number in range(channels)])
    return Bundle(network, bundle.config.override(network=network.config, input=input_), bundle.card)


def _require_fit(ours: Mapping[str, Any], plan: Mapping[str, Any], path: Path) -> None:
    """Refuse a network in which nnU-Net, following its plan, would miss tensors or find others."""
    architecture = plan["architecture"]
    theirs = {**architecture["arch_kwargs"], "network": architecture["network_class_name"]}
    ours = {"network": ours["arch_class_name"], **ours["arch_kwargs"]}
    loads = ("norm_op_kwargs", "dropout_op_kwargs", "nonlin_kwargs")  # whatever these say
    for name in [name for name in ours if name in theirs and name not in loads]:
        said = f"does not fit {path}: {name} is {shown(ours[name])}, planned {shown(theirs[name])}"
        remedy = f"pretrain the planned network: modelsgenesis pretrain SCANS --plans {path}"
        require(ours[name] == theirs[name], CheckpointError, f"the network {said}; {remedy}")


def _otherwise(config: NetworkConfig) -> str:
    """Return the remedy for a network that has no equal in the format."""
    exported = any(layout.exports(config) for layout in LAYOUTS.values())
    return "use --to torch" if exported else "its model.safetensors is a plain state dict already"


def _torch_state_dict(bundle: BundleConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    config = bundle.network
    layout = next((layout for layout in LAYOUTS.values() if layout.exports(config)), None)
    if layout is None:
        raise CheckpointError(
            f"a {config.kind} of this kind has no original in PyTorch whose names could be used; {_otherwise(config)}"
        )
    originals = {layout.original(here, config): tensor for here, tensor in weights.items()}
    return {alias: tensor for name, tensor in originals.items() for alias in layout.aliases(name)}


def _nnunet_checkpoint(bundle: BundleConfig, weights: dict[str, Tensor], *, order: str | None) -> dict[str, Any]:
    config, contract, patch = bundle.network, bundle.input, bundle.patch_size
    if not isinstance(config, (PlainUNetConfig, ResidualUNetConfig)):
        raise CheckpointError(f"a {config.kind} is not a plain_unet or residual_unet of nnU-Net; {_otherwise(config)}")
    if config.norm == "group" or (config.upsampling_bias and not config.convolution_bias):
        raise CheckpointError(
            f"nnU-Net has no network with norm {config.norm!r}, convolution_bias {config.convolution_bias}"
            f" and upsampling_bias {config.upsampling_bias}; {_otherwise(config)}"
        )
    if contract.dims == 3 and contract.orientation is not None:
        # nnU-Net's arrays lie S, P, L, in the order of its plans. A network of `pretrain --plans` does so already; of
        # any other, such as one in RAS, whatever has spatial axes is turned.
        here = [_AXES[letter] for letter in contract.orientation]
        as_planned = contract.orientation if set(contract.orientation) <= set("SPL") else "SPL"
        turn = [here.index(_AXES[letter]) for letter in order or as_planned]
        spatial = {name: tensor for name, tensor in weights.items() if tensor.ndim == 5}
        weights |= {
            name: tensor.permute(0, 1, *(2 + axis for axis in turn)).contiguous() for name, tensor in spatial.items()
        }
        kernels, strides = (
            tuple(tuple(axes[axis] for axis in turn) for axes in stages) for stages in (config.kernels, config.strides)
        )
        config, patch = config.override(kernels=kernels, strides=strides), tuple(patch[axis] for axis in turn)
        spacing = contract.spacing and tuple(contract.spacing[axis] for axis in turn)
        contract = contract.override(orientation="".join(contract.orientation[axis] for axis in turn), spacing=spacing)
    # nnU-Net v2 always has these biases, at least where convolutions have theirs; a bias of zero is none. A transposed
    # kernel is (in, out, *spatial), any other (out, in, *spatial).
    lacking = {"decoder.transpconvs.": 1} if config.convolution_bias and not config.upsampling_bias else {}
    lacking |= {} if config.head_bias else {"decoder.seg_layers.": 0}
    for beginning, outputs in lacking.items():
        for name in [name for name in weights if name.startswith(beginning) and name.endswith("weight")]:
            weights[name.replace("weight", "bias")] = weights[name].new_zeros(weights[name].shape[outputs])
    config = config.override(upsampling_bias=config.convolution_bias, head_bias=True)
    # Aliases are the same tensor, which torch.save writes once.
    named = {alias: tensor for name, tensor in weights.items() for alias in aliases(name)}
    return {"network_weights": named, PLAN_KEY: make_plan(config, contract, patch)}
