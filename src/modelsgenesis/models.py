"""Load a model by its name, adapt it, save it as a bundle, push it to the Hub."""

from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.checkpoints.card import render_card
from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hub.download import cache_folder, fetch_bundle
from modelsgenesis.hub.registry import Progress, list_cards
from modelsgenesis.networks import adapt


def load(
    name: str | Path, *, revision: str | None = None, token: str | None = None, progress: Progress | None = None
) -> Bundle:
    """Return a model with everything that its bundle says.

    Args:
        name: A name of the registry, `org/repo` or `org/repo@revision` on the Hub, or a folder.
        revision: Branch, tag or commit on the Hub.
        token: Token of the Hub; by default `HF_TOKEN` or the stored one.
        progress: Called with a file's name, the bytes done and the bytes in all, while it is downloaded.

    Raises:
        HubError: No model has this name, or the Hub or the download failed.
        CheckpointError: The files are not a sound model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not revision:
        return load_bundle(folder)
    folder = fetch_bundle(name, revision=revision, token=token, progress=progress)
    # To look for NaN reads every weight; what this package converted was looked at then.
    return load_bundle(folder, check_values=folder.parent != cache_folder("bundles"))


def from_pretrained(
    name: str | Path,
    *,
    task: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    **adaptation: Any,
) -> nn.Module:
    """Return a pretrained network in evaluation mode, as it is or adapted to a task.

    Args:
        name: A name of the registry, `org/repo` or `org/repo@revision` on the Hub, or a folder.
        task: `"seg"` or `"cls"` for a network with a new head; None for the pretrained network itself.
        num_classes: Classes of the task, the background of a segmentation among them.
        in_channels: Channels of the input where they differ from the pretrained network's.
        revision: Branch, tag or commit on the Hub.
        token: Token of the Hub; by default `HF_TOKEN` or the stored one.
        adaptation: More of `modelsgenesis.networks.adapt`: `hidden`, `levels`, `encoder_only`, `dims`, `statistics`,
            `rescale`.

    Returns:
        The network. `.features(x)` gives every level of its encoder; `.bundle` is the `BundleConfig` with the
        input that it expects; `.adaptation` says, after an adaptation, what came from the checkpoint.

    Raises:
        HubError: No model has this name, or the Hub or the download failed.
        CheckpointError: The files are not a sound model, or do not fill the network asked for.

    Example:
        network = modelsgenesis.from_pretrained("genesis-chest-ct-3d", task="seg", num_classes=3)
        print(network.adaptation)
    """
    bundle = load(name, revision=revision, token=token)
    network, config = bundle.network, bundle.config
    if task is not None or in_channels is not None or adaptation:
        asked = {"task": task or config.task, "num_classes": num_classes, "in_channels": in_channels, **adaptation}
        network, report = adapt(network, copy=False, **asked)
        network.adaptation = report  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    elif num_classes is not None:
        raise ConfigurationError(f"num_classes={num_classes} without a task: add task='seg' or task='cls'")
    network.bundle = config  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return network


def save_pretrained(
    network: nn.Module, folder: str | Path, config: BundleConfig | None = None, *, card: str = ""
) -> Path:
    """Write a network as a bundle: `config.json`, `model.safetensors`, `README.md`.

    Args:
        network: Any network of this package.
        folder: Where to; made if it is not there.
        config: What `config.json` says; by default the network's own `.bundle`, as `from_pretrained` set it.
        card: The card; by default one is rendered from the configuration.

    Returns:
        The folder.

    Raises:
        ConfigurationError: A configuration is missing, or it describes another network.
        CheckpointError: The folder cannot be written.
    """
    config = config or getattr(network, "bundle", None)
    if config is None:
        raise ConfigurationError("the network carries no bundle configuration: pass config=BundleConfig(...)")
    if config.network != network.config:
        raise ConfigurationError(
            "config.network is not the network's own configuration: use dataclasses.replace(config, "
            "network=network.config) and say its task and labels"
        )
    folder = Path(folder)
    return save_bundle(folder, Bundle(network, config, card or render_card(config, name=folder.resolve().name)))


def public_name(source: str | Path) -> str:
    """Return what a card may call a model: a name as it is, of a folder only the last part.

    Example:
        >>> public_name("genesis-chest-ct-3d")
        'genesis-chest-ct-3d'
    """
    folder = Path(source)
    return folder.resolve().name if folder.is_dir() else str(source)


def base_repository(name: str | None) -> str | None:
    """Return the Hub repository of what a training started from, for `base_model` of a card; None for other weights.

    Args:
        name: As of `public_name`; None for random weights.

    Example:
        >>> base_repository("clinic/genesis-ct@v1"), base_repository("my-run")
        ('clinic/genesis-ct', None)
    """
    repository = (name or "").partition("@")[0]
    for card in list_cards(repository):
        return card.source.repository
    return repository if repository.count("/") == 1 else None
