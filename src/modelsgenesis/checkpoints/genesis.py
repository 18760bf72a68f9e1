"""The record of a published checkpoint format, and the two releases of the 2019 network: PyTorch and Keras."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019, GenesisUNetConfig, InputContract, UNetConfig

Weights = Mapping[str, Tensor]


@dataclass
class Prepared:
    """The weights of a file, each once and under one name, with what it took to get there.

    Attributes:
        weights: Tensors by their original names, less prefixes and aliases.
        dropped: Names in the file that were not needed, with the reason.
        notes: What a reader of the report should know.
    """

    weights: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A published format of a state dict. Importing and exporting go through the same names.

    Attributes:
        signature_keys: Ends of keys of which a file of this format has one. What stands before it, such as
            `module.`, stands before every key.
        published: The network that was published so; a file whose shape cannot be told is compared with it.
        original: From the name of a tensor here, and the network, to its name there.
        describe: From weights to the network that they belong to, judged by names and shapes alone; None where none
            but the published one can be converted.
        prepare: Removes what a file holds twice and adds what it lacks but any network of its kind has.
        input: The input that the published network expects; None where a plan beside the weights says it.
        patch_size: Voxels of the patches of its training.
    """

    signature_keys: tuple[str, ...]
    published: UNetConfig
    original: Callable[[str, Any], str]
    describe: Callable[[Weights], UNetConfig] | None = None
    prepare: Callable[[dict[str, Tensor]], Prepared] = Prepared
    input: InputContract | None = None
    patch_size: tuple[int, ...] = ()

    def prefix(self, weights: Weights) -> str | None:
        """Return what stands before every key of this format, None if the weights are not of it."""
        found = [
            name.removesuffix(key)
            for name in weights
            for key in self.signature_keys
            if name == key or name.endswith(f".{key}")
        ]
        return min(found, key=len, default=None)


def count(weights: Weights, pattern: str) -> int:
    """Count the names `pattern` with 0, 1, 2 … in place of `#` that there are without a gap.

    Example:
        >>> count({"a.0.w": None, "a.1.w": None, "a.3.w": None}, "a.#.w")
        2
    """
    index = 0
    while pattern.replace("#", str(index)) in weights:
        index += 1
    return index


def _describe_torch(weights: Weights) -> GenesisUNetConfig:
    widths = []
    while (name := f"down_tr{64 << len(widths)}.ops.1.conv1.weight") in weights:
        widths.append(weights[name].shape[0])
    first, head = weights["down_tr64.ops.0.conv1.weight"], weights["out_tr.final_conv.weight"]
    return GENESIS_UNET_2019.override(
        dims=first.ndim - 2, in_channels=first.shape[1], out_channels=head.shape[0], widths=tuple(widths)
    )


def _original_torch(name: str, config: GenesisUNetConfig) -> str:
    if name.startswith("head."):
        return name.replace("head", "out_tr.final_conv")
    part, kind, level, *rest = name.split(".")
    # Levels are called by the widths of 2019, 64 to 512, whatever the widths are; the decoder's first is the deepest.
    depth = int(level) if part == "encoder" else len(config.widths) - 2 - int(level)
    block = f"{'down' if part == 'encoder' else 'up'}_tr{64 << depth}"
    if kind == "upsamplings":
        return f"{block}.up_conv.{rest[0]}"
    index, layer, leaf = rest
    return f"{block}.ops.{index}.{'conv1' if layer == 'convolution' else 'bn1'}.{leaf}"


GENESIS_TORCH = Layout(
    signature_keys=("down_tr64.ops.0.conv1.weight",),
    published=GENESIS_UNET_2019,
    describe=_describe_torch,
    original=_original_torch,
    input=CONTRACTS["ct"],
    patch_size=(64, 64, 32),
)
"""`Genesis_Chest_CT.pt`. Its batch norm goes on using the batch's statistics in evaluation."""


_KERAS_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    "num_batches_tracked": "num_batches_tracked",
}


def _prepare_keras(weights: dict[str, Tensor]) -> Prepared:
    # The last convolution, alone without a depth, has a number that depends on the session that saved it.
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
    convolutions = count(weights, "depth_#_conv/kernel")  # two per level, going down and, but for the deepest, up
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
    # Keras numbered the convolutions in the order of the forward pass, through encoder and decoder.
    depth = 2 * int(level) + int(index) + (0 if part == "encoder" else 2 * len(config.widths))
    if layer == "convolution":
        return f"depth_{depth}_conv/{'kernel' if leaf == 'weight' else 'bias'}"
    return f"depth_{depth}_bn/{_KERAS_NORM[leaf]}"


GENESIS_KERAS_NETWORK = GenesisUNetConfig(norm_epsilon=1e-3, statistics="running", upsampling="nearest")
"""The network of `Genesis_Chest_CT.h5`."""

GENESIS_KERAS = Layout(
    signature_keys=("depth_0_conv/kernel",),
    published=GENESIS_KERAS_NETWORK,
    describe=_describe_keras,
    original=_original_keras,
    prepare=_prepare_keras,
    input=CONTRACTS["ct"],
    patch_size=(64, 64, 32),
)
"""`Genesis_Chest_CT.h5`, read as `read_keras` gives it."""
