"""Writing a network for others: nnU-Net v2, or a PyTorch state dict of the original names."""

from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.checkpoints.bundle import Bundle
from modelsgenesis.checkpoints.genesis import LAYOUTS, aliases
from modelsgenesis.checkpoints.plan import PLAN_KEY, make_plan
from modelsgenesis.configs import PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, did_you_mean
from modelsgenesis.files import replacing

ExportFormat = Literal["nnunet", "torch"]


def export_bundle(bundle: Bundle, path: str | Path, *, to: ExportFormat) -> Path:
    """Write the network of a bundle for other programs.

    Args:
        bundle: What to write.
        path: The file; it must not be there yet.
        to: `"nnunet"`: a checkpoint for nnU-Net v2's `-pretrained_weights`, with `network_weights` under
            every name that nnU-Net gives them, and a plan; kernels trained on arrays x, y, z are turned, since
            nnU-Net's arrays lie z, y, x. `"torch"`: a state dict of the names of the original release.

    Returns:
        The file.

    Raises:
        ConfigurationError: The format is unknown.
        CheckpointError: The network has no equal in that format, the file exists, or it cannot be written.

    Example:
        export_bundle(load_bundle("models/resenc"), "resenc.pth", to="nnunet")
    """
    path = Path(path)
    writers = {"nnunet": _write_nnunet, "torch": _write_torch}
    if to not in writers:
        raise ConfigurationError(f"export: received {to!r}; {did_you_mean(to, writers)}")
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose a new name")
    with replacing(path) as temporary:
        writers[to](bundle, temporary)
    return path


def _weights(bundle: Bundle) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in bundle.network.state_dict().items()}


def _write_torch(bundle: Bundle, path: Path) -> None:
    config = bundle.config.network
    layout = next((layout for layout in LAYOUTS.values() if layout.exports(config)), None)
    if layout is None:
        details = (
            f" with {config.upsampling} up-sampling and {config.norm} norm" if config.kind == "genesis_unet" else ""
        )
        raise CheckpointError(
            f"a {config.kind}{details} has no original in PyTorch whose names could be used;"
            " its model.safetensors is a plain state dict already"
        )
    originals = {layout.original(here, config): tensor for here, tensor in _weights(bundle).items()}
    torch.save({alias: tensor for name, tensor in originals.items() for alias in layout.aliases(name)}, path)


def _write_nnunet(bundle: Bundle, path: Path) -> None:
    weights = _weights(bundle)
    config, contract, patch = bundle.config.network, bundle.config.input, bundle.config.patch_size
    if not isinstance(config, (PlainUNetConfig, ResidualUNetConfig)):
        raise CheckpointError(
            f"a {config.kind} is not a network of nnU-Net, plain_unet or residual_unet; use --to torch"
        )
    if config.norm == "group" or (config.upsampling_bias and not config.convolution_bias):
        raise CheckpointError(
            f"nnU-Net has no network with norm {config.norm!r}, convolution_bias {config.convolution_bias}"
            f" and upsampling_bias {config.upsampling_bias}; use --to torch"
        )
    if contract.dims == 3 and contract.orientation is not None and contract.orientation[0] in "LR":
        # Trained with x first, where nnU-Net's arrays lie z, y, x: whatever has spatial axes is turned round.
        weights = {
            name: rearrange(tensor, "a b x y z -> a b z y x").contiguous() if tensor.ndim == 5 else tensor
            for name, tensor in weights.items()
        }
        kernels, strides = (tuple(axes[::-1] for axes in stages) for stages in (config.kernels, config.strides))
        config, patch = config.override(kernels=kernels, strides=strides), patch[::-1]
        spacing = contract.spacing and contract.spacing[::-1]
        contract = contract.override(orientation=contract.orientation[::-1], spacing=spacing)
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
    torch.save({"network_weights": named, PLAN_KEY: make_plan(config, contract, patch)}, path)
