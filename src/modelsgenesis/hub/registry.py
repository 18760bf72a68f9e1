"""The registry: one Markdown card per model, whose header says where the weights are and what they expect.

A card is a file `NAME.md`, or the `README.md` of a folder `NAME` that is a whole bundle: a model that comes with
the package, or with a user's own cards, and needs no network.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from modelsgenesis.configs import Config, InputContract, NetworkConfig
from modelsgenesis.configs.base import Positive, Sides, require
from modelsgenesis.configs.bundle import Task
from modelsgenesis.configs.front_matter import split_card
from modelsgenesis.errors import ConfigurationError, HubError, did_you_mean, printable
from modelsgenesis.files import read_text

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

    def __post_init__(self) -> None:
        super().__post_init__()
        for file in (self.file, *self.extra_files):
            require(is_inside(file), f"ModelSource.file: {file!r} is not a relative path without '..'")
        right = self.sha256 is None or re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(right, f"ModelSource.sha256: {self.sha256!r} is not a SHA-256 in 64 hexadecimal digits")
        # What lies beside its card is used where it is: there would be no place for a conversion.
        beside = self.repository is None and self.format != "bundle"
        require(not beside, f"ModelSource.repository: null, so its format is bundle, not {self.format}; convert it")
        for key in ("name", "repository"):
            require(getattr(self, key) is None or getattr(self, key).strip() != "", f"ModelSource.{key}: is empty")
        require(
            len(self.patch_size) == self.input.dims, f"ModelSource.patch_size: not {self.input.dims} positive sizes"
        )


@dataclass(frozen=True)
class ModelCard:
    """A model of the registry.

    Attributes:
        source: Where the weights are and what they expect.
        front: The whole header, with the Hub's own fields.
        text: The whole card, as it can be uploaded.
        path: Its file.
    """

    source: ModelSource
    front: Mapping[str, Any]
    text: str
    path: Path

    @property
    def name(self) -> str:
        """What users call the model."""
        return self.source.name

    @property
    def license(self) -> str:
        """The licence as the header has it; empty when it has none."""
        return printable(str(self.front.get("license_name") or self.front.get("license") or ""))

    @property
    def is_local(self) -> bool:
        """Whether its files lie beside the card, so that nothing is downloaded."""
        return self.source.repository is None


def is_inside(path: str) -> bool:
    """Tell whether a path from a file or a server stays inside its folder on every system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not (path.startswith("/") or "\\" in path or ":" in path or ".." in parts)


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises:
        ConfigurationError: The file is unreadable, or its header has unknown, missing or wrong keys.
    """
    text = read_text(path, ConfigurationError)
    front = split_card(text, str(path)).front
    if "modelsgenesis" not in front:
        raise ConfigurationError(f"{path}: no `modelsgenesis:` mapping in its header; see the packaged cards")
    source = ModelSource.from_dict(front["modelsgenesis"], where=str(path))
    in_folder = path.name == FOLDER_CARD
    if source.name != (path.parent.name if in_folder else path.stem):
        right = f"its folder {source.name}" if in_folder else f"the file {source.name}.md"
        raise ConfigurationError(f"{path}: is about {source.name!r}; call {right}")
    return ModelCard(source, front, text, path)


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
        found |= {path.parent.name: path for path in sorted(folder.glob(f"*/{FOLDER_CARD}")) if _is_ours(path)}
        found |= {path.stem: path for path in sorted(folder.glob("*.md")) if path.stem.lower() != "readme"}
    return found


def _is_ours(path: Path) -> bool:
    """Tell whether the README of a folder has our header: any other is about something else."""
    return "\nmodelsgenesis:" in read_text(path, ConfigurationError)


def list_cards(modality: str | None = None, dims: int | None = None) -> list[ModelCard]:
    """List the models of the registry by name.

    Args:
        modality: Only models for it, such as `"ct"`.
        dims: Only models of so many spatial dimensions.

    Raises:
        ConfigurationError: A card is not as the schema wants it.

    Example:
        names = [card.name for card in list_cards(modality="ct", dims=3)]
    """
    cards = [read_card(path) for _, path in sorted(_paths().items())]
    wanted = ((card, card.source.input) for card in cards)
    return [card for card, spec in wanted if modality in (None, spec.modality) and dims in (None, spec.dims)]


def find_card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises:
        HubError: No card has this name; the message has the nearest ones.
    """
    paths = _paths()
    if name in paths:
        return read_card(paths[name])
    hint = did_you_mean(name, paths) if paths else "the registry is empty"
    also = "a Hub repository (org/name) or a folder also works"
    raise HubError(f"{name}: no model of this name in the registry; {hint} ({also})", "unknown")
