"""The registry: one Markdown card per model, whose header says where the weights are and what they expect.

A card is a file `NAME.md`, or the `README.md` of a folder `NAME` that is a whole bundle: a model that comes with
the package, or with a user's own cards, and needs no network.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape
from importlib import resources
from pathlib import Path

from modelsgenesis.configs import InputContract, NetworkConfig
from modelsgenesis.configs.base import Config, Positive, Sides
from modelsgenesis.configs.bundle import Task
from modelsgenesis.errors import ConfigurationError, HubError, did_you_mean
from modelsgenesis.files import read_text, split_front_matter

FOLDER_CARD = "README.md"
"""The card of a model whose files lie in a folder of its own."""

CARDS_VARIABLE = "MODELSGENESIS_CARDS"
"""Names a folder of a user's own cards, which come before the packaged ones."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done and the bytes in all, while it is downloaded."""


@dataclass(frozen=True, kw_only=True)
class ModelSource(Config):
    """The `modelsgenesis:` mapping of a card.

    Attributes:
        name: What users call the model.
        repository: `org/name` on the Hub, or None when `file` lies beside the card.
        revision: Branch, tag or commit.
        file: The weight file; its path in the repository, or from the card's folder.
        format: How the file is to be read: a name in `checkpoints.genesis.LAYOUTS`, or `"bundle"`, which has
            `config.json` beside its file.
        extra_files: Further files that the importer needs.
        sha256: Digest of `file`, or None while nobody could take it; then the Hub's own record is the check.
        parameters: How many the network has.
        task: What the network was trained for.
        network: Its shape.
        input: The input that it expects.
        patch_size: Voxels of a patch of training, by axis.
    """

    name: str
    repository: str | None
    revision: str = "main"
    file: str
    format: str
    extra_files: tuple[str, ...] = ()
    sha256: str | None = None
    parameters: Positive
    task: Task
    network: NetworkConfig
    input: InputContract
    patch_size: Sides


@dataclass(frozen=True, repr=False)
class ModelCard:
    """A model of the registry.

    Attributes:
        source: Where the weights are and what they expect.
        license: The licence as the header has it; empty when it has none.
        text: The whole card, as it can be uploaded.
        path: Its file.
    """

    source: ModelSource
    license: str
    text: str
    path: Path

    @property
    def name(self) -> str:
        """What users call the model."""
        return self.source.name

    def __repr__(self) -> str:
        source = self.source
        kind = f"{source.task}, {source.input.dims}D {source.input.modality}"
        return f"ModelCard({source.name!r}: {kind}, {source.parameters:,} parameters, {self.license or 'no licence'})"

    def _repr_html_(self) -> str:
        source, where = self.source, self.source.repository or "in the package"
        lines = [repr(self), f"Weights: {where}", f"Channels: {', '.join(source.input.channels)}"]
        return "<br>".join(map(escape, lines))


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises:
        ConfigurationError: The file is unreadable, or its header has unknown, missing or wrong keys.
    """
    text = read_text(path, ConfigurationError)
    front, _ = split_front_matter(text, path, ConfigurationError)
    if "modelsgenesis" not in front:
        raise ConfigurationError(f"{path}: no `modelsgenesis:` mapping in its header; see the packaged cards")
    source = ModelSource.from_dict(front["modelsgenesis"], where=str(path))
    if not re.fullmatch("[0-9a-f]{64}", source.sha256 or 64 * "0"):
        raise ConfigurationError(f"{path}: sha256: {source.sha256!r:.80} is not a SHA-256 in hexadecimal digits")
    if source.repository is None and source.format != "bundle":
        raise ConfigurationError(f"{path}: repository: null, but not a bundle: {source.format!r:.80}; convert it")
    called, place = (path.parent.name, "folder") if path.name == FOLDER_CARD else (path.stem, "file")
    if source.name != called:
        raise ConfigurationError(f"{path}: is about {source.name!r}; call its {place} {source.name}")
    license_ = str(front.get("license_name") or front.get("license") or "")
    return ModelCard(source, license_, text, path)


def _paths() -> dict[str, Path]:
    """Return the card of each model by its name; a user's own come before the packaged ones."""
    package = Path(str(resources.files("modelsgenesis")))
    beside_source = package.parents[1] / "cards"  # an editable install: the wheel's copy would go stale
    folders = [beside_source if package.parent.name == "src" and beside_source.is_dir() else package / "cards"]
    if own := os.environ.get(CARDS_VARIABLE):
        folders.append(Path(own).expanduser())
        if not folders[-1].is_dir():
            raise ConfigurationError(f"{CARDS_VARIABLE}: {own} is not a folder; name a folder of cards, or unset it")
    found: dict[str, Path] = {}  # later folders, and files before folders of bundles, win
    for folder in folders:
        for path in sorted(folder.glob(f"*/{FOLDER_CARD}")):
            if "\nmodelsgenesis:" in read_text(path, ConfigurationError):  # any other README is about something else
                found[path.parent.name] = path
        found |= {path.stem: path for path in sorted(folder.glob("*.md")) if path.stem.lower() != "readme"}
    return found


def list_cards(pattern: str = "*", *, modality: str | None = None, dims: int | None = None) -> list[ModelCard]:
    """List the models of the registry by name.

    Args:
        pattern: Only models whose name matches it; `*` and `?` stand for any letters and for one.
        modality: Only models for it, such as `"ct"`.
        dims: Only models of so many spatial dimensions.

    Raises:
        ConfigurationError: A card is not as the schema wants it.

    Example:
        names = [card.name for card in list_cards("genesis-*", modality="ct", dims=3)]
    """
    cards = [read_card(path) for name, path in sorted(_paths().items()) if fnmatchcase(name, pattern)]
    wanted = ((card, card.source.input) for card in cards)
    return [card for card, spec in wanted if modality in (None, spec.modality) and dims in (None, spec.dims)]


def fitting_models(modality: str | None, dims: int) -> list[ModelCard]:
    """Return the models of the registry to start from: those of the modality first, and of them those in the package.

    Args:
        modality: Of the data, or None where it is not known.
        dims: Of the network.

    Example:
        >>> fitting_models("xray", 2)[0].name
        'genesis-chest-xray-2d-small'
    """
    cards = [card for card in list_cards(dims=dims) if card.source.task == "restoration"]
    return sorted(cards, key=lambda card: (card.source.input.modality != modality, card.source.repository is not None))


def find_card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises:
        HubError: No card has this name; the message has the nearest ones.
    """
    paths = _paths()
    if name in paths:
        return read_card(paths[name])
    also = "a Hub repository (org/name) or a folder also works"
    raise HubError(f"{name}: no model of this name in the registry; {did_you_mean(name, paths)} ({also})", "unknown")
