"""Networks: nothing here knows of files, names or the Hub."""

from modelsgenesis.networks.adaptation import adapt as adapt
from modelsgenesis.networks.building import build_network as build_network
from modelsgenesis.networks.building import empty_network as empty_network
from modelsgenesis.networks.genesis_unet import GenesisUNet as GenesisUNet
from modelsgenesis.networks.heads import Classifier as Classifier
from modelsgenesis.networks.nnunet import StagedUNet as StagedUNet
from modelsgenesis.networks.recomputation import recompute_activations as recompute_activations
from modelsgenesis.networks.statistics import share_statistics as share_statistics
from modelsgenesis.networks.transfer import AdaptationReport as AdaptationReport
from modelsgenesis.networks.transfer import transfer as transfer
from modelsgenesis.networks.unet import UNet as UNet
