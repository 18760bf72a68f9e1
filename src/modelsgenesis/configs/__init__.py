"""Every hyperparameter of the package, frozen and checked. Importing this loads no other library."""

from modelsgenesis.configs.base import Config, apply_settings
from modelsgenesis.configs.bundle import (
    CONTRACTS,
    CT_WINDOW,
    BundleConfig,
    InputContract,
    Provenance,
)
from modelsgenesis.configs.finetuning import (
    ClassificationConfig,
    FinetuningConfig,
    SegmentationConfig,
    require_patch_size,
)
from modelsgenesis.configs.networks import (
    GENESIS_UNET_2019,
    GENESIS_UNET_SMALL,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    UNetConfig,
)
from modelsgenesis.configs.nnunet import NNUNET_V1_GENESIS, RESENC_L, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.configs.prediction import PredictionConfig
from modelsgenesis.configs.pretext import SCHEMES, PretextConfig, scheme
from modelsgenesis.configs.training import (
    GENESIS_2019,
    RECIPES,
    PretrainingConfig,
    TrainingConfig,
    pretraining_recipe,
)

__all__ = [
    "CONTRACTS",
    "CT_WINDOW",
    "GENESIS_2019",
    "GENESIS_UNET_2019",
    "GENESIS_UNET_SMALL",
    "NNUNET_V1_GENESIS",
    "RECIPES",
    "RESENC_L",
    "SCHEMES",
    "BundleConfig",
    "ClassificationConfig",
    "ClassifierConfig",
    "Config",
    "FinetuningConfig",
    "GenesisUNetConfig",
    "InputContract",
    "NetworkConfig",
    "PlainUNetConfig",
    "PredictionConfig",
    "PretextConfig",
    "PretrainingConfig",
    "Provenance",
    "ResidualUNetConfig",
    "SegmentationConfig",
    "TrainingConfig",
    "UNetConfig",
    "apply_settings",
    "pretraining_recipe",
    "require_patch_size",
    "scheme",
]
