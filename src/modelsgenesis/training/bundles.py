"""What training writes into the bundle of a run."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle, save_bundle
from modelsgenesis.checkpoints.card import render_card
from modelsgenesis.configs import BundleConfig, NetworkConfig, TrainingConfig
from modelsgenesis.hardware import Hardware
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.run import Run


def network_config(network: nn.Module) -> NetworkConfig:
    """Return the shape of a network of this package."""
    return cast("NetworkConfig", network.config)


def save_run_bundle(
    run: Run, network: nn.Module, config: BundleConfig, figures: Mapping[str, str] | None = None
) -> None:
    """Write the bundle of a run; a card that a person edited keeps their prose."""
    card = run.folder / "README.md"
    existing = card.read_text() if card.exists() else ""
    text = render_card(config, name=run.folder.resolve().name, existing=existing, figures=figures or {})
    save_bundle(run.folder, Bundle(network, config, text))


def describe_computing(hardware: Hardware, config: TrainingConfig, processes: Processes | None = None) -> str:
    """Return how a run computes, a phrase for people.

    Example:
        >>> from modelsgenesis.hardware import choose_hardware
        >>> told = describe_computing(choose_hardware("cpu", "float32"), TrainingConfig(compile=True), Processes(1, 4))
        >>> told.partition("threads, ")[2]
        'float32, channels last, fused adamw, compiled, 4 processes over gloo'
    """
    told = [hardware.describe(), f"fused {config.optimizer}"]
    told += ["compiled"] * config.compile + ["activations computed anew"] * config.checkpoint_activations
    if processes is not None and not processes.is_alone:
        told.append(f"{processes.world_size} processes over {'nccl' if hardware.device.type == 'cuda' else 'gloo'}")
    return ", ".join(told)


def describe_environment(
    hardware: Hardware, config: TrainingConfig | None = None, processes: Processes | None = None
) -> dict[str, str]:
    """Return versions, hardware and how it was used; nothing that names a person, a host or a path."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("numpy", "monai")},
        **({"processor": processor} if (processor := describe_processor()) else {}),
        "hardware": hardware.describe() if config is None else describe_computing(hardware, config, processes),
    }


def describe_processor(information: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor as the system tells it; "" where it does not."""
    try:
        lines = information.read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
