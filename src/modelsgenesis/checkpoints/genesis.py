"""The two releases of the 2019 network: PyTorch and Keras."""

import torch
from torch import Tensor

from modelsgenesis.checkpoints.layout import Layout, Prepared, Weights, count
from modelsgenesis.configs import GENESIS_UNET_2019, GenesisUNetConfig

_KERAS_LEAVES = {
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    "num_batches_tracked": "num_batches_tracked",
}


def _describe_torch(weights: Weights) -> GenesisUNetConfig:
    widths = []
    while (name := f"down_tr{64 << len(widths)}.ops.1.conv1.weight") in weights:
        widths.append(weights[name].shape[0])
    first = weights["down_tr64.ops.0.conv1.weight"]
    return GENESIS_UNET_2019.override(
        dims=first.ndim - 2,
        in_channels=first.shape[1],
        out_channels=weights["out_tr.final_conv.weight"].shape[0],
        widths=tuple(widths),
    )


def _original_torch(name: str, config: GenesisUNetConfig) -> str:
    """Levels are called by the widths of 2019, 64 to 512, whatever the widths are."""
    if name.startswith("head."):
        return name.replace("head", "out_tr.final_conv")
    part, kind, level, *rest = name.split(".")
    depth = int(level) if part == "encoder" else len(config.widths) - 2 - int(level)
    block = f"{'down' if part == 'encoder' else 'up'}_tr{64 << depth}"
    if kind == "upsamplings":
        return f"{block}.up_conv.{rest[0]}"
    index, layer, leaf = rest
    return f"{block}.ops.{index}.{'conv1' if layer == 'convolution' else 'bn1'}.{leaf}"


GENESIS_TORCH = Layout(
    anchors=("down_tr64.ops.0.conv1.weight",),
    published=GENESIS_UNET_2019,
    describe=_describe_torch,
    original=_original_torch,
)
"""`Genesis_Chest_CT.pt`. Its batch norm goes on using the batch's statistics in evaluation."""


def _prepare_keras(weights: dict[str, Tensor]) -> Prepared:
    """Call the last convolution `head`, whose number depends on the session that saved it; add counters."""
    heads = [name for name in weights if name.endswith("/kernel") and not name.startswith("depth_")]
    prefix = heads[-1].removesuffix("kernel") if heads else "head/"
    renamed = {
        f"head/{name.removeprefix(prefix)}" if name.startswith(prefix) else name: tensor
        for name, tensor in weights.items()
    }
    norms = [name.removesuffix("gamma") for name in renamed if name.endswith("/gamma")]
    renamed |= {f"{norm}num_batches_tracked": torch.zeros((), dtype=torch.int64) for norm in norms}
    return Prepared(renamed, notes=["counters of batch norm, which Keras does not keep, set to 0"])


def _describe_keras(weights: Weights) -> GenesisUNetConfig:
    convolutions = count(weights, "depth_#_conv/kernel")  # two a level, going down and going up
    levels = (convolutions // 2 + 1) // 2
    first = weights["depth_0_conv/kernel"]
    return GENESIS_KERAS_NETWORK.override(
        dims=first.ndim - 2,
        in_channels=first.shape[1],
        out_channels=weights["head/kernel"].shape[0],
        widths=tuple(weights[f"depth_{2 * level + 1}_conv/kernel"].shape[0] for level in range(levels)),
    )


def _original_keras(name: str, config: GenesisUNetConfig) -> str:
    part, *rest = name.split(".")
    if part == "head":
        return f"head/{'kernel' if rest[0] == 'weight' else 'bias'}"
    _, level, index, layer, leaf = rest
    depth = 2 * int(level) + int(index) + (0 if part == "encoder" else 2 * len(config.widths))
    if layer == "convolution":
        return f"depth_{depth}_conv/{'kernel' if leaf == 'weight' else 'bias'}"
    return f"depth_{depth}_bn/{_KERAS_LEAVES.get(leaf, 'gamma' if leaf == 'weight' else 'beta')}"


GENESIS_KERAS_NETWORK = GenesisUNetConfig(norm_epsilon=1e-3, statistics="running", upsampling="nearest")
"""The network of `Genesis_Chest_CT.h5`."""

GENESIS_KERAS = Layout(
    anchors=("depth_0_conv/kernel",),
    published=GENESIS_KERAS_NETWORK,
    describe=_describe_keras,
    original=_original_keras,
    prepare=_prepare_keras,
)
"""`Genesis_Chest_CT.h5`, read as `read_keras` gives it."""
