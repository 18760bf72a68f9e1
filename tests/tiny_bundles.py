"""Untrained models on disk: random weights are enough to see where an answer lies, in a scan that lies oblique."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from modelsgenesis.checkpoints import Bundle, save_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    BundleConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    Provenance,
)
from modelsgenesis.networks import build_network

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag([-2.0, -2.0, 2.5]), (11.3, -7.25, 4.125)
)
LABELS = ("background", "bright", "dark")


def make_bundle(network: NetworkConfig, *, seed: int = 0, card: str = "", **settings: Any) -> Bundle:
    """A network with random weights and a configuration that fits it; `settings` are of the configuration."""
    classifies = isinstance(network, ClassifierConfig)
    unet, outputs = network.unet, network.outputs
    task = settings.setdefault("task", "classification" if classifies else "restoration")
    channels = tuple(f"image{channel}" for channel in range(unet.in_channels))
    config = {
        "input": CONTRACTS["ct"].override(dims=unet.dims, channels=channels),
        "labels": () if task == "restoration" else tuple(f"class {index}" for index in range(outputs)),
        "patch_size": (16, 16, 8)[: unet.dims],
        "provenance": Provenance(origin="untrained", library_version="0"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Bundle(build_network(network).eval(), BundleConfig(network=network, **{**config, **settings}), card)


def write_bundle(
    folder: Path,
    *,
    task: str = "segmentation",
    contract: Any = CONTRACTS["ct"],
    patch_size: tuple[int, ...] = (16, 24, 20),
    labels: tuple[str, ...] = LABELS,
    multilabel: bool = False,
    seed: int = 0,
) -> Path:
    """Write a model of two levels with random weights."""
    restores, classifies = task == "restoration", task == "classification"
    unet = GenesisUNetConfig(
        dims=contract.dims,
        in_channels=len(contract.channels),
        out_channels=1 if restores else len(labels),
        widths=(4, 8),
        norm="instance",
        output="sigmoid" if restores else "linear",
    )
    network = ClassifierConfig(encoder=unet, num_classes=len(labels), hidden=0) if classifies else unet
    settings = {"input": contract, "labels": () if restores else labels, "multilabel": multilabel}
    return save_bundle(folder, make_bundle(network, seed=seed, task=task, patch_size=patch_size, **settings))
