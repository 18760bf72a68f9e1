"""The bundle on disk: `config.json`, `model.safetensors` and `README.md` (the card) in one folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import CheckpointError
from modelsgenesis.files import replacing, write_atomically
from modelsgenesis.networks import empty_network
from modelsgenesis.networks.transfer import some

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"


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
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.network.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:  # straight from the tensors: no copy of them in memory
        try:
            safetensors.torch.save_file(weights, temporary, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"{folder / WEIGHTS_NAME}: cannot be written: {error}; the file before is intact"
            ) from error
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
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    return BundleConfig.from_dict(values, where=str(path))


def load_bundle(folder: str | Path, *, check_values: bool = True) -> Bundle:
    """Load a bundle strictly: every tensor must be there with its shape and type, and no other.

    The weights stay mapped from the file until they are used: a network takes its size in memory once.

    Args:
        folder: Holds `config.json`, `model.safetensors` and, usually, `README.md`.
        check_values: Refuse NaN and infinite weights, for which all of them must be read. What this package
            has converted itself was checked then.

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
        weights = safetensors.torch.load_file(path)  # checks the sizes in the header against the file first
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {WEIGHTS_NAME} in it, so it is no bundle") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file ({error}); fetch it again") from error
    network = empty_network(config.network)
    load_weights(network, weights, where=str(path))
    if check_values:
        check_finite(weights, str(path))
    card = folder / CARD_NAME
    return Bundle(network.eval(), config, card.read_text("utf-8") if card.exists() else "")


def differences(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Say what is missing in `weights`, what is too much, and what has another shape or kind of number."""
    return [
        *(f"missing {name}" for name in expected if name not in weights),
        *(f"unexpected {name}" for name in weights if name not in expected),
        *(
            f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
        *(
            f"{name} holds {weights[name].dtype} instead of {tensor.dtype}"
            for name, tensor in expected.items()
            if name in weights and weights[name].is_floating_point() != tensor.is_floating_point()
        ),
    ]


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are not numbers.

    Raises:
        CheckpointError: A tensor holds NaN or infinity.
    """
    floating = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point() and tensor.numel()}
    bad = [name for name, tensor in floating.items() if not torch.stack(torch.aminmax(tensor)).isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{where}: NaN or infinite values in {some(bad)}; the file is damaged or its training diverged,"
            " use another one"
        )


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put `weights` into `network`, without a copy, after comparing every name and shape.

    Raises:
        CheckpointError: Names, shapes or types differ; the message lists the first differences.
    """
    expected = network.state_dict()
    problems = differences(expected, weights)
    if problems:
        raise CheckpointError(
            f"{where}: not the weights of this network: {some(problems)};"
            " use the configuration that they were saved with"
        )
    for (
        prefix,
        module,
    ) in network.named_modules():  # all of load_state_dict that is left, in a third of its time
        dot = f"{prefix}." if prefix else ""
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(weights[dot + name], requires_grad=parameter.requires_grad))
        for name, _ in list(module.named_buffers(recurse=False)):
            setattr(module, name, weights[dot + name])
