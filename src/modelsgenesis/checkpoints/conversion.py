"""Turning a published checkpoint into a bundle, exactly, and saying what was loaded, renamed and dropped."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints.bundle import Bundle, check_finite, fit_weights, save_bundle
from modelsgenesis.checkpoints.card import render_card
from modelsgenesis.checkpoints.genesis import GENESIS_KERAS, GENESIS_TORCH
from modelsgenesis.checkpoints.layout import Layout, Prepared
from modelsgenesis.checkpoints.nnunet import ALIAS, NNUNET_V1, NNUNET_V2
from modelsgenesis.checkpoints.plan import PLAN_KEY, PLAN_NAME, AdaptationPlan, find_values, read_plan
from modelsgenesis.checkpoints.reading import mappings, read_weights, tensors
from modelsgenesis.configs import CONTRACTS, BundleConfig, InputContract, NetworkConfig, Provenance, UNetConfig
from modelsgenesis.configs.bundle import Task
from modelsgenesis.errors import CheckpointError, ConfigurationError, nearest
from modelsgenesis.files import parsing, reason_of, sha256_of
from modelsgenesis.networks import build_on_meta, some

CONVERTER_VERSION = 1
"""Rises when the same file would give another bundle, so that what is cached is converted again."""

LAYOUTS: dict[str, Layout] = {
    "genesis-pytorch": GENESIS_TORCH,
    "genesis-keras": GENESIS_KERAS,
    "nnunet-v1": NNUNET_V1,
    "openmind": NNUNET_V2,
}

NNUNET_V1_INPUT = InputContract(
    modality="ct", intensity="standardize", mean=-775.8457, deviation=251.9326, orientation="SPL"
)
"""What `genesis_nnunet_luna16_006.model` expects: (HU + 775.8457) / 251.9326; arrays lie z, y, x."""

_INPUTS = {
    "genesis-pytorch": CONTRACTS["ct"],
    "genesis-keras": CONTRACTS["ct"],
    "nnunet-v1": NNUNET_V1_INPUT,
}
_PATCHES = {"genesis-pytorch": (64, 64, 32), "genesis-keras": (64, 64, 32), "nnunet-v1": (32, 64, 64)}


@dataclass(frozen=True)
class ConversionReport:
    """What became of a published file.

    Attributes:
        format: Its format.
        file: Its name.
        sha256: Its digest.
        network: The network that it holds.
        parameters: Of that network.
        renamed: Name in the bundle by the name in the file, for each tensor that was loaded.
        dropped: What else was in the file, with the reason it was not needed.
        notes: What else there is to know.
    """

    format: str
    file: str
    sha256: str
    network: NetworkConfig
    parameters: int
    renamed: Mapping[str, str]
    dropped: Mapping[str, str]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Return one line for people."""
        renamed = sum(old != new for old, new in self.renamed.items())
        parts = [
            f"{self.file} ({self.format}): {len(self.renamed)} tensors, {self.parameters:,} parameters",
            f"{renamed} renamed",
        ]
        dropped = [name for name, reason in self.dropped.items() if not reason.startswith(ALIAS)]
        if dropped:
            parts.append(f"{len(dropped)} dropped: {some(dropped)}")
        return "; ".join([*parts, *self.notes])


@dataclass(frozen=True)
class _Source:
    """A file that was read: its tensors and what is around them."""

    format: str
    weights: dict[str, Tensor]
    content: Any
    dropped: dict[str, str]


def convert_checkpoint(
    file: str | Path,
    out: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the cards
    source: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, Path] | None = None,
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
        format: What the file must be, `"genesis-pytorch"`, `"genesis-keras"`, `"nnunet-v1"` or `"openmind"`;
            None to find out.
        source: Where it comes from, for the provenance: repository, revision, file, sha256.
        extra_files: Files beside it by name, such as `adaptation_plan.json`.
        input_contract: The input that the network expects; None for that of the published model.
        patch_size: Voxels of the patches of its training; None for those of the published model.
        network: What the network must be; None for whatever the tensors make up.
        task: What it was trained for.
        card: The content of the bundle's `README.md`.
        name: What a card calls the model that is rendered when none is given; empty for no card.

    Returns:
        What was loaded, renamed and dropped.

    Raises:
        UnsafeCheckpointError: Reading the file would mean running it, or it is a zip bomb.
        CheckpointError: It is damaged, of another format or network, holds NaN, or lacks its plan; or `out`
            exists or cannot be written.
        MissingExtraError: A Keras file without h5py.

    Example:
        report = convert_checkpoint("Genesis_Chest_CT.pt", "models/genesis-chest-ct-3d")
        print(report.summary())
    """
    file, out = Path(file), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists already; choose a new folder")
    read = _read(file, format)
    with parsing(file, CheckpointError):
        prepared = LAYOUTS[read.format].prepare(read.weights)
    unet, weights, renamed = _match(file, read.format, prepared, network)
    contract, patch, notes = _input(file, read, unet, extra_files or {}, input_contract, patch_size)
    origin = {"file": file.name, "sha256": "", **(source or {})}
    origin["sha256"] = origin["sha256"] or sha256_of(file)
    provenance = Provenance(
        origin="converted",
        library_version=__version__,
        source={**origin, "format": read.format, "converter_version": CONVERTER_VERSION},
    )
    fields = {"task": task, "network": unet, "input": contract, "patch_size": patch, "provenance": provenance}
    config = BundleConfig.from_dict(fields, where=str(file))
    built = build_on_meta(unet).eval()
    built.load_state_dict(weights, assign=True)
    _save(out, Bundle(built, config, render_card(config, name=name) if name and not card else card))
    return ConversionReport(
        format=read.format,
        file=file.name,
        sha256=origin["sha256"],
        network=unet,
        parameters=sum(parameter.numel() for parameter in built.parameters()),
        renamed=renamed,
        dropped={**read.dropped, **prepared.dropped},
        notes=(*prepared.notes, *notes),
    )


def _read(file: Path, wanted: str | None) -> _Source:
    """Read a file, find its weights and its format, and compare the latter with the one wanted."""
    if wanted is not None and wanted not in LAYOUTS:
        raise ConfigurationError(f"format: received {wanted!r}; {nearest(wanted, LAYOUTS)}")
    content = read_weights(file)
    found = [(place, weights) for place, item in mappings(content) if (weights := tensors(item))]
    if not found:
        raise CheckpointError(f"{file}: holds no tensors by name but {type(content).__name__}, expected a state dict")
    for name, layout in LAYOUTS.items():
        for place, weights in found:
            prefix = layout.prefix(weights)
            if prefix is not None:
                if wanted not in (None, name):
                    raise CheckpointError(f"{file}: is a {name} checkpoint, expected {wanted}; name its own format")
                return _Source(name, *_without_prefix(content, place, weights, prefix))
    place, weights = max(found, key=lambda item: len(item[1]))
    if wanted is None:
        raise CheckpointError(
            f"{file}: its tensors ({some(list(weights))}) are those of no format known here,"
            f" which are {', '.join(LAYOUTS)}; only these can be converted"
        )
    return _Source(wanted, *_without_prefix(content, place, weights, ""))


def _without_prefix(
    content: Any, place: tuple[str, ...], weights: dict[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], Any, dict[str, str]]:
    """Keep the tensors that the prefix stands before; name all else that the file holds as dropped."""
    dropped = {name: f"not under {prefix}" for name in weights if not name.startswith(prefix)}
    if place:
        beside = [key for key in content if key not in (place[0], PLAN_KEY)]
        dropped |= {str(key): "no part of the network" for key in beside}
    kept = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    return kept, content, dropped


def _match(
    file: Path, name: str, prepared: Prepared, wanted: NetworkConfig | None
) -> tuple[UNetConfig, dict[str, Tensor], dict[str, str]]:
    """Find the network that the weights belong to and give each tensor its name here, all or none."""
    layout = LAYOUTS[name]
    unet = _describe(layout, prepared.weights)
    places = build_on_meta(unet).state_dict()
    originals = {layout.original(here, unet): here for here in places}
    claimed, size = sum(tensor.nbytes for tensor in prepared.weights.values()), file.stat().st_size
    if claimed > 2 * size + 2**20:  # some share their data, and a hostile file has a thousand share all of it
        raise CheckpointError(f"{file}: its tensors take {claimed:,} bytes, the file {size:,}; save each of its own")
    expected = {there: places[here] for there, here in originals.items()}
    weights = fit_weights(expected, prepared.weights, f"{file}: not the weights of a {name} network")
    check_finite(weights, str(file))
    if wanted is not None and _shape(wanted) != _shape(unet):
        ours, theirs = _shape(unet), _shape(wanted)
        other = [f"{key} {ours[key]} instead of {theirs.get(key)}" for key in ours if ours[key] != theirs.get(key)]
        raise CheckpointError(f"{file}: holds another network than expected: {some(other)}; is it the right file?")
    widened = {str(tensor.dtype) for there, tensor in prepared.weights.items() if tensor.dtype != weights[there].dtype}
    prepared.notes += [f"converted to the network's type from {', '.join(sorted(widened))}"] if widened else []
    chosen = unet if wanted is None else cast("UNetConfig", wanted)
    return chosen, {here: weights[there] for there, here in originals.items()}, originals


def _describe(layout: Layout, weights: Mapping[str, Tensor]) -> UNetConfig:
    """Judge the network by names and shapes; what makes no sense is compared with the published one."""
    try:
        return layout.describe(weights)
    except Exception:  # names and shapes of others can be anything
        return layout.published


def _shape(network: NetworkConfig) -> dict[str, Any]:
    """Return what tensors can tell about a network; a card may choose the rest, such as the statistics."""
    free = ("statistics", "output", "norm_groups", "negative_slope", "norm_epsilon")
    return {key: value for key, value in network.to_dict().items() if key not in free}


def _input(
    file: Path,
    read: _Source,
    unet: UNetConfig,
    extra_files: Mapping[str, Path],
    contract: InputContract | None,
    patch_size: tuple[int, ...] | None,
) -> tuple[InputContract, tuple[int, ...], list[str]]:
    """Find the input contract and the patch size: given, or in the plan, or those that were published."""
    if read.format == "openmind":
        plan = _plan(file, read, extra_files)
        plan.check(unet)
        contract, patch_size = contract or plan.input_contract(), patch_size or plan.patch_size
        return contract, patch_size, plan.differences(contract, patch_size)
    contract = contract or _INPUTS[read.format].override(dims=unet.dims)
    if unet.in_channels > 1 == len(contract.channels):
        contract = contract.override(channels=tuple(f"image{channel}" for channel in range(unet.in_channels)))
    return contract, patch_size or _PATCHES[read.format][: unet.dims], []


def _plan(file: Path, read: _Source, extra_files: Mapping[str, Path]) -> AdaptationPlan:
    if PLAN_NAME in extra_files:
        return read_plan(extra_files[PLAN_NAME])
    for values in find_values(read.content, PLAN_KEY):
        if isinstance(values, Mapping):
            return AdaptationPlan(values, f"{file}: {PLAN_KEY}")
    raise CheckpointError(f"{file}: no {PLAN_KEY} in the file and no {PLAN_NAME} beside it; download both")


def _save(out: Path, bundle: Bundle) -> None:
    """Write the bundle beside its place and move it there in one step."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {reason_of(error)}; choose another folder") from error
    try:
        save_bundle(temporary, bundle)
        temporary.chmod(0o755)
        temporary.replace(out)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {reason_of(error)}; choose a new folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
