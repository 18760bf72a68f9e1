"""Load a model by its name, adapt it, save it as a bundle, push it to the Hub."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.checkpoints.card import CardParts, render_card, split_card
from modelsgenesis.configs import BundleConfig
from modelsgenesis.data.memory import Scan
from modelsgenesis.errors import ConfigurationError, require
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.hub.download import cache_folder, fetch_bundle
from modelsgenesis.hub.push import Publication, Pushing, push_to_hub
from modelsgenesis.hub.registry import Progress, list_cards
from modelsgenesis.inference.preprocessing import preprocess
from modelsgenesis.networks import AdaptationReport, Network, adapt
from modelsgenesis.networks.adaptation import SHORT_TASKS

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_NEW_SIDE = 32  # voxels of a patch along an axis that a flat network gains


class Download(TypedDict, total=False):
    """How a model is found and fetched: keywords of `load`, and of every function that takes a name.

    Attributes:
        revision: Branch, tag or commit on the Hub.
        token: Token of the Hub; by default `HF_TOKEN` or the stored one.
        cache_dir: Folder to keep downloads in, instead of the Hub client's and this package's own.
        local_files_only: Open no connection: what is not on this machine is an error.
        force_download: Download again what is here already.
    """

    revision: str | None
    token: str | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def split_download(options: Any) -> tuple[Any, Download]:
    """Return keywords without those of a download, and those."""
    names = Download.__annotations__
    download = {name: value for name, value in options.items() if name in names}
    return {name: value for name, value in options.items() if name not in names}, cast("Download", download)


class Adaptation(TypedDict, total=False):
    """What can be changed of a network beside its task and its classes; see `modelsgenesis.networks.adapt`."""

    dims: Literal[2, 3] | None
    hidden: int
    levels: tuple[int, ...] | None
    encoder_only: bool
    statistics: Literal["batch", "running"] | None
    rescale: bool
    fresh_norms: bool


class GenesisModel(nn.Module):
    """A network with what is needed to use it: the input that it expects, its classes, its origin.

    Args:
        network: A network of this package.
        config: What `config.json` says of it.
        card: The card of the model that it was loaded from.
        name: What it is called: a name of the registry, `org/repo`, or the last part of a folder.
        report: What came from where, if it was adapted.

    Attributes:
        network: The network alone.
        config: Task, input contract, labels, patch, provenance.
        card: The card of the model that it was loaded from.
        name: What it is called.
        report: After an adaptation, which of its tensors came from the pretrained network; else None.

    Raises:
        ConfigurationError: The configuration describes another network.

    Example:
        model = GenesisModel.from_pretrained("genesis-chest-ct-3d", task="seg", num_classes=3)
        print(model.report)
        logits = model(batch)  # [b, 3, x, y, z]
        levels = model.features(batch)  # one tensor per level, highest resolution first
        model.save_pretrained("models/liver")
    """

    network: Network
    config: BundleConfig
    card: str
    name: str
    report: AdaptationReport | None

    def __init__(
        self,
        network: nn.Module,
        config: BundleConfig,
        card: str = "",
        *,
        name: str = "",
        report: AdaptationReport | None = None,
    ) -> None:
        super().__init__()
        self.network = cast("Network", network)
        self.config, self.card, self.name, self.report = config, card, name, report
        if config.network != self.network.config:
            own = "use config.override(network=network.config) and say its task and labels"
            raise ConfigurationError(f"config.network is not the network's own configuration: {own}")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        task: str | None = None,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        in_channels: int | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        progress: Progress | None = None,
        **adaptation: Unpack[Adaptation],
    ) -> Self:
        """Return a pretrained model in evaluation mode, as it is or adapted to a task.

        Args:
            name: A name of the registry, `org/repo` or `org/repo@revision` on the Hub, or a folder.
            task: `"seg"` or `"cls"` for a network with a new head; None for the pretrained network itself.
            num_classes: Classes of the task, the background of a segmentation among them.
            labels: Names of the classes, instead of their number.
            in_channels: Channels of the input where they differ from the pretrained network's.
            device: Where to: `"cpu"`, `"cuda"`, `"auto"` …; the CPU by default.
            dtype: Type of the weights, such as `"bfloat16"`; float32 by default.
            revision: Branch, tag or commit on the Hub.
            token: Token of the Hub; by default `HF_TOKEN` or the stored one.
            cache_dir: Folder to keep downloads in, instead of the Hub client's and this package's own.
            local_files_only: Open no connection: what is not on this machine is an error.
            force_download: Download again what is here already.
            progress: Called with a file's name, the bytes done and the bytes in all, while it is downloaded.
            adaptation: `dims`, `hidden`, `levels`, `encoder_only`, `statistics`, `rescale`,
                `fresh_norms` of `modelsgenesis.networks.adapt`.

        Raises:
            HubError: No model has this name, or the Hub or the download failed.
            CheckpointError: The files are not a sound model, or do not fill the network asked for.
            ConfigurationError: An adaptation, device or type that cannot be.

        Example:
            model = GenesisModel.from_pretrained("genesis-chest-ct-3d", task="seg", labels=["background", "liver"])
            model.config.input.window  # (-1000.0, 1000.0), in HU
        """
        where: Download = {"revision": revision, "token": token, "cache_dir": cache_dir}
        where |= {"local_files_only": local_files_only, "force_download": force_download}
        bundle = load(name, progress=progress, **where)
        model = cls(bundle.network, bundle.config, bundle.card, name=public_name(name))
        if task is None and (labels is not None or num_classes is not None):  # a new head is not made unasked
            told = f"num_classes={num_classes}" if labels is None else "labels"
            raise ConfigurationError(f"{told} without a task: add task='seg' or task='cls'")
        changes = {"task": task, "num_classes": num_classes, "labels": labels, "in_channels": in_channels, **adaptation}
        if any(value not in (None, False) for value in changes.values()):
            model = model._adapted(copy=False, **changes)
        if device is not None or dtype is not None:
            number = str(dtype or "float32").removeprefix("torch.")
            if number not in _DTYPES:
                raise ConfigurationError(f"dtype: received {dtype}, expected {', '.join(_DTYPES)}")
            model.to(None if device is None else choose_hardware(str(device)).device, getattr(torch, number))
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network makes of a prepared batch.

        Args:
            x: [b, c, *spatial], prepared as `config.input` says.

        Returns:
            Restored values or logits [b, outputs, *spatial]; of a classification logits [b, classes].

        Raises:
            ShapeError: The input has the wrong axes or channels, or sides that do not divide.
        """
        return self.network(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level of the encoder, highest resolution first; see `Network.features`."""
        return self.network.features(x)

    def preprocess(self, scan: Scan | Sequence[Scan], *, affine: Any = None) -> Tensor:
        """Return a scan as `forward` takes it: oriented, resampled, scaled and padded as in the training.

        Args:
            scan: A file, or a folder with one DICOM series; a nibabel image; an array or a tensor, [*spatial] or
                [channels, *spatial]. Or a list of these, one for each channel.
            affine: Of an array, (4, 4), from voxel indices to mm in RAS+; a volume needs one.

        Returns:
            [1, channels, *spatial] on the model's device, in its type; of a volume for a network of two dimensions
            [slices, channels, *plane]. Zeros at the end of an axis make its side divide.

        Raises:
            ScanError: The scan cannot be used.
            ConfigurationError: There are several scans.
            DataError: There is no such file.

        Example:
            logits = model(model.preprocess("scan.nii.gz"))  # on the prepared grid; the way back is `predict`
        """
        batch, like = preprocess(self.config, self.network.size_divisor, scan, affine=affine), next(self.parameters())
        return batch.to(like.device, like.dtype)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; empty for a restoration."""
        return self.config.labels

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return self.config.input.dims

    def adapt(
        self,
        *,
        task: str | None = None,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        in_channels: int | None = None,
        **adaptation: Unpack[Adaptation],
    ) -> Self:
        """Return a copy for another task, other classes, channels or dimensions; its configuration says so.

        The arguments are those of `from_pretrained`. Classes and channels without names are numbered.

        Raises:
            ConfigurationError: The task is unknown, or classes are missing or contradict each other.

        Example:
            four = model.adapt(in_channels=4)
            four.config.input.channels  # ('channel 0', 'channel 1', 'channel 2', 'channel 3')
        """
        given = {"task": task, "num_classes": num_classes, "labels": labels, "in_channels": in_channels}
        return self._adapted(copy=True, **given, **adaptation)

    def _adapted(self, *, copy: bool, task: Any, num_classes: Any, labels: Any, **changes: Any) -> Self:
        """Adapt the network, and its configuration to the network."""
        if isinstance(labels, str):
            raise ConfigurationError(f"labels: received the text {labels!r}, expected a list of names")
        config, names = self.config, None if labels is None else tuple(labels)
        task, count = SHORT_TASKS.get(task, task) or config.task, num_classes if names is None else len(names)
        if num_classes not in (None, count):
            raise ConfigurationError(f"num_classes: received {num_classes} beside {count} labels; leave it out")
        if task == "restoration" != config.task:
            count = count or changes.get("in_channels") or config.network.unet.in_channels
        elif task == "restoration" and count is not None:
            raise ConfigurationError(f"num_classes={count} without a task: add task='seg' or task='cls'")
        kept = task == config.task and count is None  # the head with its classes
        network, report = adapt(self.network, copy=copy, task=None if kept else task, num_classes=count, **changes)
        said: dict[str, Any] = {"task": task, "network": network.config}
        if not kept:
            first = ["background"] if task == "segmentation" else []
            numbered = [*first, *(f"class {index}" for index in range(len(first), count or 0))]
            said |= {"labels": () if task == "restoration" else names or numbered, "multilabel": False}
        unet, old = network.config.unet, config.network.unet
        if (unet.dims, unet.in_channels) != (old.dims, old.in_channels):
            said |= _input_of(network, config)
        origin = {"origin": "adapted", "library_version": __version__, "results": {}}
        said["provenance"] = replace(config.provenance, **origin, init=self.name or config.provenance.init)
        return type(self)(network, replace(config, **said), self.card, name=self.name, report=report)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a bundle: `config.json`, `model.safetensors`, `README.md`.

        An adapted model gets a card of its own, under the licence of the model that it came from.

        Args:
            folder: Where to; made if it is not there.

        Returns:
            The folder.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        return save_pretrained(self, folder)

    def push_to_hub(self, repository: str, **options: Unpack[Pushing]) -> Publication:
        """Publish the model as a bundle.

        Args:
            repository: `org/name`, or `name` for the token's own account.
            options: `private`, `dry_run`, `revision`, `create_pr`, `token`, `progress`; they and the errors are those
                of `modelsgenesis.push_to_hub`.
        """
        return push_to_hub(self, repository, **options)

    def __repr__(self) -> str:
        contract, size = self.config.input, sum(each.numel() for each in self.parameters())
        kind = f"{self.config.task}, {contract.dims}D {contract.modality}"
        return f"GenesisModel({self.name!r}: {kind}, {size:,} parameters)"

    def _repr_html_(self) -> str:
        contract, classes = self.config.input, f"Classes: {', '.join(self.labels)}"
        scaled = contract.window or contract.percentiles or ""
        lines = [f"Input: {', '.join(contract.channels)}; {contract.intensity} {scaled}"]
        lines += [classes] * bool(self.labels) + ([f"Adapted: {self.report}"] if self.report else [])
        return "<br>".join([f"<b>{escape(repr(self))}</b>", *map(escape, lines)])


def _input_of(network: Network, config: BundleConfig) -> dict[str, Any]:
    """Return the input contract and the patch of a network that has other channels or dimensions than a model."""
    unet, deep, contract = network.config.unet, network.size_divisor[-1], config.input
    if unet.dims != contract.dims:
        contract = contract.with_dims(unet.dims)
    if unet.in_channels != len(contract.channels):
        contract = replace(contract, channels=[f"channel {index}" for index in range(unet.in_channels)])
    return {"input": contract, "patch_size": (*config.patch_size, -(-_NEW_SIDE // deep) * deep)[: unet.dims]}


def load(
    name: str | Path | GenesisModel,
    *,
    progress: Progress | None = None,
    **download: Unpack[Download],
) -> Bundle:
    """Return a model with everything that its bundle says.

    Args:
        name: A name of the registry, `org/repo` or `org/repo@revision` on the Hub, a folder, or a model, which is
            copied: its mode and its device stay what they are.
        progress: Called with a file's name, the bytes done and the bytes in all, while it is downloaded.
        download: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`; see `Download`.

    Raises:
        HubError: No model has this name, or the Hub or the download failed.
        CheckpointError: The files are not a sound model.
    """
    if unknown := sorted(download.keys() - Download.__annotations__):
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    if isinstance(name, GenesisModel):
        return Bundle(copy.deepcopy(name.network).float().eval(), name.config, name.card)
    if not isinstance(name, (str, Path)):
        raise ConfigurationError("received a network alone, expected a name, a folder or what from_pretrained returned")
    folder = Path(name).expanduser()
    if folder.is_dir() and not download.get("revision"):
        return load_bundle(folder)
    folder = fetch_bundle(name, progress=progress, **download)
    # To look for NaN reads every weight; what this package converted was looked at then.
    return load_bundle(folder, check_values=folder.parent != cache_folder("bundles", download.get("cache_dir")))


from_pretrained = GenesisModel.from_pretrained


def save_pretrained(
    network: nn.Module, folder: str | Path, config: BundleConfig | None = None, *, card: str = ""
) -> Path:
    """Write a model, or a network of this package, as a bundle: `config.json`, `model.safetensors`, `README.md`.

    Args:
        network: What `from_pretrained` returned, or a network with its `config`.
        folder: Where to; made if it is not there.
        config: What `config.json` says; by default the model's own.
        card: The card; by default the model's, or one that is rendered from the configuration.

    Returns:
        The folder.

    Raises:
        ConfigurationError: A configuration is missing, or it describes another network.
        CheckpointError: The folder cannot be written.
    """
    if isinstance(network, GenesisModel):
        model = GenesisModel(network.network, config or network.config, network.card, report=network.report)
    else:
        if config is None:
            raise ConfigurationError("a network alone has no configuration to write: pass config=BundleConfig(...)")
        model = GenesisModel(network, config)
    folder = Path(folder)
    if not card and (model.report or not model.card):
        # What was written about the model before does not hold for it any more; its licence does.
        front = {key: value for key, value in split_card(model.card).front.items() if key.startswith("license")}
        card = render_card(model.config, name=folder.resolve().name, existing=CardParts(front))
    return save_bundle(folder, Bundle(model.network, model.config, card or model.card))


def as_source(model: str | Path | GenesisModel | None, revision: str | None = None) -> str | Path | None:
    """Return a name, with its revision, or a folder; of a model in memory one where a configuration can find it again.

    It lies in the cache under a digest of its content, so that a run that started from it can be resumed.
    """
    if not isinstance(model, GenesisModel):
        require(model or not revision, ConfigurationError, f"revision: received {revision!r}, expected an init with it")
        return f"{model}@{revision}" if revision else model
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in model.network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    folder = cache_folder("models") / digest.hexdigest()[:16] / (model.name.rpartition("/")[2] or "model")
    return folder if (folder / CONFIG_NAME).is_file() else model.save_pretrained(folder)


def public_name(source: str | Path | GenesisModel) -> str:
    """Return what a card may call a model: a name as it is, of a folder only the last part.

    Example:
        >>> public_name("genesis-chest-ct-3d")
        'genesis-chest-ct-3d'
    """
    if isinstance(source, GenesisModel):
        return source.name
    folder = Path(source).expanduser()
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
