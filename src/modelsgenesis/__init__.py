"""Models Genesis for 2D and 3D medical images.

Example:
    import modelsgenesis

    network = modelsgenesis.from_pretrained("genesis-chest-ct-3d", task="seg", num_classes=3)
    run = modelsgenesis.pretrain("scans/", "runs/chest")
    run, measured = modelsgenesis.finetune("Task04_Hippocampus", "runs/hippocampus", init=run)
    prediction = modelsgenesis.predict(run, "scan.nii.gz")
    modelsgenesis.push_to_hub(run, "org/name")

Importing the package loads neither torch nor huggingface_hub: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelsgenesis._version import __version__ as __version__

if TYPE_CHECKING:
    from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
    from modelsgenesis.configs import (
        BundleConfig,
        ClassificationConfig,
        FinetuningConfig,
        GenesisUNetConfig,
        InputContract,
        PredictionConfig,
        PretextConfig,
        PretrainingConfig,
        SegmentationConfig,
    )
    from modelsgenesis.errors import GenesisError
    from modelsgenesis.hub import list_cards
    from modelsgenesis.networks import GenesisUNet, adapt, build_network
    from modelsgenesis.pretext import Deformation
    from modelsgenesis.verbs import (
        compare,
        describe_comparison,
        evaluate,
        finetune,
        from_pretrained,
        load,
        predict,
        predict_all,
        pretrain,
        push_to_hub,
        save_pretrained,
    )

_HOMES = {
    "checkpoints": ("Bundle", "load_bundle", "save_bundle"),
    "configs": (
        "BundleConfig",
        "ClassificationConfig",
        "FinetuningConfig",
        "GenesisUNetConfig",
        "InputContract",
        "PredictionConfig",
        "PretextConfig",
        "PretrainingConfig",
        "SegmentationConfig",
    ),
    "errors": ("GenesisError",),
    "hub": ("list_cards",),
    "networks": ("GenesisUNet", "adapt", "build_network"),
    "pretext": ("Deformation",),
    "verbs": (
        "compare",
        "describe_comparison",
        "evaluate",
        "finetune",
        "from_pretrained",
        "load",
        "predict",
        "predict_all",
        "pretrain",
        "push_to_hub",
        "save_pretrained",
    ),
}
_ROOM_OF = {name: room for room, names in _HOMES.items() for name in names}

__all__ = [
    "Bundle",
    "BundleConfig",
    "ClassificationConfig",
    "Deformation",
    "FinetuningConfig",
    "GenesisError",
    "GenesisUNet",
    "GenesisUNetConfig",
    "InputContract",
    "PredictionConfig",
    "PretextConfig",
    "PretrainingConfig",
    "SegmentationConfig",
    "adapt",
    "build_network",
    "compare",
    "describe_comparison",
    "evaluate",
    "finetune",
    "from_pretrained",
    "list_cards",
    "load",
    "load_bundle",
    "predict",
    "predict_all",
    "pretrain",
    "push_to_hub",
    "save_bundle",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
