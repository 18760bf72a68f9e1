"""The bundle of a run, and the figures on its card."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import TypeVar, cast

import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.checkpoints.bundle import CARD_NAME, WEIGHTS_NAME
from modelsgenesis.checkpoints.card import render_card, split_card
from modelsgenesis.configs import BundleConfig, NetworkConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError, TrainingError
from modelsgenesis.files import read_text, reason_of, sha256_of
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import world_size
from modelsgenesis.training.run import Progress, Run

Made = TypeVar("Made")

BEST, CURVE = "figures/restorations.png", "figures/curve.png"
_TITLES = {
    BEST: "Original, deformed and restored validation patches",
    CURVE: "Loss in training and validation",
}


def network_config(network: nn.Module) -> NetworkConfig:
    """Return the shape of a network of this package."""
    return cast("NetworkConfig", network.config)


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Return what `make` makes with a global generator of this seed, which initialisation draws from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save_run_bundle(
    run: Run, network: nn.Module, config: BundleConfig, reporter: Reporter, *, card: bool = True
) -> str:
    """Write the bundle of a run and return the SHA-256 of its weights; a card that a person edited keeps their prose.

    Args:
        run: Gets the bundle.
        network: The best so far.
        config: Content of `config.json`.
        reporter: Receives a note of a card that is damaged.
        card: Write a card, with the figures of the run; the many short runs of a comparison have none.
    """
    text, path = "", run.folder / CARD_NAME
    if card:
        existing = ""
        try:
            if path.is_file():
                existing = read_text(path, ConfigurationError)
                split_card(existing, str(path))
        except ConfigurationError as error:  # no reason to end a training
            aside, existing = path.replace(path.with_name(f"damaged-{path.name}")), ""
            reporter.note(f"{error}: kept as {aside.name}, and a new card was written")
        figures = {title: name for name, title in _TITLES.items() if (run.folder / name).is_file()}
        text = render_card(config, name=run.folder.resolve().name, existing=existing, figures=figures)
    return sha256_of(save_bundle(run.folder, Bundle(network, config, text)) / WEIGHTS_NAME)


def load_kept(run: Run, progress: Progress) -> Bundle:
    """Return the bundle of the best validation.

    Raises:
        TrainingError: There is none, or its weights are not those that were kept.
    """
    path = run.folder / WEIGHTS_NAME
    if not progress.kept or not path.is_file():
        raise TrainingError(f"{run.folder}: no validation was completed, so there is no model; train for more steps")
    if sha256_of(path) != progress.kept:  # a file that is copied over the run's would be measured as if it were trained
        raise TrainingError(
            f"{path}: is not the network that was kept at step {progress.best_step}: damaged or replaced; start again "
            "in another folder"
        )
    return load_bundle(run.folder)


def describe_environment(hardware: Hardware, config: TrainingConfig) -> dict[str, str]:
    """Return versions, hardware and how it is used; nothing that names a person, a host or a path.

    Example:
        >>> from modelsgenesis.hardware import choose_hardware
        >>> told = describe_environment(choose_hardware("cpu", "float32"), TrainingConfig(compile=True))
        >>> told["hardware"].partition("threads, ")[2]
        'float32, fused adamw, compiled'
    """
    is_cuda = hardware.device.type == "cuda"
    other = "Apple GPU" if hardware.device.type == "mps" else f"CPU, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(hardware.device) if is_cuda else other
    used = [name, hardware.precision, f"fused {config.optimizer}"]
    used += ["compiled"] * (config.compile is True) + ["activations recomputed"] * config.checkpoint_activations
    if world_size() > 1:
        used.append(f"{world_size()} processes over {'nccl' if is_cuda else 'gloo'}")
    libraries = {name: version(name) for name in ("torch", "numpy", "monai")}
    return {"python": platform.python_version(), **libraries, "hardware": ", ".join(used)}


def try_drawing(draw: Callable[[], object], reporter: Reporter, what: str = "a figure") -> bool:
    """Draw a figure, or keep what else is extra, and return whether it worked; that it did not never ends a run."""
    try:
        draw()
    except Exception as problem:  # any at all: a run of days is worth more than its figure
        reporter.note(f"{what} is missing: {reason_of(problem)}")
        return False
    return True
