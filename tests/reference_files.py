"""Checkpoint files in the wrappers in which they are published, with values that can be rebuilt anywhere.

The first three come from the reference folder's lists of keys and seeds (`fill.py` there). The OpenMind file
comes from dynamic-network-architectures, which builds the published network.
"""

import json
import runpy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle, convert_checkpoint, load_bundle
from modelsgenesis.checkpoints.conversion import ConversionReport

SGD_STATE = {
    "state": {0: {"momentum_buffer": torch.zeros(2)}},
    "param_groups": [{"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "params": [0]}],
}

OPENMIND_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full": {"features_per_stage": [32, 64, 128, 256, 320, 320], "n_blocks_per_stage": [1, 3, 4, 6, 6, 6]},
    "small": {"features_per_stage": [4, 8, 12], "n_blocks_per_stage": [1, 2, 2]},
}


def reference(shared: Path, name: str) -> dict[str, Any]:
    """The keys, shapes and seeds of a reference checkpoint."""
    return json.loads((shared / "reference" / f"{name}.json").read_text())


def outputs(shared: Path, name: str) -> dict[str, np.ndarray]:
    """Input and outputs of the original network."""
    with np.load(shared / "reference" / f"{name}.npz") as arrays:
        return dict(arrays)


@lru_cache(2)  # drawing 20 million numbers takes a second
def reference_state_dict(shared: Path, name: str) -> dict[str, torch.Tensor]:
    """The state dict of a reference checkpoint under its original key names."""
    fill = runpy.run_path(str(shared / "reference" / "fill.py"))["reference_tensor"]
    return {
        one["key"]: torch.zeros(tuple(one["shape"]), dtype=torch.int64)
        if one["dtype"] == "int64"
        else torch.from_numpy(fill(one["key"], tuple(one["shape"]), one["seed"]))
        for one in reference(shared, name)["tensors"]
    }


def write_genesis_pt(
    path: Path, shared: Path, *, prefix: str = "module.", key: str | None = "state_dict", legacy: bool = False
) -> Path:
    """Write `Genesis_Chest_CT.pt`.

    Args:
        path: The file.
        shared: The folder that holds `reference/`.
        prefix: Of every key; empty in some published files.
        key: Where in the wrapper the weights are; None for a bare state dict.
        legacy: Write the format from before torch 1.6, which is no zip file.
    """
    weights = {prefix + name: t for name, t in reference_state_dict(shared, "genesis_chest_ct_3d").items()}
    wrapped = {"epoch": 1, key: weights, "optimizer_state_dict": SGD_STATE} if key else weights
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrapped, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_nnunet_model(path: Path, shared: Path) -> Path:
    """Write `genesis_nnunet_luna16_006.model`."""
    weights = reference_state_dict(shared, "genesis_nnunet_luna16_006")
    torch.save({"epoch": 1, "state_dict": weights, "optimizer_state_dict": SGD_STATE}, path)
    return path


def write_keras_h5(path: Path, shared: Path) -> Path:
    """Write `Genesis_Chest_CT.h5`."""
    import h5py

    fill = runpy.run_path(str(shared / "reference" / "fill.py"))["reference_tensor"]
    layers: dict[str, list[str]] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        parent = file.create_group("model_weights")
        for tensor in reference(shared, "genesis_chest_ct_3d_keras")["tensors"]:
            layer, name = tensor["path"].split("/", 1)
            layers.setdefault(layer, []).append(name)
            parent[tensor["path"]] = keras_value(fill, name, tuple(tensor["shape"]), tensor["seed"])
        parent.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, names in layers.items():
            parent[layer].attrs["weight_names"] = [name.encode() for name in names]
    return path


def keras_value(fill: Any, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    leaf = name.rsplit("/", 1)[-1].removesuffix(":0")
    if leaf == "kernel":  # (out, in, kd, kh, kw) becomes (kd, kh, kw, in, out)
        return fill("weight", (*shape[:-3:-1], *shape[:3]), seed).transpose(2, 3, 4, 1, 0)
    torch_name = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    return fill({"moving_variance": "running_var", "bias": "bias", **torch_name}[leaf], shape, seed)


def openmind_network(config: Literal["small", "full"]) -> nn.Module:
    """The residual encoder U-Net as dynamic-network-architectures builds it, with fixed random weights."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    stages = len(OPENMIND_CONFIGURATIONS[config]["n_blocks_per_stage"])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = ResidualEncoderUNet(
            input_channels=1,
            n_stages=stages,
            strides=[1] + [2] * (stages - 1),
            conv_op=nn.Conv3d,
            kernel_sizes=[[3, 3, 3]] * stages,
            num_classes=1,
            n_conv_per_stage_decoder=[1] * (stages - 1),
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=False,
            **OPENMIND_CONFIGURATIONS[config],
        )
        with torch.no_grad():  # norms begin as ones and zeros, with which a mistake could hide
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return network.eval()


def adaptation_plan(config: Literal["small", "full"]) -> dict[str, Any]:
    """A plan as it lies beside an OpenMind checkpoint: the architecture by its name only."""
    sides, name = ([160] * 3, "ResEncL") if config == "full" else ([16] * 3, "ResidualEncoderUNet")
    trained = {"spacing": [1.0] * 3, "patch_size": sides, "normalization_schemes": ["ZScoreNormalization"]}
    return {
        "architecture_plans": {"arch_class_name": name, "arch_kwargs": None, "arch_kwargs_requiring_import": None},
        "pretrain_plan": {"configurations": {"onemmiso": trained}},
        "recommended_downstream_patchsize": sides,
        "pretrain_num_input_channels": 1,
    }


def write_openmind_pth(path: Path, config: Literal["small", "full"] = "small") -> Path:
    """Write `checkpoint_final.pth` and, beside it, `adaptation_plan.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = adaptation_plan(config)
    torch.save({"network_weights": openmind_network(config).state_dict(), "nnssl_adaptation_plan": plan}, path)
    (path.parent / "adaptation_plan.json").write_text(json.dumps(plan, indent=2))
    return path


def write_openmind_encoder(path: Path, config: Literal["small", "full"] = "small", where: str = "") -> Path:
    """Write what a pretext task that does not restore leaves: the same encoder, and a head of the task's own."""
    content = torch.load(write_openmind_pth(path, config), weights_only=True)
    weights = {where + name: t for name, t in content["network_weights"].items() if name.startswith("encoder.")}
    content["network_weights"] = {**weights, f"{where}projector.0.weight": torch.ones(3, 2)}
    torch.save(content, path)
    return path


def converted(file: Path, folder: Path, **options: Any) -> tuple[ConversionReport, Bundle]:
    """Convert a checkpoint; return the report and the bundle."""
    report = convert_checkpoint(file, folder, **options)
    return report, load_bundle(folder)
