"""The adaptation plan that lies beside OpenMind's checkpoints, read and written."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelsgenesis.checkpoints.safe_load import mappings
from modelsgenesis.configs import RESENC_L, InputContract, PlainUNetConfig, ResidualUNetConfig, UNetConfig
from modelsgenesis.configs.base import shown
from modelsgenesis.errors import CheckpointError, did_you_mean, require, some
from modelsgenesis.networks.nnunet import NnUNetConfig

PLAN_KEY = "nnssl_adaptation_plan"  # of the plan in a checkpoint
PLAN_NAME = "adaptation_plan.json"  # beside the checkpoint
CONTRACT_KEY = "modelsgenesis_input"  # of the exact input contract in a plan of this package

# The input of OpenMind's networks. nnU-Net's arrays lie z, y, x as SimpleITK reads them: S, P, L.
OPENMIND_INPUT = InputContract(modality="mri", intensity="zscore", spacing=(1.0, 1.0, 1.0), orientation="SPL")

_CLASSES = {
    "plainconvunet": PlainUNetConfig,
    "residualencoderunet": ResidualUNetConfig,
    "residualencoder": ResidualUNetConfig,  # the encoder alone
    "resencl": ResidualUNetConfig,  # a residual network of one shape
}
_NORMALIZATION = {"zscore": "ZScoreNormalization", "standardize": "CTNormalization"}
_KEYS = {  # in plans of several versions
    "the architecture's name": ("arch_class_name", "network_class_name", "architecture"),
    "spacing": ("spacing", "target_spacing"),
    "patch size": ("patch_size", "recommended_downstream_patchsize"),
    "normalisation": ("normalization_schemes", "normalization"),
}


def find_values(values: Any, key: str) -> Iterator[Any]:
    """Go through the values of `key` at any depth, the outermost first; None does not count."""
    return (mapping[key] for _, mapping in mappings(values) if mapping.get(key) is not None)


def read_plan(
    values: Any,
    where: str,
    network: UNetConfig,
    contract: InputContract | None = None,
    patch_size: tuple[int, ...] | None = None,
) -> tuple[InputContract, tuple[int, ...]]:
    """Return the input and the patch size of a pretraining from its plan, and compare its network.

    Args:
        values: The plan. Those of several versions and of nnU-Net nest differently, so its keys count, wherever they
            are.
        where: What a message calls it.
        network: The network that the tensors beside the plan make up.
        contract: The input, where it is known: the plan is not asked for it.
        patch_size: The sides of the patches, likewise.

    Returns:
        The input that pretraining saw, whose arrays lie as nnU-Net reads them: z, y, x. The sides of its patches.

    Raises:
        CheckpointError: The plan is not a mapping, names another or an unknown architecture, or lacks the patch size,
            the spacing or the normalisation, or they cannot be.
        ConfigurationError: It has a contract of this package that cannot be.
    """
    kind = type(values).__name__
    require(isinstance(values, Mapping), CheckpointError, f"{where}: holds {kind}, expected a JSON object")
    name = _find(values, where, "the architecture's name")
    short = re.sub(r"[^a-z0-9]", "", str(name)[:200].rpartition(".")[2].lower())
    if short not in _CLASSES:
        raise CheckpointError(f"{where}: architecture {shown(name)} is unknown; {did_you_mean(short, _CLASSES)}")
    one_shape = RESENC_L.override(in_channels=network.in_channels, out_channels=network.out_channels)
    if not isinstance(network, _CLASSES[short]) or (short == "resencl" and network != one_shape):
        raise CheckpointError(
            f"{where}: names the architecture {shown(name)}, but the tensors make up a {network.kind}"
            f" with widths {network.widths}; give the plan that came with the checkpoint"
        )
    patch = patch_size or _find_numbers(values, where, "patch size")
    require(not any(side % 1 for side in patch), CheckpointError, f"{where}: patch size is {patch}, expected integers")
    if contract is not None:
        return contract, tuple(map(int, patch))
    fields = next(find_values(values, CONTRACT_KEY), None)
    if fields is None:
        schemes, spacing = _find(values, where, "normalisation"), _find_numbers(values, where, "spacing")
        if schemes not in ("ZScoreNormalization", ["ZScoreNormalization"]):
            expected = "expected 'ZScoreNormalization' for one channel; pass the input contract"
            raise CheckpointError(f"{where}: normalisation is {shown(schemes)}, {expected}")
        fields = {**OPENMIND_INPUT.to_dict(), "dims": len(spacing), "spacing": spacing}
    return InputContract.from_dict(fields, where), tuple(map(int, patch))


def _find(plan: Mapping[str, Any], where: str, what: str) -> Any:
    found = [value for key in _KEYS[what] for value in find_values(plan, key)]
    has, expected = some([*map(str, plan)]) or "no key", " or ".join(_KEYS[what])
    said = f"says nothing of {what}; it has {has}, expected {expected}; give the plan that came with the checkpoint"
    require(found, CheckpointError, f"{where}: {said}")
    return found[0]


def _find_numbers(plan: Mapping[str, Any], where: str, what: str) -> tuple[float, ...]:
    value = _find(plan, where, what)
    numbers = value if isinstance(value, (list, tuple)) else ()
    # `type`, since True is an int; the bound keeps a plan from filling the memory with one patch.
    right = len(numbers) in (2, 3) and all(type(n) in (int, float) and 0 < n < 1e6 for n in numbers)
    expected = "expected positive numbers, one for each of 2 or 3 axes"
    require(right, CheckpointError, f"{where}: {what} is {shown(value)}, {expected}")
    return tuple(numbers)


def make_plan(network: NnUNetConfig, contract: InputContract, patch_size: tuple[int, ...]) -> dict[str, Any]:
    """Describe a network of the nnU-Net family as a plan, with all that nnU-Net v2 needs to build it."""
    norm = {"instance": "instancenorm.InstanceNorm", "batch": "batchnorm.BatchNorm"}[network.norm]
    if isinstance(network, ResidualUNetConfig):
        class_name, blocks = "ResidualEncoderUNet", {"n_blocks_per_stage": list(network.blocks)}
    else:
        class_name, blocks = "PlainConvUNet", {"n_conv_per_stage": list(network.convolutions)}
    return {
        "architecture_plans": {
            "arch_class_name": f"dynamic_network_architectures.architectures.unet.{class_name}",
            "arch_kwargs": {  # the arguments of nnU-Net's own class, as a plans file of nnU-Net has them
                **blocks,
                "n_stages": len(network.widths),
                "features_per_stage": list(network.widths),
                "conv_op": f"torch.nn.modules.conv.Conv{network.dims}d",
                "kernel_sizes": [list(axes) for axes in network.kernels],
                "strides": [list(axes) for axes in network.strides],
                "n_conv_per_stage_decoder": list(network.decoder_convolutions),
                "conv_bias": network.convolution_bias,
                "norm_op": f"torch.nn.modules.{norm}{network.dims}d",
                "norm_op_kwargs": {"eps": network.norm_epsilon, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"negative_slope": network.negative_slope, "inplace": True},
            },
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "pretrain_plan": {
            "spacing": None if contract.spacing is None else list(contract.spacing),
            "patch_size": list(patch_size),
            "normalization_schemes": [_NORMALIZATION.get(contract.intensity, "NoNormalization")],
        },
        "recommended_downstream_patchsize": list(patch_size),
        "pretrain_num_input_channels": network.in_channels,
        CONTRACT_KEY: contract.to_dict(),  # read back by this package alone, exactly
    }
