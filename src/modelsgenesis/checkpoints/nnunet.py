"""The layouts of nnU-Net: version 1's generic U-Net, and version 2's networks, which OpenMind used."""

from typing import Any

import torch
from torch import Tensor

from modelsgenesis.checkpoints.genesis import Layout, Prepared, Weights, count
from modelsgenesis.configs import NNUNET_V1_GENESIS, RESENC_L, InputContract, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.errors import some
from modelsgenesis.networks.nnunet import NnUNetConfig

ALIAS = "alias of"
"""Beginning of the reason for dropping a name that means a tensor already loaded."""

NNUNET_V1_INPUT = InputContract(
    modality="ct", intensity="standardize", mean=-775.8457, deviation=251.9326, orientation="SPL"
)
"""The input of `genesis_nnunet_luna16_006.model`: (HU + 775.8457) / 251.9326; arrays lie z, y, x."""


# Version 1. Each stage is one stack of convolutions, but the deepest and those of the decoder are two: all
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


NNUNET_V1 = Layout(
    signature_keys=("conv_blocks_context.0.blocks.0.conv.weight",),
    published=NNUNET_V1_GENESIS,
    original=_original_v1,
    input=NNUNET_V1_INPUT,
    patch_size=(32, 64, 64),
)
"""`genesis_nnunet_luna16_006.model`."""


# Version 2. The names are those of this package, but a file holds most tensors two to four times.


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


def _canonical(name: str) -> str:
    name = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


def _prepare_v2(weights: dict[str, Tensor]) -> Prepared:
    """Keep each tensor once, of names that disagree the one that training updated: that in `all_modules`."""
    groups: dict[str, list[str]] = {}
    for name in weights:
        groups.setdefault(_canonical(name), []).append(name)
    prepared = Prepared({}, notes=[f"{len(weights)} keys name {len(groups)} tensors"])
    disagreeing = []
    for canonical, names in groups.items():
        order = [name for name in aliases(canonical) if name in names] or names
        prepared.weights[canonical] = kept = weights[order[0]]
        for name in order[1:]:
            alike = weights[name].dtype == kept.dtype and weights[name].shape == kept.shape
            same = alike and (weights[name].data_ptr() == kept.data_ptr() or torch.equal(weights[name], kept))
            prepared.dropped[name] = f"{ALIAS} {order[0]}" if same else f"stale alias, {order[0]} differs"
            disagreeing += [] if same else [name]
    if disagreeing:
        prepared.notes.append(f"{len(disagreeing)} aliases disagree with all_modules: {some(disagreeing)}")
    return prepared


def _describe_v2(weights: Weights) -> NnUNetConfig:
    residual = "encoder.stem.convs.0.conv.weight" in weights
    stack = f"encoder.stages.@.{'blocks.#.conv1' if residual else '0.convs.#'}.conv.weight"
    stages = count(weights, stack.replace("#", "0").replace("@", "#"))
    firsts = [stack.replace("#", "0").replace("@", str(stage)) for stage in range(stages)]
    per_stage = tuple(count(weights, stack.replace("@", str(stage))) for stage in range(stages))
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
        decoder_convolutions=tuple(count(weights, up.replace("@", str(stage))) for stage in range(stages - 1)),
        norm="batch" if any(name.endswith("running_mean") for name in weights) else "instance",
        convolution_bias=firsts[0].replace("weight", "bias") in weights,
        upsampling_bias="decoder.transpconvs.0.bias" in weights,
        head_bias="decoder.seg_layers.0.bias" in weights,
    )


NNUNET_V2 = Layout(
    signature_keys=tuple(
        f"{stem}.{module}.weight"
        for stem in ("encoder.stem.convs.0", "encoder.stages.0.0.convs.0")
        for module in ("all_modules.0", "conv")
    ),
    published=RESENC_L,
    describe=_describe_v2,
    original=lambda name, _: name,
    prepare=_prepare_v2,
)
"""`checkpoint_final.pth` of OpenMind, and what nnU-Net v2 saves."""
