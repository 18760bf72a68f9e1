"""Every hyperparameter of the package, frozen and checked. Importing this loads no other library."""

from modelsgenesis.configs.base import Config
from modelsgenesis.configs.bundle import (
    CONTRACTS,
    CT_WINDOW,
    BundleConfig,
    InputContract,
    Provenance,
)
from modelsgenesis.configs.networks import (
    GENESIS_UNET_2019,
    GENESIS_UNET_SMALL,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    UNetConfig,
)
from modelsgenesis.configs.pretext import SCHEMES, PretextConfig, scheme

__all__ = [
    "CONTRACTS",
    "CT_WINDOW",
    "GENESIS_UNET_2019",
    "GENESIS_UNET_SMALL",
    "SCHEMES",
    "BundleConfig",
    "ClassifierConfig",
    "Config",
    "GenesisUNetConfig",
    "InputContract",
    "NetworkConfig",
    "PretextConfig",
    "Provenance",
    "UNetConfig",
    "scheme",
]
