"""Networks: nothing here knows of files, names or the Hub."""

from modelsgenesis.networks.adaptation import adapt
from modelsgenesis.networks.building import build_network
from modelsgenesis.networks.genesis_unet import GenesisUNet
from modelsgenesis.networks.heads import Classifier
from modelsgenesis.networks.transfer import AdaptationReport, transfer

__all__ = ["AdaptationReport", "Classifier", "GenesisUNet", "adapt", "build_network", "transfer"]
