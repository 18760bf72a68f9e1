"""Networks: nothing here knows of files, names or the Hub."""

from modelsgenesis.networks.adaptation import AdaptationReport as AdaptationReport
from modelsgenesis.networks.adaptation import adapt as adapt
from modelsgenesis.networks.adaptation import build_network as build_network
from modelsgenesis.networks.batch_norm import enable_activation_checkpointing as enable_activation_checkpointing
from modelsgenesis.networks.batch_norm import synchronise_batch_norm as synchronise_batch_norm
from modelsgenesis.networks.genesis_unet import GenesisUNet as GenesisUNet
from modelsgenesis.networks.genesis_unet import Network as Network
from modelsgenesis.networks.nnunet import NnUNet as NnUNet
