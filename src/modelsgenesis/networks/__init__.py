"""Networks: nothing here knows of files, names or the Hub."""

from modelsgenesis.networks.adaptation import adapt
from modelsgenesis.networks.batch_norm import enable_activation_checkpointing, synchronise_batch_norm
from modelsgenesis.networks.building import build_network, empty_network
from modelsgenesis.networks.classifier import Classifier
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.nnunet import StagedUNet
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
    "enable_activation_checkpointing",
    "synchronise_batch_norm",
    "transfer",
]
