"""Untrained models on disk: random weights are enough to see where an answer lies, in a scan that lies oblique."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from modelsgenesis.checkpoints import Bundle, save_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    BundleConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    InputContract,
    Provenance,
)
from modelsgenesis.networks import build_network

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag([-2.0, -2.0, 2.5]), (11.3, -7.25, 4.125)
)
LABELS = ("background", "bright", "dark")


def write_bundle(
    folder: Path,
    *,
    task: str = "segmentation",
    contract: InputContract = CONTRACTS["ct"],
    patch_size: tuple[int, ...] = (16, 24, 20),
    labels: tuple[str, ...] = LABELS,
    multilabel: bool = False,
    seed: int = 0,
) -> Path:
    """Write a model of two levels with random weights."""
    unet = GenesisUNetConfig(
        dims=contract.dims,
        in_channels=len(contract.channels),
        out_channels=1 if task == "restoration" else len(labels),
        widths=(4, 8),
        norm="instance",
        output="sigmoid" if task == "restoration" else "linear",
    )
    classifies = task == "classification"
    network = ClassifierConfig(encoder=unet, num_classes=len(labels), hidden=0) if classifies else unet
    config = BundleConfig(
        task=task,
        network=network,
        input=contract,
        labels=() if task == "restoration" else labels,
        multilabel=multilabel,
        patch_size=patch_size,
        provenance=Provenance(origin="untrained", library_version="0"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return save_bundle(folder, Bundle(build_network(network).eval(), config))
