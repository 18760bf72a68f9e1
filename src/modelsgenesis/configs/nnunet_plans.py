"""nnU-Net's plans as a pretraining: the network, patch, spacing and intensities of one of their configurations."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelsgenesis.configs.base import shown
from modelsgenesis.configs.bundle import PlainUNetConfig, ResidualUNetConfig, UNetConfig
from modelsgenesis.configs.training import RECIPES, PretrainingConfig
from modelsgenesis.errors import ConfigurationError, did_you_mean
from modelsgenesis.files import parsing, read_json

_NETWORKS = {
    "PlainConvUNet": (PlainUNetConfig, "n_conv_per_stage"),
    "ResidualEncoderUNet": (ResidualUNetConfig, "n_blocks_per_stage"),
}
_DEFAULT = "3d_fullres"
_NORMS = {"InstanceNorm": "instance", "BatchNorm": "batch"}


def pretraining_of_plans(plans: str | Path, base: PretrainingConfig = RECIPES["small"]) -> PretrainingConfig:
    """Return a pretraining whose network fits nnU-Net's plans, on patches as nnU-Net v2 would cut them.

    Scans are turned so that their axes lie as nnU-Net's arrays do, z first unless `transpose_forward` says otherwise,
    and brought to the spacing of the plans. CT is clipped to the percentiles that nnU-Net found. Where nnU-Net takes
    z-scores, intensities are mapped to [0, 1] by percentiles, since the deformations need that.

    Args:
        plans: `nnUNetPlans.json` and the like, of nnU-Net 2.4 or newer; `nnUNetPlans.json@2d` for another of its
            configurations than `3d_fullres`.
        base: What the plans do not say: steps, learning rate, deformations.

    Returns:
        The configuration. The network has one input channel, as every pretraining.

    Raises:
        ConfigurationError: The file cannot be read, lacks the configuration, or plans another network.

    Example:
        config = pretraining_of_plans("nnUNetPlans.json")
        modelsgenesis.pretrain("scans/", "runs/genesis", config=config)
    """
    plan, path = read_nnunet_plan(plans)
    with _parsing(path):
        dims, order = len(plan["patch_size"]), "".join("SPL"[axis] for axis in plan["transpose_forward"])
        input_: dict[str, Any] = {"spacing": plan["spacing"], "orientation": order if dims == 3 else None}
        if plan["normalization_schemes"][0] == "CTNormalization":
            found = plan["foreground_intensity_properties_per_channel"]["0"]
            input_ |= {"modality": "ct", "window": (found["percentile_00_5"], found["percentile_99_5"])}
        elif plan["normalization_schemes"][0] == "ZScoreNormalization":
            input_["modality"] = "mri"
        changes = {name: plan[name] for name in ("patch_size", "batch_size")}
        changes["network"] = _network(plan["architecture"], dims, path)
        return base.override(**changes, data=base.data.override(**input_))


def read_nnunet_plan(plans: str | Path) -> tuple[dict[str, Any], Path]:
    """Return one configuration of nnU-Net's plans, with what all of them share, and the file.

    Raises:
        ConfigurationError: The file cannot be read, or has no such configuration.
    """
    name, at, configuration = str(plans).rpartition("@")
    path, configuration = (Path(name), configuration) if at and not Path(plans).exists() else (Path(plans), _DEFAULT)
    content = read_json(path, ConfigurationError)
    with _parsing(path):
        known = content["configurations"]
        if configuration not in known:
            remedy = f"choose one by {path}@NAME; {did_you_mean(configuration, known)}"
            raise ConfigurationError(f"{path}: plans no configuration {shown(configuration)}: {remedy}")
        plan = dict(known[configuration])
        for _ in known:  # as many as there can be, so that a circle ends
            plan = {**known[plan.pop("inherits_from")], **plan} if "inherits_from" in plan else plan
        return {**content, **plan}, path


_parsing = partial(
    parsing,
    error=ConfigurationError,
    what="as nnU-Net's plans",
    remedy="give the nnUNetPlans.json that nnUNetv2_plan_experiment of nnU-Net 2.4 or newer wrote",
)


def _network(architecture: Mapping[str, Any], dims: int, path: Path) -> UNetConfig:
    name, shape = str(architecture["network_class_name"]).rpartition(".")[2], architecture["arch_kwargs"]
    if name not in _NETWORKS:
        raise ConfigurationError(f"{path}: plans the network {shown(name)}; expected {' or '.join(_NETWORKS)}")
    kind, depths = _NETWORKS[name]
    return kind.from_dict(
        {
            "kind": kind.kind,
            "dims": dims,
            "widths": shape["features_per_stage"],
            "kernels": shape["kernel_sizes"],
            "strides": shape["strides"],
            kind.encoder_field: shape[depths],
            "decoder_convolutions": shape["n_conv_per_stage_decoder"],
            "convolution_bias": shape["conv_bias"],
            "upsampling_bias": shape["conv_bias"],
            "norm": _NORMS[shape["norm_op"].rpartition(".")[2][:-2]],
            "norm_epsilon": (shape["norm_op_kwargs"] or {}).get("eps", 1e-5),
            "negative_slope": (shape["nonlin_kwargs"] or {}).get("negative_slope", 0.01),
            "output": "sigmoid",  # restoration is in [0, 1]
        },
        str(path),
    )
