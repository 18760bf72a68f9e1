"""Writing a network for others: nnU-Net v2, a PyTorch state dict of the original names, ONNX."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.checkpoints.bundle import Bundle
from modelsgenesis.checkpoints.genesis import GENESIS_TORCH
from modelsgenesis.checkpoints.nnunet import NNUNET_V1, aliases
from modelsgenesis.checkpoints.plan import PLAN_KEY, make_plan
from modelsgenesis.configs import BundleConfig, GenesisUNetConfig, NetworkConfig, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, did_you_mean
from modelsgenesis.files import replacing
from modelsgenesis.networks import Network

ExportFormat = Literal["nnunet", "torch", "onnx"]


def export_bundle(bundle: Bundle, path: str | Path, *, to: ExportFormat) -> Path:
    """Write the network of a bundle for other programs.

    Args:
        bundle: What to write.
        path: The file; it must not be there yet.
        to: `"nnunet"`: a checkpoint for nnU-Net v2's `-pretrained_weights`, with `network_weights` under
            every name that nnU-Net gives them, and a plan; kernels trained on arrays x, y, z are turned, since
            nnU-Net's arrays lie z, y, x. `"torch"`: a state dict of the names of the
            original release. `"onnx"`: a graph with a free batch size, for inputs of the bundle's patch size, rounded
            up to sides that the network can halve.

    Returns:
        The file.

    Raises:
        ConfigurationError: The format is unknown.
        CheckpointError: The network has no equal in that format, the file exists, or it cannot be written.

    Example:
        export_bundle(load_bundle("models/resenc"), "resenc.pth", to="nnunet")
    """
    path = Path(path)
    writers = {"nnunet": _write_nnunet, "torch": _write_torch, "onnx": _write_onnx}
    if to not in writers:
        raise ConfigurationError(f"export: received {to!r}; {did_you_mean(to, writers)}")
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose a new name")
    writers[to](bundle, path)
    return path


def _weights(bundle: Bundle) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in bundle.network.state_dict().items()}


def _described(config: NetworkConfig) -> str:
    if isinstance(config, GenesisUNetConfig):
        return f"genesis_unet with {config.upsampling} up-sampling and {config.norm} norm"
    return cast("str", config.kind)


def _write_torch(bundle: Bundle, path: Path) -> None:
    names = original_names(bundle.config.network)
    weights = {alias: tensor for here, tensor in _weights(bundle).items() for alias in names(here)}
    with replacing(path) as temporary:
        torch.save(weights, temporary)


def original_names(config: NetworkConfig) -> Callable[[str], list[str]]:
    """Return what gives the names of a tensor in the original release: several where that keeps aliases.

    Raises:
        CheckpointError: No release in PyTorch has such a network.
    """
    if isinstance(config, GenesisUNetConfig) and (config.upsampling, config.norm) == ("transposed", "batch"):
        return lambda name: [GENESIS_TORCH.original(name, config)]
    if isinstance(config, PlainUNetConfig) and not config.upsampling_bias and not config.head_bias:
        return lambda name: [NNUNET_V1.original(name, config)]
    if isinstance(config, (PlainUNetConfig, ResidualUNetConfig)):
        return aliases
    raise CheckpointError(
        f"a {_described(config)} has no original in PyTorch whose names could be used;"
        " its model.safetensors is a plain state dict already"
    )


def _write_nnunet(bundle: Bundle, path: Path) -> None:
    config = bundle.config.network
    if not isinstance(config, (PlainUNetConfig, ResidualUNetConfig)):
        raise CheckpointError(
            f"a {_described(config)} is not a network of nnU-Net, expected plain_unet or residual_unet; use --to torch"
        )
    if config.norm == "group" or (config.upsampling_bias and not config.convolution_bias):
        raise CheckpointError(
            f"nnU-Net has no network with norm {config.norm!r}, convolution_bias {config.convolution_bias}"
            f" and upsampling_bias {config.upsampling_bias}; use --to torch"
        )
    weights, settings = _weights(bundle), bundle.config
    orientation = settings.input.orientation
    if settings.input.dims == 3 and orientation is not None and orientation[0] in "LR":  # trained with x first
        weights = {name: _reverse_axes(tensor) for name, tensor in weights.items()}
        settings = reversed_axes(settings)
        config = cast("PlainUNetConfig | ResidualUNetConfig", settings.network)
    # nnU-Net v2 always has these biases, at least where convolutions have theirs; a bias of zero is none. A transposed
    # kernel is (in, out, *spatial), any other (out, in, *spatial).
    if config.convolution_bias and not config.upsampling_bias:
        weights |= _zero_biases(weights, "decoder.transpconvs.", outputs=1)
    if not config.head_bias:
        weights |= _zero_biases(weights, "decoder.seg_layers.", outputs=0)
    config = config.override(upsampling_bias=config.convolution_bias, head_bias=True)
    # Aliases are the same tensor, which torch.save writes once.
    content = {
        "network_weights": {alias: tensor for name, tensor in weights.items() for alias in aliases(name)},
        PLAN_KEY: make_plan(config, settings.input, settings.patch_size),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def reversed_axes(config: BundleConfig) -> BundleConfig:
    """Return the configuration of a network whose spatial axes were reversed, and the input that it expects then."""
    network, contract = cast("PlainUNetConfig", config.network), config.input
    kernels, strides = (tuple(axes[::-1] for axes in stages) for stages in (network.kernels, network.strides))
    orientation, spacing = contract.orientation, contract.spacing
    return config.override(
        network=network.override(kernels=kernels, strides=strides),
        input=contract.override(orientation=orientation and orientation[::-1], spacing=spacing and spacing[::-1]),
        patch_size=config.patch_size[::-1],
    )


def _reverse_axes(tensor: Tensor) -> Tensor:
    return rearrange(tensor, "a b x y z -> a b z y x").contiguous() if tensor.ndim == 5 else tensor


def _zero_biases(weights: dict[str, Tensor], beginning: str, outputs: int) -> dict[str, Tensor]:
    """Return biases of zero for the kernels whose names begin so; `outputs` is the axis of their outputs."""
    return {
        name.replace("weight", "bias"): tensor.new_zeros(tensor.shape[outputs])
        for name, tensor in weights.items()
        if name.startswith(beginning) and name.endswith("weight")
    }


def _write_onnx(bundle: Bundle, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            "torch's ONNX exporter needs two packages that this one does not: pip install onnx onnxscript"
        ) from error
    network = cast("Network", bundle.network.eval())
    steps = zip(bundle.config.patch_size, network.size_divisor, strict=True)
    sides = [-(-side // step) * step for side, step in steps]
    example = torch.rand(2, network.config.unet.in_channels, *sides)  # 2: a batch of one would be fixed
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporter
        torch.onnx.export(
            network,
            (example,),
            temporary,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
