"""From a name to a verified bundle on this machine."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle, read_config
from modelsgenesis.errors import CheckpointError, HubError
from modelsgenesis.files import check_regular, parsing, replacing_folder, sha256_of
from modelsgenesis.hub.cache import Cache, Record, client_settings, key_of, open_cache
from modelsgenesis.hub.registry import ModelCard, Progress, find_card, list_cards

BUNDLE_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)

_SMALL = 4 << 20  # bytes that a configuration or a card may have
_BYTES_PER_PARAMETER = 32  # float32 four times over, and optimiser state, as published training files have


@dataclass(frozen=True)
class Target:
    """A repository at a revision, or a model of the registry.

    Attributes:
        repository: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        card: The card of the model in the registry.
    """

    repository: str
    revision: str | None
    card: ModelCard | None = None

    @property
    def key(self) -> str:
        """The name of its record."""
        name = [self.card.name] if self.card else []
        return key_of(*name, self.repository, self.revision or "main")

    @property
    def pin(self) -> str | None:
        """The digest in the card, which holds for the revision in the card only."""
        return self.card.source.sha256 if self.card and self.revision == self.card.source.revision else None

    @property
    def fingerprint(self) -> str:
        """A digest of what a bundle depends on beside the files; empty where that is nothing."""
        if self.card is None:
            return ""
        from modelsgenesis import checkpoints

        converter = "" if self.card.source.format == "bundle" else str(checkpoints.CONVERTER_VERSION)
        return _digest([self.card.source.to_dict(), converter])


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

    What was verified once is found again without any connection, and files that were touched are compared anew. So a
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
        HubError: There is no such model, or it could not be downloaded; `kind` tells why. A file with another digest
            than the card or the Hub promises was thrown away.
        CheckpointError: The files are not a bundle, or cannot be converted.

    Example:
        folder = fetch_bundle("genesis-chest-ct-3d")
    """
    target = _resolve(name_or_repository, revision)
    if isinstance(target, Path):
        return target
    settings = client_settings()  # checks the environment before the client, which may not survive it, is imported
    here = open_cache(cache)
    record = here.read(target.key)
    known = record if record and record.fingerprint == target.fingerprint else None
    usable = known is not None and here.is_intact(target.key, known)
    if known and usable and (not refresh or settings.is_offline_mode()):
        return here.bundle(known)
    from modelsgenesis.hub.client import take_snapshot

    try:
        snapshot = take_snapshot(target.repository, target.revision, token, quick=usable)
    except HubError as error:
        if known is None or error.kind != "unreachable":
            raise
        if not usable:
            raise HubError(f"{name_or_repository}: the copy here was altered, and {error}") from error
        warnings.warn(f"{error}; using the copy of commit {known.commit[:12]}", stacklevel=2)
        return here.bundle(known)
    get = partial(snapshot.download, cache=here.hub, progress=progress)
    if target.card and target.card.source.format != "bundle":
        folder, root = _convert(target.card, target, snapshot.commit, get, here), "bundles"
    else:
        folder, root = _get_bundle(target, snapshot.files, get), "hub"
    if target.card:
        _compare_with_card(target.card, folder)
    record = Record(
        repository=snapshot.repository,
        commit=snapshot.commit,
        fingerprint=target.fingerprint,
        root=root,
        folder=folder.relative_to(here.bundles if root == "bundles" else here.hub).as_posix(),
        files=_digests(folder),
    )
    here.write(target.key, record)
    return folder


def _resolve(name: str | Path, revision: str | None) -> Path | Target:
    """Return the folder of a bundle that needs no download, or what has to be there.

    Raises:
        CheckpointError: A folder is not a bundle.
        HubError: There is no such folder or model, or it has no such revision.
    """
    text, folder = str(name), Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise CheckpointError(f"{folder}: no {CONFIG_NAME} in it, so it is not a bundle")
    elif isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1 or "\\" in text:
        raise HubError(f"{text}: no such folder; give a bundle, a name of the registry or org/name", "unknown")
    else:
        model, _, asked = text.partition("@")
        if asked and revision and asked != revision:
            raise HubError(f"{model}: asked for the revisions {asked!r} and {revision!r}; give one", "unknown")
        revision, card = asked or revision, None if "/" in model else find_card(model)
        if card is None:
            return Target(model, revision)
        if card.source.repository is not None:
            return Target(card.source.repository, revision or card.source.revision, card)
        folder = _check_beside(card)
    if revision:
        raise HubError(f"{text}: lies on this machine and has no revision {revision!r}; leave it out", "unknown")
    return folder


def _check_beside(card: ModelCard) -> Path:
    """Return the folder of the weights beside a card, whose digest they have, and which they do not lead out of."""
    root, path = card.path.parent, card.path.parent / card.source.file
    if root.resolve() not in path.resolve().parents or not path.exists():
        raise CheckpointError(f"{path}: no such file in the folder of its card")
    check_regular(path, CheckpointError, card.source.parameters * _BYTES_PER_PARAMETER + _SMALL)
    digest, pin = sha256_of(path), card.source.sha256
    if pin is not None and digest != pin:
        raise HubError(f"{path}: its SHA-256 is {digest[:12]}…, its card pins {pin[:12]}…; replace either")
    _compare_with_card(card, path.parent)
    return path.parent


def _compare_with_card(card: ModelCard, folder: Path) -> None:
    """Refuse a bundle that is not the model that its card describes."""
    config = read_config(folder)
    for key in ("task", "network", "input", "patch_size"):
        found, told = getattr(config, key), getattr(card.source, key)
        if found != told:
            raise CheckpointError(f"{card.name}: its file has {key} {found}, its card says {told}; ask its author")


def _get_bundle(target: Target, there: Container[str], get: Callable[..., Path]) -> Path:
    """Get a bundle; the configuration first, since it says how large the weights can be."""
    weights = PurePosixPath(target.card.source.file if target.card else WEIGHTS_NAME)
    config_name, card_name = (str(weights.with_name(name)) for name in (CONFIG_NAME, CARD_NAME))
    if config_name not in there or str(weights) not in there:
        # Somebody who knows the repository, but not that the registry has a name for it.
        known = [card.name for card in list_cards() if card.source.repository == target.repository]
        hint = f"; the registry reads it as {' or '.join(known)}" if known else ""
        what = f"({CONFIG_NAME} and {WEIGHTS_NAME})"
        raise CheckpointError(f"{target.repository}: holds no bundle of this package {what}{hint}")
    config = get(config_name, _SMALL)
    get(str(weights), _weights_limit(config), pin=target.pin)
    if card_name in there:
        get(card_name, _SMALL)
    return config.parent


def _weights_limit(config: Path) -> int:
    """Return the bytes that the weights of a network can have, with room for the header of the file."""
    from modelsgenesis.networks import build_on_meta

    with parsing(config, CheckpointError, what="as a network"):
        tensors = build_on_meta(read_config(config.parent).network).state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _SMALL


def _convert(card: ModelCard, target: Target, commit: str, get: Callable[..., Path], here: Cache) -> Path:
    """Get another format's files and convert them."""
    from modelsgenesis.checkpoints import convert_checkpoint

    source: Any = card.source
    file = get(source.file, source.parameters * _BYTES_PER_PARAMETER + _SMALL, pin=target.pin)
    extra = {name: get(name, _SMALL) for name in source.extra_files}
    # The name tells bundles of other files, cards and converters apart, so that none replaces one in use.
    digests = [sha256_of(path) for path in (file, *extra.values())]
    origin = {"repository": target.repository, "revision": commit, "file": source.file, "sha256": digests[0]}
    final = here.bundles / f"{source.name}-{_digest([digests, target.fingerprint])[:16]}"
    try:
        with replacing_folder(final, HubError) as temporary:
            convert_checkpoint(
                file,
                temporary,
                format=source.format,
                source=origin,
                extra_files=extra,
                input_contract=source.input,
                patch_size=source.patch_size,
                network=source.network,
                task=source.task,
                card=card.text,
            )
            # Nothing is removed that is the same: another process may be loading it just now.
            if final.is_dir() and _digests(final) != _digests(temporary):
                shutil.rmtree(final, ignore_errors=True)
    except HubError:
        if not final.is_dir():  # else it is the same already, maybe by another process meanwhile
            raise
    return final


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a bundle that is there."""
    return {name: sha256_of(folder / name) for name in BUNDLE_FILES if (folder / name).is_file()}


def find_cached(
    name: str | Path, *, revision: str | None = None, cache: str | Path | None = None
) -> tuple[Path, dict[str, str]]:
    """Return the folder of a bundle that is here, and the digests of its files when it was downloaded.

    No connection is opened. What lies beside its card is compared with the digest in the card.

    Raises:
        HubError: It is not on this machine.
    """
    target = _resolve(name, revision)
    if isinstance(target, Path):
        return target, {}
    here = open_cache(cache)
    record = here.read(target.key)
    if record is None:
        raise HubError(f"{name}: not on this machine; modelsgenesis download {name}", "unknown")
    return here.bundle(record), record.files


def verify(
    name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None
) -> dict[str, str]:
    """Check a bundle that is here: digests as recorded when it was downloaded, and a strict load.

    No connection is opened. What lies beside its card is compared with the digest in the card.

    Returns:
        SHA-256 by file.

    Raises:
        HubError: It is not on this machine, or a file was altered since it was downloaded.
        CheckpointError: It does not load.
    """
    folder, recorded = find_cached(name_or_folder, revision=revision, cache=cache)
    found = _digests(folder)
    for file, digest in recorded.items():
        if found.get(file) != digest:
            again = f"modelsgenesis download {name_or_folder}"
            raise HubError(f"{folder / file}: is not the file that was downloaded; {again}")
    load_bundle(folder)
    return found


def copy_bundle(folder: Path, output: Path) -> Path:
    """Copy a bundle to a folder of the user's: whole, or not at all.

    Raises:
        HubError: The folder exists with something in it, or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HubError(f"{output}: exists already; name a new folder")
    with replacing_folder(output, HubError) as temporary:
        for name in _digests(folder):
            shutil.copyfile(folder / name, temporary / name)
    return output
