"""The bundle on disk: `config.json`, `model.safetensors` and `README.md` (the card) in one folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import CheckpointError, some
from modelsgenesis.files import open_regular, parsing, read_json, read_text, replacing, write_atomically, write_json
from modelsgenesis.networks import build_network

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"

_HEADER_BYTES = 4 << 20  # of safetensors: a thousand tensors take a tenth of a MB


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        config = self.config
        return f"Bundle({config.task}, {config.input.dims}D {config.input.modality}, {config.network.kind})"


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
                f"{folder / WEIGHTS_NAME}: cannot be written: {error}; the previous file is intact"
            ) from error
    write_atomically(folder / CARD_NAME, bundle.card.encode())
    # Last, and read first: a folder of which the writing was cut off is not a bundle yet.
    write_json(folder / CONFIG_NAME, bundle.config.to_dict())
    return folder


def read_config(folder: str | Path, card: Any = None) -> BundleConfig:
    """Read and check the `config.json` of a bundle.

    Args:
        folder: The bundle.
        card: What the registry says of the model, with its name: other values are refused.

    Raises:
        CheckpointError: The file is missing or not JSON, or is not of the model of the card.
        ConfigurationError: It has unknown or missing keys or wrong values.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.exists():
        raise CheckpointError(f"{folder}: no {CONFIG_NAME} in it, so it is not a bundle")
    config = BundleConfig.from_dict(read_json(path, CheckpointError, nan_is_null=True), where=str(path))
    for key in ("task", "network", "input", "patch_size") if card else ():
        found, told = getattr(config, key), getattr(card, key)
        if found != told:
            raise CheckpointError(f"{card.name}: its file has {key} {found}, its card says {told}; ask its author")
    return config


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
    config, path, card = read_config(folder), folder / WEIGHTS_NAME, folder / CARD_NAME
    with open_regular(path, CheckpointError) as file, parsing(path, CheckpointError):
        header = int.from_bytes(file.read(8), "little")
    if header > _HEADER_BYTES:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file (header too large: {header:,} bytes)")
    with parsing(path, CheckpointError, remedy="damaged, or not a safetensors file; download or export it again"):
        weights = safetensors.torch.load_file(path)  # compares every size with the file before it maps a tensor
    network = build_network(config.network, "meta")  # whose parameters the loaded tensors become: memory is taken once
    weights = fit_weights(network.state_dict(), weights, path, check_values=check_values)
    network.load_state_dict(weights, assign=True)
    return Bundle(network.eval(), config, read_text(card, CheckpointError) if card.exists() else "")


def fit_weights(
    expected: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    file: Path,
    *,
    what: str = "this network",
    check_values: bool = True,
) -> dict[str, Tensor]:
    """Return weights as a network holds them, after comparing every name, shape and kind of number.

    Numbers of another type are taken where the network's type, float32, holds each of them exactly: all of float16,
    bfloat16 and float8, and of float64 those that were float32 before.

    Args:
        expected: The tensors of the network by name, usually on the meta device.
        weights: What a file holds under the same names.
        file: What a message names.
        what: What a message calls the network.
        check_values: Refuse NaN and infinite weights, too.

    Raises:
        CheckpointError: Something is missing, too much, different, or not finite; the message lists the first names.
    """
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(place.shape)}"
        for name, place in expected.items()
        if name in weights and weights[name].shape != place.shape
    ]
    if problems := [*problems, *(f"unexpected {name}" for name in weights if name not in expected)]:
        problem = f"not the weights of {what}: {some(problems)}"
        raise CheckpointError(f"{file}: {problem}; use the file that belongs to this network")
    fitted: dict[str, Tensor] = {}
    owned: set[int] = set()
    for name, place in expected.items():
        tensor = weights[name]
        if tensor.dtype != place.dtype:
            tensor = _convert_exactly(tensor, place.dtype, f"{file}: {name}")
        tensor = tensor.contiguous()
        if tensor.untyped_storage().nbytes() != tensor.nbytes or tensor.data_ptr() in owned:
            tensor = tensor.clone()  # a tensor on its own memory, so that it can be written and trained
        owned.add(tensor.data_ptr())
        fitted[name] = tensor
    looked = fitted.items() if check_values else ()
    floating = {name: tensor for name, tensor in looked if tensor.is_floating_point() and tensor.numel()}
    bad = [name for name, tensor in floating.items() if not torch.stack(torch.aminmax(tensor)).isfinite().all()]
    if bad:
        problem = f"NaN or infinite values in {some(bad)}"
        raise CheckpointError(f"{file}: {problem}; it is damaged or its training diverged, use another one")
    return fitted


def _convert_exactly(tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """Return the same numbers as another type, or refuse."""
    alike = tensor.dtype.is_floating_point == dtype.is_floating_point and not tensor.dtype.is_complex
    with parsing(where, CheckpointError, remedy="save it as float32"):  # there are types that torch only stores
        made = tensor.to(dtype) if alike else tensor
        exact = alike and (tensor.dtype.itemsize < 4 or torch.equal(made.to(tensor.dtype), tensor))
    if not exact and not (alike and tensor.isnan().any()):  # NaN equals nothing, itself included; it is told later
        raise CheckpointError(f"{where} holds {tensor.dtype}, which {dtype} cannot express; save it as {dtype}")
    return made
