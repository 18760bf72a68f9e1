"""Networks: nothing here knows of files, names or the Hub."""

from modelsgenesis.networks.adaptation import adapt
from modelsgenesis.networks.building import build_network, empty_network
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.heads import Classifier
from modelsgenesis.networks.nnunet import StagedUNet
from modelsgenesis.networks.recomputation import recompute_activations
from modelsgenesis.networks.statistics import share_statistics
from modelsgenesis.networks.transfer import AdaptationReport, transfer
from modelsgenesis.networks.unet import UNet

__all__ = [
    "AdaptationReport",
    "Classifier",
    "GenesisUNet",
    "StagedUNet",
    "UNet",
    "adapt",
    "build_network",
    "empty_network",
    "recompute_activations",
    "share_statistics",
    "transfer",
]
