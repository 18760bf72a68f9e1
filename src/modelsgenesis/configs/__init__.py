"""Every hyperparameter of the package, frozen and checked. Importing this loads no other library."""

from modelsgenesis.configs.base import apply_settings as apply_settings
from modelsgenesis.configs.bundle import CONTRACTS as CONTRACTS
from modelsgenesis.configs.bundle import GENESIS_UNET_2019 as GENESIS_UNET_2019
from modelsgenesis.configs.bundle import NNUNET_V1_GENESIS as NNUNET_V1_GENESIS
from modelsgenesis.configs.bundle import RESENC_L as RESENC_L
from modelsgenesis.configs.bundle import BundleConfig as BundleConfig
from modelsgenesis.configs.bundle import ClassifierConfig as ClassifierConfig
from modelsgenesis.configs.bundle import GenesisUNetConfig as GenesisUNetConfig
from modelsgenesis.configs.bundle import InputContract as InputContract
from modelsgenesis.configs.bundle import NetworkConfig as NetworkConfig
from modelsgenesis.configs.bundle import PlainUNetConfig as PlainUNetConfig
from modelsgenesis.configs.bundle import Provenance as Provenance
from modelsgenesis.configs.bundle import ResidualUNetConfig as ResidualUNetConfig
from modelsgenesis.configs.bundle import UNetConfig as UNetConfig
from modelsgenesis.configs.nnunet_plans import pretraining_of_plans as pretraining_of_plans
from modelsgenesis.configs.training import RECIPES as RECIPES
from modelsgenesis.configs.training import SCHEMES as SCHEMES
from modelsgenesis.configs.training import ClassificationConfig as ClassificationConfig
from modelsgenesis.configs.training import FinetuningConfig as FinetuningConfig
from modelsgenesis.configs.training import PredictionConfig as PredictionConfig
from modelsgenesis.configs.training import PretextConfig as PretextConfig
from modelsgenesis.configs.training import PretrainingConfig as PretrainingConfig
from modelsgenesis.configs.training import SegmentationConfig as SegmentationConfig
from modelsgenesis.configs.training import TrainingConfig as TrainingConfig
from modelsgenesis.configs.training import pretraining_recipe as pretraining_recipe
from modelsgenesis.configs.training import require_patch_size as require_patch_size
