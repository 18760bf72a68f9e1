"""The bundle on disk: `config.json`, `model.safetensors` and `README.md` (the card) in one folder."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import CheckpointError
from modelsgenesis.networks import build_network

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"

_SHOWN = 5  # names in a message before "and N more"


@dataclass(frozen=True)
class Bundle:
    """A network with what is needed to use it.

    Attributes:
        network: The network, in evaluation mode.
        config: The content of `config.json`.
        card: The content of `README.md`.
    """

    network: nn.Module
    config: BundleConfig
    card: str = ""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old one or the new one.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}; choose another folder"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}; the file before is intact"
        ) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_bundle(folder: str | Path, bundle: Bundle) -> Path:
    """Write a bundle; each file is replaced atomically, the configuration last.

    Args:
        folder: Where to; made if it is not there.
        bundle: Network, configuration and card.

    Returns:
        The folder.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    folder = Path(folder)
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in bundle.network.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_NAME, safetensors.torch.save(weights, metadata={"format": "pt"}))
    write_atomically(folder / CARD_NAME, bundle.card.encode())
    text = json.dumps(bundle.config.to_dict(), indent=2) + "\n"
    write_atomically(folder / CONFIG_NAME, text.encode())
    return folder


def read_config(folder: str | Path) -> BundleConfig:
    """Read and check the `config.json` of a bundle.

    Raises:
        CheckpointError: The file is missing or no JSON.
        ConfigurationError: It has unknown or missing keys or wrong values.
    """
    path = Path(folder) / CONFIG_NAME
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {CONFIG_NAME} in it, so it is no bundle") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    return BundleConfig.from_dict(values, where=str(path))


def load_bundle(folder: str | Path) -> Bundle:
    """Load a bundle strictly: every tensor must be there with its shape, and no other.

    Args:
        folder: Holds `config.json`, `model.safetensors` and, usually, `README.md`.

    Returns:
        The bundle, its network on the CPU in evaluation mode.

    Raises:
        CheckpointError: A file is missing or damaged, or the tensors are not those of the network.
        ConfigurationError: `config.json` has unknown or missing keys or wrong values.

    Example:
        bundle = load_bundle("runs/chest")
        restored = bundle.network(batch)  # [b, 1, x, y, z] in [0, 1]
    """
    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    try:
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {WEIGHTS_NAME} in it, so it is no bundle") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    with torch.device("meta"):  # no weight is initialised that is about to be replaced
        network = build_network(config.network)
    load_weights(network, weights, where=str(path))
    card = folder / CARD_NAME
    return Bundle(network.eval(), config, card.read_text() if card.exists() else "")


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put `weights` into `network` after comparing every name and shape.

    Raises:
        CheckpointError: Names or shapes differ; the message lists the first differences.
    """
    expected = network.state_dict()
    problems = [
        *(f"missing {name}" for name in expected if name not in weights),
        *(f"unexpected {name}" for name in weights if name not in expected),
        *(
            f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"{where}: not the weights of this network: {', '.join(problems[:_SHOWN])}{more}"
        )
    network.load_state_dict(weights, strict=True, assign=True)
