"""The published formats of checkpoints: a record each, by which files are told apart, imported and exported.

A new format is a record in `LAYOUTS`; conversion, export and `--format` follow from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019, NNUNET_V1_GENESIS, RESENC_L, InputContract, UNetConfig
from modelsgenesis.configs.bundle import GenesisUNetConfig, NetworkConfig, PlainUNetConfig, ResidualUNetConfig

Weights = Mapping[str, Tensor]

ALIAS = "alias of"  # begins the reason for dropping a name that means a tensor already loaded


Prepared = tuple[dict[str, Tensor], dict[str, str]]
"""The weights of a file, each once and under one name, and the names that were not needed, with the reason."""


@dataclass(frozen=True)
class Layout:
    """A published format of a state dict. Importing and exporting go through the same names.

    Attributes:
        signature_keys: Ends of keys of which a file of this format has one. What stands before it, such as
            `module.`, stands before every key.
        published: The network that was published so; a file whose shape cannot be told is compared with it.
        original: From the name of a tensor here, and the network, to its name there.
        exports: Whether a network can be written under these names.
        describe: From weights to the network that they belong to, judged by names and shapes alone; None where none
            but the published one can be converted.
        prepare: Removes what a file holds twice and adds what it lacks but any network of its kind has.
        input: The input that the published network expects; None where a plan beside the weights says it.
        patch_size: Voxels of the patches of its training.
        aliases: Every name under which the format keeps the tensor of an original name.
        encoder_only: Whether the encoder alone is read; the decoder starts at random, from a fixed seed.
    """

    signature_keys: tuple[str, ...]
    published: UNetConfig
    original: Callable[[str, Any], str]
    exports: Callable[[NetworkConfig], bool] = lambda _: False
    describe: Callable[[Weights], UNetConfig] | None = None
    prepare: Callable[[dict[str, Tensor]], Prepared] = lambda weights: (weights, {})
    input: InputContract | None = None
    patch_size: tuple[int, ...] = ()
    aliases: Callable[[str], list[str]] = lambda name: [name]
    encoder_only: bool = False

    def prefix(self, weights: Weights) -> str | None:
        """Return what stands before every key of this format, None if the weights are not of it."""
        pairs = ((name, key) for key in self.signature_keys for name in weights if f".{name}".endswith(f".{key}"))
        return min((name.removesuffix(key) for name, key in pairs), key=len, default=None)


def _count(weights: Weights, pattern: str) -> int:
    """Count the names `pattern` with 0, 1, 2 … in place of `#` that there are without a gap.

    Example:
        >>> _count({"a.0.w": None, "a.1.w": None, "a.3.w": None}, "a.#.w")
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


# `Genesis_Chest_CT.pt`. Its batch norm goes on using the batch's statistics in evaluation.
GENESIS_TORCH = Layout(
    signature_keys=("down_tr64.ops.0.conv1.weight",),
    published=GENESIS_UNET_2019,
    original=_original_torch,
    exports=lambda net: isinstance(net, GenesisUNetConfig) and (net.upsampling, net.norm) == ("transposed", "batch"),
    describe=_describe_torch,
    input=CONTRACTS["ct"],
    patch_size=(64, 64, 32),
)


_KERAS_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _prepare_keras(weights: dict[str, Tensor]) -> Prepared:
    # The last convolution, alone without a depth, has a number that depends on the session that saved it.
    heads = [name for name in weights if name.endswith("/kernel") and not name.startswith("depth_")]
    prefix = heads[-1].removesuffix("kernel") if heads else "head/"
    renamed = {
        f"head/{name.removeprefix(prefix)}" if name.startswith(prefix) else name: tensor
        for name, tensor in weights.items()
    }
    # Keras does not keep the counters of batch norm.
    norms = [name.removesuffix("gamma") for name in renamed if name.endswith("/gamma")]
    renamed |= {f"{norm}num_batches_tracked": torch.zeros((), dtype=torch.int64) for norm in norms}
    return renamed, {}


def _describe_keras(weights: Weights) -> GenesisUNetConfig:
    convolutions = _count(weights, "depth_#_conv/kernel")  # two per level, going down and, but for the deepest, up
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
    return f"depth_{depth}_bn/{_KERAS_NORM.get(leaf, leaf)}"


GENESIS_KERAS_NETWORK = GenesisUNetConfig(norm_epsilon=1e-3, statistics="running", upsampling="nearest")

# `Genesis_Chest_CT.h5`, read as `read_keras` gives it.
GENESIS_KERAS = Layout(
    signature_keys=("depth_0_conv/kernel",),
    published=GENESIS_KERAS_NETWORK,
    original=_original_keras,
    describe=_describe_keras,
    prepare=_prepare_keras,
    input=CONTRACTS["ct"],
    patch_size=(64, 64, 32),
)

# nnU-Net, version 1. Each stage is one stack of convolutions, but the deepest and those of the decoder are two: all
# convolutions except the last, and the last. Networks of other shapes would expect another input, so none is guessed.


def _original_v1(name: str, config: PlainUNetConfig) -> str:
    part, kind, stage, *rest = name.split(".")
    if kind == "transpconvs":
        return f"tu.{stage}.{rest[0]}"
    if kind == "seg_layers":
        return f"seg_outputs.{stage}.{rest[0]}"
    index, layer, leaf = rest[-3:]
    layer = {"conv": "conv", "norm": "instnorm"}[layer]
    if part == "encoder" and int(stage) < len(config.widths) - 1:
        return f"conv_blocks_context.{stage}.blocks.{index}.{layer}.{leaf}"
    block = "conv_blocks_context" if part == "encoder" else "conv_blocks_localization"
    total = (config.convolutions if part == "encoder" else config.decoder_convolutions)[int(stage)]
    last = int(index) == total - 1
    return f"{block}.{stage}.{int(last)}.blocks.{0 if last else index}.{layer}.{leaf}"


# `genesis_nnunet_luna16_006.model`. Its input is (HU + 775.8457) / 251.9326; arrays lie z, y, x.
NNUNET_V1 = Layout(
    signature_keys=("conv_blocks_context.0.blocks.0.conv.weight",),
    published=NNUNET_V1_GENESIS,
    original=_original_v1,
    exports=lambda net: isinstance(net, PlainUNetConfig) and not (net.upsampling_bias or net.head_bias),
    input=InputContract(modality="ct", intensity="standardize", mean=-775.8457, deviation=251.9326, orientation="SPL"),
    patch_size=(32, 64, 64),
)


# nnU-Net, version 2. The names are those of this package, but a file holds most tensors two to four times.


def aliases(name: str) -> list[str]:
    """Return every name under which nnU-Net v2 keeps a tensor, the one that training updates first.

    Example:
        >>> aliases("decoder.stages.0.convs.0.norm.bias")
        ['decoder.stages.0.convs.0.all_modules.1.bias', 'decoder.stages.0.convs.0.norm.bias']
    """
    module, _, leaf = name.rpartition(".")
    parent, _, kind = module.rpartition(".")
    names = [name]
    if kind in ("conv", "norm"):
        names = [f"{parent}.all_modules.{('conv', 'norm').index(kind)}.{leaf}", name]
    if name.startswith("encoder."):
        names += [f"decoder.{alias}" for alias in names]
    return names


def _prepare_v2(weights: dict[str, Tensor]) -> Prepared:
    """Keep each tensor once, of names that disagree the one that training updated: that in `all_modules`."""
    groups: dict[str, list[str]] = {}
    for name in weights:
        canonical = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
        canonical = canonical.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")
        groups.setdefault(canonical, []).append(name)
    kept_once, dropped = dict[str, Tensor](), dict[str, str]()
    for canonical, names in groups.items():
        order = [name for name in aliases(canonical) if name in names] or names
        kept_once[canonical] = kept = weights[order[0]]
        for name in order[1:]:
            alike = weights[name].dtype == kept.dtype and weights[name].shape == kept.shape
            same = alike and (weights[name].data_ptr() == kept.data_ptr() or torch.equal(weights[name], kept))
            dropped[name] = f"{ALIAS} {order[0]}" if same else f"stale alias, {order[0]} differs"
    return kept_once, dropped


def _describe_v2(weights: Weights) -> PlainUNetConfig | ResidualUNetConfig:
    residual = "encoder.stem.convs.0.conv.weight" in weights
    stack = f"encoder.stages.@.{'blocks.#.conv1' if residual else '0.convs.#'}.conv.weight"
    stages = _count(weights, stack.replace("#", "0").replace("@", "#"))
    firsts = [stack.replace("#", "0").replace("@", str(stage)) for stage in range(stages)]
    per_stage = tuple(_count(weights, stack.replace("@", str(stage))) for stage in range(stages))
    kernels = [weights[name] for name in firsts]
    # The transposed convolutions, deepest first, have the strides that they undo as their kernels.
    undone = [tuple(weights[f"decoder.transpconvs.{index}.weight"].shape[2:]) for index in range(stages - 1)]
    up = "decoder.stages.@.convs.#.conv.weight"
    kind: Any = ResidualUNetConfig if residual else PlainUNetConfig
    return kind(
        **{"blocks" if residual else "convolutions": per_stage},
        dims=kernels[0].ndim - 2,
        in_channels=weights["encoder.stem.convs.0.conv.weight" if residual else firsts[0]].shape[1],
        out_channels=weights[f"decoder.seg_layers.{stages - 2}.weight"].shape[0],
        widths=tuple(kernel.shape[0] for kernel in kernels),
        kernels=tuple(tuple(kernel.shape[2:]) for kernel in kernels),
        strides=((1,) * len(undone[0]), *reversed(undone)),
        decoder_convolutions=tuple(_count(weights, up.replace("@", str(stage))) for stage in range(stages - 1)),
        norm="batch" if any(name.endswith("running_mean") for name in weights) else "instance",
        convolution_bias=firsts[0].replace("weight", "bias") in weights,
        upsampling_bias="decoder.transpconvs.0.bias" in weights,
        head_bias="decoder.seg_layers.0.bias" in weights,
    )


# `checkpoint_final.pth` of OpenMind, and what nnU-Net v2 saves.
NNUNET_V2 = Layout(
    signature_keys=tuple(
        f"{stem}.{module}.weight"
        for stem in ("encoder.stem.convs.0", "encoder.stages.0.0.convs.0")
        for module in ("all_modules.0", "conv")
    ),
    published=RESENC_L,
    original=lambda name, _: name,
    exports=lambda net: isinstance(net, (PlainUNetConfig, ResidualUNetConfig)),
    describe=_describe_v2,
    prepare=_prepare_v2,
    aliases=aliases,
)


def _prepare_encoder(weights: dict[str, Tensor]) -> Prepared:
    kept, dropped = _prepare_v2(weights)
    heads = {name: "not of the encoder" for name in kept if not name.startswith("encoder.")}
    return {name: tensor for name, tensor in kept.items() if name not in heads}, {**dropped, **heads}


# What other pretext tasks than restoration leave: the same encoder, key for key, and a head of the task's own.
NNUNET_V2_ENCODER = replace(
    NNUNET_V2, exports=lambda _: False, describe=None, prepare=_prepare_encoder, encoder_only=True
)

# By the name of the format. An export takes the first one that can hold the network.
LAYOUTS: dict[str, Layout] = {
    "genesis-pytorch": GENESIS_TORCH,
    "genesis-keras": GENESIS_KERAS,
    "nnunet-v1": NNUNET_V1,
    "openmind": NNUNET_V2,
    "openmind-encoder": NNUNET_V2_ENCODER,  # only when asked for: the names are those of the one before
}
