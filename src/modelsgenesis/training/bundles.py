"""What training writes into the bundle of a run."""

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.checkpoints.bundle import CARD_NAME, WEIGHTS_NAME
from modelsgenesis.checkpoints.card import render_card, split_card
from modelsgenesis.configs import BundleConfig, NetworkConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError, TrainingError
from modelsgenesis.files import read_text, sha256_of
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import world_size
from modelsgenesis.training.run import Run
from modelsgenesis.training.trainer import Progress

Made = TypeVar("Made")


def network_config(network: nn.Module) -> NetworkConfig:
    """Return the shape of a network of this package."""
    return cast("NetworkConfig", network.config)


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Return what `make` makes with a global generator of this seed, which initialisation draws from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save_run_bundle(
    run: Run, network: nn.Module, config: BundleConfig, figures: Mapping[str, str] | None, reporter: Reporter
) -> str:
    """Write the bundle of a run and return the SHA-256 of its weights; a card that a person edited keeps their prose.

    Args:
        run: Gets the bundle.
        network: The best so far.
        config: Content of `config.json`.
        figures: Path of each picture on the card by its title; None writes no card.
        reporter: Receives a note of a card that is damaged.
    """
    text = ""
    if figures is not None:  # the many short runs of a comparison write no card
        existing = _existing_card(run.folder / CARD_NAME, reporter)
        text = render_card(config, name=run.folder.resolve().name, existing=existing, figures=figures)
    return sha256_of(save_bundle(run.folder, Bundle(network, config, text)) / WEIGHTS_NAME)


def _existing_card(path: Path, reporter: Reporter) -> str:
    """Return the card that is there; one that cannot be read is put aside, for it is no reason to end a training."""
    if not path.is_file():
        return ""
    try:
        text = read_text(path, ConfigurationError)
        split_card(text, str(path))
    except ConfigurationError as error:
        aside = path.replace(path.with_name(f"damaged-{path.name}"))
        reporter.note(f"{error}: kept as {aside.name}, and the card written anew")
        return ""
    return text


def load_kept(run: Run, progress: Progress) -> Bundle:
    """Return the bundle of the best validation.

    Raises:
        TrainingError: There is none, or its weights are not those that were kept.
    """
    path = run.folder / WEIGHTS_NAME
    if not progress.kept or not path.is_file():
        raise TrainingError(f"{run.folder}: no validation ended, so there is no bundle; train for more steps")
    if sha256_of(path) != progress.kept:  # a file that is copied over the run's would be measured as if it were trained
        raise TrainingError(
            f"{path}: is not the network that was kept at step {progress.best_step}: damaged or replaced; start again "
            "in another folder"
        )
    return load_bundle(run.folder)


def describe_computing(hardware: Hardware, config: TrainingConfig) -> str:
    """Return a human-readable phrase on how a run computes.

    Example:
        >>> from modelsgenesis.hardware import choose_hardware
        >>> told = describe_computing(choose_hardware("cpu", "float32"), TrainingConfig(compile=True))
        >>> told.partition("threads, ")[2]
        'float32, channels last, fused adamw, compiled'
    """
    told = [hardware.describe(), f"fused {config.optimizer}"]
    told += ["compiled"] * config.compile + ["activations recomputed"] * config.checkpoint_activations
    if world_size() > 1:
        told.append(f"{world_size()} processes over {'nccl' if hardware.device.type == 'cuda' else 'gloo'}")
    return ", ".join(told)


def describe_environment(hardware: Hardware, config: TrainingConfig) -> dict[str, str]:
    """Return versions, hardware and how it was used; nothing that names a person, a host or a path."""
    libraries = {name: version(name) for name in ("torch", "numpy", "monai")}
    return {"python": platform.python_version(), **libraries, "hardware": describe_computing(hardware, config)}
