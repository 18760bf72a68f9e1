"""Turning a published checkpoint into a bundle, exactly, and saying what was loaded, renamed and dropped."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints.bundle import Bundle, fit_weights, save_bundle
from modelsgenesis.checkpoints.card import render_card
from modelsgenesis.checkpoints.genesis import ALIAS, LAYOUTS
from modelsgenesis.checkpoints.plan import PLAN_KEY, PLAN_NAME, find_values, read_plan
from modelsgenesis.checkpoints.safe_load import mappings, read_weights
from modelsgenesis.configs import BundleConfig, InputContract, NetworkConfig, Provenance, UNetConfig
from modelsgenesis.configs.bundle import Task
from modelsgenesis.errors import CheckpointError, ConfigurationError, did_you_mean, require, some
from modelsgenesis.files import parsing, read_json, replacing, require_new, sha256_of
from modelsgenesis.networks import build_network

# Rises when the same file would give another bundle, so that what is cached is converted again.
CONVERTER_VERSION = 1


@dataclass(frozen=True)
class ConversionReport:
    """The outcome of a conversion.

    Attributes:
        format: Its format.
        file: Its name.
        sha256: Its digest.
        network: The network that it holds.
        parameters: Number of parameters of that network.
        renamed: Name in the bundle by the name in the file, for each tensor that was loaded.
        dropped: What else was in the file, with the reason it was not needed.
        new: Tensors of the bundle that start at random, from a fixed seed, since the encoder alone was read.
    """

    format: str
    file: str
    sha256: str
    network: NetworkConfig
    parameters: int
    renamed: Mapping[str, str]
    dropped: Mapping[str, str]
    new: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return one human-readable line."""
        renamed = sum(old != new for old, new in self.renamed.items())
        dropped = [name for name, reason in self.dropped.items() if not reason.startswith(ALIAS)]
        said = f"{self.file} ({self.format}): {len(self.renamed)} tensors, {self.parameters:,} parameters"
        said += f"; {renamed} renamed" + (f"; {len(dropped)} dropped: {some(dropped)}" if dropped else "")
        return said + (f"; {len(self.new)} of the decoder start at random" if self.new else "")


def convert_checkpoint(
    file: str | Path,
    out: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the cards
    source: Mapping[str, Any] | None = None,
    plan: str | Path | None = None,
    input_contract: InputContract | None = None,
    patch_size: tuple[int, ...] | None = None,
    network: NetworkConfig | None = None,
    task: Task = "restoration",
    card: str = "",
    name: str = "",
) -> ConversionReport:
    """Convert a published checkpoint to a bundle. No code in the file is run.

    Args:
        file: The checkpoint.
        out: Folder of the bundle; not there yet, or empty. It appears whole or not at all.
        format: What the file must be, `"genesis-pytorch"`, `"genesis-keras"`, `"nnunet-v1"`, `"openmind"` or
            `"openmind-encoder"`, of which the encoder alone is read; None to find out.
        source: Where it comes from, for the provenance: repository, revision, file, sha256.
        plan: The `adaptation_plan.json` of an OpenMind checkpoint; None for the one beside or in the file.
        input_contract: The input that the network expects; None for that of the published model.
        patch_size: Voxels of the patches of its training; None for those of the published model.
        network: What the network is; None for what its tensors say, or for the published one.
        task: What it was trained for.
        card: The content of the bundle's `README.md`.
        name: What a card calls the model that is rendered when none is given; empty for no card.

    Returns:
        What was loaded, renamed and dropped.

    Raises:
        CheckpointError: Reading the file would mean running it, or it is a zip bomb; it is damaged, of another format
            or network, holds NaN, or lacks its plan; or `out` exists or cannot be written.
        MissingExtraError: A Keras file without h5py.

    Example:
        report = convert_checkpoint("Genesis_Chest_CT.pt", "models/genesis-chest-ct-3d")
        print(report.summary())
    """
    file, out = Path(file), Path(out)
    require_new(out, folder=True)
    if format is not None and format not in LAYOUTS:
        raise ConfigurationError(f"format: received {format!r}; {did_you_mean(format, LAYOUTS)}")
    content = read_weights(file)
    kind, found, dropped = _find_weights(file, content, format)
    layout = LAYOUTS[kind]
    with parsing(file, CheckpointError):
        found, unneeded = layout.prepare(found)
    unet, weights, originals = _match(file, kind, found, network)
    contract, patch = layout.input, layout.patch_size
    if contract is None:  # the format has them in a plan
        beside, where = Path(plan or file.parent / PLAN_NAME), f"{file}: {PLAN_KEY}"
        planned = next((values for values in find_values(content, PLAN_KEY) if isinstance(values, Mapping)), None)
        if plan or beside.exists():
            planned, where = read_json(beside, CheckpointError), str(beside)
        elif planned is None:
            raise CheckpointError(f"{file}: no {PLAN_KEY} in the file and no {PLAN_NAME} beside it; download both")
        contract, patch = read_plan(planned, where, unet, input_contract, patch_size)
    elif unet.dims < 3 or unet.in_channels > 1:  # not quite the published network
        channels = [f"image{channel}" for channel in range(unet.in_channels)] if unet.in_channels > 1 else ["image"]
        contract, patch = contract.override(dims=unet.dims, channels=tuple(channels)), patch[: unet.dims]
    contract, patch = input_contract or contract, patch_size or patch
    origin = {"file": file.name, "sha256": "", **(source or {})}
    origin["sha256"] = origin["sha256"] or sha256_of(file)  # a download was digested already
    origin |= {"format": kind, "converter_version": CONVERTER_VERSION}
    new = tuple(sorted(weights.keys() - originals.values()))
    origin |= {"decoder": "random"} if new else {}
    fields = {"task": task, "network": unet, "input": contract, "patch_size": patch}
    provenance = Provenance(origin="converted", library_version=__version__, source=origin)
    config = BundleConfig.from_dict({**fields, "provenance": provenance}, where=str(file))
    built = build_network(unet, "meta").eval()
    built.load_state_dict(weights, assign=True)
    with replacing(out, folder=True) as temporary:
        save_bundle(temporary, Bundle(built, config, render_card(config, name=name) if name and not card else card))
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return ConversionReport(
        kind, file.name, origin["sha256"], unet, parameters, originals, {**dropped, **unneeded}, new
    )


def _find_weights(file: Path, content: Any, wanted: str | None) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """Return the format, the weights less what stands before their names, and what else the file holds, with why."""
    # Weights lie at the root, under `state_dict`, `network_weights`, `net`, …: wherever tensors have names.
    named = [
        (place, {name: value for name, value in item.items() if isinstance(name, str) and isinstance(value, Tensor)})
        for place, item in mappings(content)
    ]
    found = [(place, weights) for place, weights in named if weights]
    if not found:
        raise CheckpointError(f"{file}: holds no tensors by name but {type(content).__name__}, expected a state dict")
    known = [
        (name, place, weights, prefix)
        for name, layout in LAYOUTS.items()
        for place, weights in found
        if (prefix := layout.prefix(weights)) is not None
    ]
    known = [one for one in known if one[0] == wanted] or known
    _, weights = max(found, key=lambda item: len(item[1]))
    if not known:
        raise CheckpointError(
            f"{file}: its tensors ({some(list(weights))}) are those of no format known here,"
            f" which are {', '.join(LAYOUTS)}; only these can be converted"
        )
    name, place, weights, prefix = known[0]
    require(wanted in (None, name), CheckpointError, f"{file}: is a {name} checkpoint, expected {wanted}")
    dropped = {name: f"not under {prefix}" for name in weights if not name.startswith(prefix)}
    if place:
        dropped |= {str(key): "no part of the network" for key in content if key not in (place[0], PLAN_KEY)}
    return name, {key.removeprefix(prefix): t for key, t in weights.items() if key.startswith(prefix)}, dropped


def _match(
    file: Path, kind: str, weights: dict[str, Tensor], wanted: NetworkConfig | None
) -> tuple[UNetConfig, dict[str, Tensor], dict[str, str]]:
    """Find the network that the weights belong to and give each tensor its name here, all or none."""
    layout = LAYOUTS[kind]
    unet = wanted or layout.published
    if layout.describe and not wanted:
        # Names and shapes of others can be anything: what makes no sense is compared with the published network.
        with suppress(Exception):
            unet = layout.describe(weights)
    if (alone := f"{kind}-encoder") in LAYOUTS and not any(name.startswith("decoder.") for name in weights):
        raise CheckpointError(f"{file}: holds an encoder and no decoder; --format {alone} reads it alone")
    with parsing(file, CheckpointError):
        # From names here to names there: a rule the other way would have to guess at what it does not know.
        places = build_network(unet, "meta").state_dict()
        originals = {layout.original(here, unet): here for here in places}
        new = _random_decoder(unet) if layout.encoder_only else {}
        originals = {there: here for there, here in originals.items() if here not in new}
    claimed, size = sum(tensor.nbytes for tensor in weights.values()), file.stat().st_size
    if claimed > 2 * size + 2**20:  # some share their data, and a hostile file has a thousand share all of it
        raise CheckpointError(f"{file}: its tensors take {claimed:,} bytes, the file {size:,}; save each of its own")
    expected = {there: places[here] for there, here in originals.items()}
    weights = fit_weights(expected, weights, file, what=f"the {kind} network")
    loaded = {here: weights[there] for there, here in originals.items()}
    return cast("UNetConfig", unet), {**loaded, **new}, originals


def _random_decoder(network: NetworkConfig) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        values = build_network(network).state_dict()
    return {name: tensor for name, tensor in values.items() if not name.startswith("encoder.")}
