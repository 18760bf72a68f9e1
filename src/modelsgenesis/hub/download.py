"""From a name to a verified bundle on this machine."""

import hashlib
import json
import shutil
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path

from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_config
from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import CheckpointError, DigestError, HubError, HubUnreachableError, UnknownModelError
from modelsgenesis.files import parsing, reason_of
from modelsgenesis.hub.cache import Cache, Record, digests_of, key_of, open_cache
from modelsgenesis.hub.client import Progress, take_snapshot
from modelsgenesis.hub.environment import client_settings
from modelsgenesis.hub.files import LocalFiles, RemoteFiles
from modelsgenesis.hub.registry import ModelCard, ModelSource, find_card, list_cards

BUNDLE_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)

_SMALL = 4 << 20  # bytes that a configuration or a card may have
_BYTES_PER_PARAMETER = 32  # float32 four times over, and optimiser state, as published training files have


@dataclass(frozen=True)
class Target:
    """What is asked for: a repository at a revision, or a card of the registry.

    Attributes:
        repository: `org/name`; None for files beside the card.
        revision: Branch, tag or commit; None for the default branch.
        card: Of the registry.
    """

    repository: str | None
    revision: str | None
    card: ModelCard | None = None

    @property
    def key(self) -> str:
        """The name of its record."""
        name = [self.card.name] if self.card else []
        return key_of(*name, self.repository or "local", self.revision or "main")

    @property
    def foreign(self) -> ModelSource | None:
        """What the card says of files that have to be converted; None for a bundle."""
        return self.card.source if self.card and self.card.source.format != "bundle" else None

    @property
    def pin(self) -> str | None:
        """The digest in the card, which holds for the revision in the card only."""
        return self.card.source.sha256 if self.card and self.revision == self.card.source.revision else None

    @property
    def fingerprint(self) -> str:
        """Of what a converted bundle depends on beside the files; empty for a bundle."""
        if self.foreign is None:
            return ""
        from modelsgenesis.checkpoints import CONVERTER_VERSION

        content = {"card": self.foreign.to_dict(), "converter": str(CONVERTER_VERSION)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def accepts(self, record: Record) -> bool:
        """Tell whether a record still agrees with the card."""
        pinned = self.pin is None or self.card is None or record.sources.get(self.card.source.file) == self.pin
        return pinned and record.fingerprint == self.fingerprint


def fetch_bundle(
    name_or_repository: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Path:
    """Return the folder of a bundle, downloading, verifying and converting it when it is not here yet.

    What was verified once is found again without any connection, and its digests are compared each time. So a
    branch that moved since is only seen with `refresh`.

    Args:
        name_or_repository: A folder that is a bundle, a name of the registry, or `org/name[@revision]`.
        revision: Branch, tag or commit; None for the card's, or the default branch.
        token: None for that of the environment.
        cache: A folder for all that is kept; None for that of the environment.
        progress: Called with a file's name, the bytes done and the bytes in all, while it is downloaded.
        refresh: Ask the Hub for the newest commit; without an answer the copy here is used, with a warning.

    Returns:
        The folder, to be read only.

    Raises:
        UnknownModelError: No such folder, name, repository or revision.
        HubUnreachableError: It is not here and the Hub cannot be reached.
        AccessError: The repository is gated, or the token is refused.
        DigestError: A file is not what the card or the Hub promises; it was thrown away.
        CheckpointError: The files are no bundle, or cannot be converted.

    Example:
        folder = fetch_bundle("genesis-chest-ct-3d")
    """
    local = find_folder(name_or_repository, revision)
    if local is not None:
        return local
    target = find_target(str(name_or_repository), revision)
    here = open_cache(cache)
    if target.card and target.repository is None:
        return _make(target, LocalFiles(target.card.path.parent), here)
    record = here.read(target.key)
    known = record if record and target.accepts(record) else None
    usable = known is not None and here.intact(known)
    if known and usable and (not refresh or client_settings().is_offline_mode()):
        return here.bundle(known)
    try:
        snapshot = take_snapshot(str(target.repository), target.revision, token, quick=usable)
    except HubUnreachableError as error:
        if known and usable:
            warnings.warn(f"{error}; using the copy of commit {known.commit[:12]}", stacklevel=2)
            return here.bundle(known)
        if known:
            raise DigestError(f"{name_or_repository}: the copy here was altered, and {error}") from error
        raise
    return _make(target, RemoteFiles(snapshot, token, here, progress), here)


def find_folder(name: str | Path, revision: str | None) -> Path | None:
    """Return a folder that is a bundle; None for what can only be a name.

    Raises:
        CheckpointError: The folder is no bundle.
        UnknownModelError: It looks like a folder and is none.
    """
    text, folder = str(name), Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise CheckpointError(f"{folder}: no {CONFIG_NAME} in it, so it is no bundle")
        if revision is not None:
            raise UnknownModelError(f"{folder}: is a folder, which has no revision {revision!r}; leave it out")
        return folder
    if isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1 or "\\" in text:
        raise UnknownModelError(f"{text}: no such folder; give a bundle, a name of the registry or org/name")
    return None


def find_target(name: str, revision: str | None) -> Target:
    """Return what a name and a revision ask for.

    Raises:
        UnknownModelError: The name is in no registry, or two revisions are given.
    """
    name, _, asked = name.partition("@")
    if asked and revision and asked != revision:
        raise UnknownModelError(f"{name}: asked for the revisions {asked!r} and {revision!r}; give one")
    revision = asked or revision
    if "/" in name:
        return Target(name, revision)
    card = find_card(name)
    if card.is_local and revision:
        raise UnknownModelError(f"{name}: lies beside its card and has no revision {revision!r}; leave it out")
    return Target(card.source.repository, revision or card.source.revision, card)


def _make(target: Target, files: LocalFiles | RemoteFiles, cache: Cache) -> Path:
    """Get what a target needs, keep a record of it, and return its bundle."""
    if target.foreign:
        folder, root = _convert(target.foreign, target, files, cache), cache.bundles
        made = digests_of(folder)
    else:
        folder, root = _get_bundle(target, files), cache.hub
        made = {Path(name).name: digest for name, digest in files.digests.items()}
    _compare_with_card(target, folder)
    if target.repository is not None:
        record = Record(
            repository=target.repository,
            revision=target.revision or "main",
            commit=files.origin,
            sources=dict(files.digests),
            root="hub" if root == cache.hub else "bundles",
            folder=folder.relative_to(root).as_posix(),
            files=made,
            fingerprint=target.fingerprint,
        )
        cache.write(target.key, record)
    return folder


def _compare_with_card(target: Target, folder: Path) -> None:
    """Refuse a bundle that is not the model that its card describes."""
    if target.card is None:
        return
    config, source = read_config(folder), target.card.source
    for key in ("task", "network", "input", "patch_size"):
        if getattr(config, key) != getattr(source, key):
            said = f"its file has {key} {getattr(config, key)}, its card says {getattr(source, key)}"
            raise CheckpointError(f"{target.card.name}: {said}; ask whoever wrote the card")


def _get_bundle(target: Target, files: LocalFiles | RemoteFiles) -> Path:
    """Get a bundle; the configuration first, since it says how large the weights can be."""
    weights = Path(target.card.source.file) if target.card else Path(WEIGHTS_NAME)
    config_name, card_name = ((weights.parent / name).as_posix() for name in (CONFIG_NAME, CARD_NAME))
    there = files.snapshot.files if isinstance(files, RemoteFiles) else {}
    if isinstance(files, RemoteFiles) and not {config_name, weights.as_posix()} <= there.keys():
        known = [card.name for card in list_cards() if card.source.repository == target.repository]
        hint = f"; the registry reads it as {' or '.join(known)}" if known else ""
        what = f"({CONFIG_NAME} and {WEIGHTS_NAME})"
        raise CheckpointError(f"{target.repository}: holds no bundle of this package {what}{hint}")
    config = files.get(config_name, _SMALL)
    files.get(weights.as_posix(), _weights_limit(read_config(config.parent), config), target.pin)
    if card_name in there:
        files.get(card_name, _SMALL)
    return config.parent


def _weights_limit(config: BundleConfig, path: Path) -> int:
    """Return the bytes that the weights of a network can have, with room for the header of the file."""
    from modelsgenesis.networks import build_on_meta

    with parsing(path, CheckpointError, what="as a network"):
        tensors = build_on_meta(config.network).state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _SMALL


def _convert(source: ModelSource, target: Target, files: LocalFiles | RemoteFiles, cache: Cache) -> Path:
    """Get another format's files and convert them; the bundle appears whole or not at all."""
    from modelsgenesis.checkpoints import convert_checkpoint

    file = files.get(source.file, source.parameters * _BYTES_PER_PARAMETER + _SMALL, target.pin)
    extra = {name: files.get(name, _SMALL) for name in source.extra_files}
    content = json.dumps([sorted(files.digests.items()), target.fingerprint])
    final = cache.bundles / f"{source.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        convert_checkpoint(
            file,
            temporary,
            format=source.format,
            source={
                "repository": target.repository,
                "revision": files.origin,
                "file": source.file,
                "sha256": files.digests[source.file],
            },
            extra_files=extra,
            input_contract=source.input,
            patch_size=source.patch_size,
            network=source.network,
            task=source.task,
            card=target.card.text if target.card else "",
        )
        _put(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _put(temporary: Path, final: Path) -> None:
    """Move a new bundle to its place; one that is there stays if it is the same, else it was altered."""
    if final.is_dir() and digests_of(final) != digests_of(temporary):
        shutil.rmtree(final, ignore_errors=True)
    try:
        temporary.rename(final)
    except OSError as error:
        if not final.is_dir():  # else another process converted the same file meanwhile
            raise HubError(f"{final}: cannot be written: {reason_of(error)}; set MODELSGENESIS_CACHE") from error
