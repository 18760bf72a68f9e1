"""Models Genesis for 2D and 3D medical images.

Example:
    import modelsgenesis

    model = modelsgenesis.from_pretrained("genesis-chest-ct-3d", task="seg", num_classes=3)
    run = modelsgenesis.pretrain("scans/", "runs/chest")
    run, measured = modelsgenesis.finetune("Task04_Hippocampus", "runs/hippocampus", init=run)
    prediction = modelsgenesis.predict(run, "scan.nii.gz")
    modelsgenesis.push_to_hub(run, "org/name")

Importing the package loads neither torch nor huggingface_hub: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelsgenesis._version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers; `as` marks what is public
    from modelsgenesis.checkpoints import Bundle as Bundle
    from modelsgenesis.checkpoints import load_bundle as load_bundle
    from modelsgenesis.checkpoints import save_bundle as save_bundle
    from modelsgenesis.comparison import compare as compare
    from modelsgenesis.comparison import describe_comparison as describe_comparison
    from modelsgenesis.configs import BundleConfig as BundleConfig
    from modelsgenesis.configs import ClassificationConfig as ClassificationConfig
    from modelsgenesis.configs import FinetuningConfig as FinetuningConfig
    from modelsgenesis.configs import GenesisUNetConfig as GenesisUNetConfig
    from modelsgenesis.configs import InputContract as InputContract
    from modelsgenesis.configs import PredictionConfig as PredictionConfig
    from modelsgenesis.configs import PretextConfig as PretextConfig
    from modelsgenesis.configs import PretrainingConfig as PretrainingConfig
    from modelsgenesis.configs import SegmentationConfig as SegmentationConfig
    from modelsgenesis.errors import GenesisError as GenesisError
    from modelsgenesis.evaluation import evaluate as evaluate
    from modelsgenesis.finetuning import finetune as finetune
    from modelsgenesis.hub import list_cards as list_cards
    from modelsgenesis.hub.push import push_to_hub as push_to_hub
    from modelsgenesis.models import GenesisModel as GenesisModel
    from modelsgenesis.models import from_pretrained as from_pretrained
    from modelsgenesis.models import load as load
    from modelsgenesis.models import save_pretrained as save_pretrained
    from modelsgenesis.networks import GenesisUNet as GenesisUNet
    from modelsgenesis.networks import adapt as adapt
    from modelsgenesis.networks import build_network as build_network
    from modelsgenesis.prediction import monai_transforms as monai_transforms
    from modelsgenesis.prediction import predict as predict
    from modelsgenesis.prediction import predict_all as predict_all
    from modelsgenesis.pretext import Deformation as Deformation
    from modelsgenesis.pretraining import pretrain as pretrain
    from modelsgenesis.reports import report as report
    from modelsgenesis.viewer import view as view

_NAMES = {  # what `__getattr__` finds, by the module that it comes from
    "checkpoints": "Bundle load_bundle save_bundle",
    "comparison": "compare describe_comparison",
    "configs": "BundleConfig ClassificationConfig FinetuningConfig GenesisUNetConfig InputContract "
    "PredictionConfig PretextConfig PretrainingConfig SegmentationConfig",
    "errors": "GenesisError",
    "evaluation": "evaluate",
    "finetuning": "finetune",
    "hub": "list_cards",
    "hub.push": "push_to_hub",
    "models": "GenesisModel from_pretrained load save_pretrained",
    "networks": "GenesisUNet adapt build_network",
    "pretext": "Deformation",
    "prediction": "monai_transforms predict predict_all",
    "pretraining": "pretrain",
    "reports": "report",
    "viewer": "view",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *_MODULE_OF])
