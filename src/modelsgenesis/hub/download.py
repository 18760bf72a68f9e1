"""From a name to a verified bundle on this machine."""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle, read_config
from modelsgenesis.configs import BundleConfig
from modelsgenesis.errors import (
    CheckpointError,
    DigestError,
    HubError,
    HubUnreachableError,
    UnknownModelError,
)
from modelsgenesis.hub.cache import Cache, Record, check_digest, key_of, open_cache, sha256_of
from modelsgenesis.hub.client import RemoteFile, Snapshot, is_offline, take_snapshot, translated
from modelsgenesis.hub.registry import ModelCard, find_card, is_inside, list_cards

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done and the bytes in all, while it is downloaded."""

_SMALL = 4 << 20  # bytes that a configuration or a card may have
_QUICK = 1.25  # seconds to connect, and to wait, when there is a copy to fall back on
_BYTES_PER_PARAMETER = 32  # float32 four times over, and optimiser state, as published training files have


@dataclass(frozen=True)
class Target:
    """What is asked for: a repository at a revision, or a card of the registry."""

    repository: str
    revision: str | None
    card: ModelCard | None = None

    @property
    def key(self) -> str:
        """The name of its record."""
        return key_of(*([self.card.name] if self.card else []), self.repository, self.revision or "main")

    @property
    def fingerprint(self) -> str:
        """Of what a converted bundle depends on beside the files; empty for a repository that holds a bundle."""
        if self.card is None or self.card.source.format == "bundle":
            return ""
        from modelsgenesis.checkpoints import CONVERTER_VERSION

        content = {"card": self.card.source.to_dict(), "converter": str(CONVERTER_VERSION)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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

    What was verified once is found again without any connection, and its digests are compared each time; a branch
    that moved since is only seen with `refresh`.

    Args:
        name_or_repository: A folder that is a bundle, a name of the registry, or `org/name[@revision]`.
        revision: Branch, tag or commit; None for the card's, or the default branch.
        token: None for that of the environment.
        cache: A folder for all that is kept; None for that of the environment.
        progress: Called while files are downloaded.
        refresh: Ask the Hub for the newest commit first; without an answer the copy here is used, with a warning.

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
    name = str(name_or_repository)
    local = _local(name_or_repository, revision)
    if local is not None:
        return local
    target = _target(name, revision)
    here = open_cache(cache)
    record = here.read(target.key)
    known = (
        record if record and record.fingerprint == target.fingerprint and _pinned(record, target) else None
    )
    usable = known is not None and here.intact(known)
    if known and usable and (not refresh or is_offline()):
        return here.bundle(known)
    try:
        snapshot = take_snapshot(
            target.repository, target.revision, token, timeout=_QUICK if usable else None, patient=not usable
        )
    except HubUnreachableError as error:
        if known and usable:
            warnings.warn(f"{error}; using the copy of commit {known.commit[:12]}", stacklevel=2)
            return here.bundle(known)
        if known:
            raise DigestError(
                f"{name}: the copy in the cache was altered, and there is no other: {error}"
            ) from error
        raise
    made = _make(target, snapshot, _Downloads(snapshot, token, here, progress))
    here.write(target.key, made)
    return here.bundle(made)


def _local(name: str | Path, revision: str | None) -> Path | None:
    """Return a folder that is a bundle; None for what can only be a name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise CheckpointError(f"{folder}: no {CONFIG_NAME} in it, so it is no bundle")
        if revision is not None:
            raise UnknownModelError(
                f"{folder}: is a folder, which has no revision {revision!r}; leave it out"
            )
        return folder
    text = str(name)
    if (
        isinstance(name, Path)
        or text.startswith(("/", "./", "../", "~"))
        or text.count("/") > 1
        or "\\" in text
    ):
        raise UnknownModelError(
            f"{text}: no such folder; give a bundle's folder, a name of the registry or org/name"
        )
    return None


def _target(name: str, revision: str | None) -> Target:
    name, _, asked = name.partition("@")
    if asked and revision and asked != revision:
        raise UnknownModelError(f"{name}: asked for revisions {asked!r} and {revision!r}; give one")
    revision = asked or revision
    if "/" in name:
        return Target(name, revision)
    card = find_card(name)
    source = card.source
    if source.repository is None:
        raise UnknownModelError(f"{name}: its card names no repository")
    return Target(source.repository, revision or source.revision, card)


def _pinned(record: Record, target: Target) -> bool:
    """Tell whether a record still agrees with the digest that the card pins."""
    pin = _pin(target)
    return pin is None or target.card is None or record.sources.get(target.card.source.file) == pin


def _pin(target: Target) -> str | None:
    """Return the digest in the card, which holds for the revision in the card only."""
    if target.card is None or target.revision != target.card.source.revision:
        return None
    return target.card.source.sha256


class _Downloads:
    """Fetches files of one commit into the Hub client's cache and lets none through unchecked."""

    def __init__(
        self, snapshot: Snapshot, token: str | None, cache: Cache, progress: Progress | None
    ) -> None:
        self.snapshot, self.token, self.cache, self.progress = snapshot, token, cache, progress
        self.digests: dict[str, str] = {}

    def remote(self, file: str, limit: int) -> RemoteFile:
        """Return the Hub's record of a file after checking that it is there, and no larger than it can be."""
        where = f"{self.snapshot.repository}/{file}"
        remote = self.snapshot.files.get(file)
        if remote is None:
            raise CheckpointError(f"{where}: not in the repository at commit {self.snapshot.commit[:12]}")
        if remote.size > limit:
            raise CheckpointError(
                f"{where}: is said to have {remote.size:,} bytes, expected at most {limit:,}; refused"
            )
        return remote

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a file that has the digest of the card, else that of the Hub's record."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        remote = self.remote(file, limit)
        where = f"{self.snapshot.repository}/{file}"
        if pin and remote.sha256 and remote.sha256 != pin:
            raise DigestError(
                f"{where}: the Hub has SHA-256 {remote.sha256[:12]}…, its card pins {pin[:12]}…; "
                "nothing was downloaded, since it is not the file that was reviewed"
            )
        expected = {"sha256": pin or remote.sha256, "git_sha1": remote.git_sha1}
        place: dict[str, Any] = {"revision": self.snapshot.commit, "cache_dir": self.cache.hub}
        before = try_to_load_from_cache(self.snapshot.repository, file, **place)
        if isinstance(before, str) and not _agrees(Path(before), expected, where):
            _discard(Path(before))
        with translated(self.snapshot.repository, self.snapshot.commit, self.token):
            path = hf_hub_download(
                self.snapshot.repository,
                file,
                token=self.token,
                tqdm_class=_bar(file, self.progress),
                **place,
            )
        try:
            self.digests[file] = check_digest(Path(path), expected, where)
        except DigestError:
            _discard(Path(path))
            raise
        return Path(path)


def _agrees(path: Path, expected: dict[str, str | None], where: str) -> bool:
    try:
        check_digest(path, expected, where)
    except DigestError:
        return False
    return True


def _discard(path: Path) -> None:
    """Remove a file of the client's cache: the link of the snapshot and the content behind it."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


def _bar(file: str, progress: Progress | None) -> type:
    """Return a progress bar for the client that draws nothing and tells `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no thread

        def display(self, *_: Any, **__: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if progress is not None:
                progress(file, int(self.n), int(self.total) if self.total else None)
            return shown

    return Bar


def _make(target: Target, snapshot: Snapshot, downloads: _Downloads) -> Record:
    """Download what a target needs and return the record of its bundle."""
    source = target.card.source if target.card else None
    if source is None or source.format == "bundle":
        folder = _get_bundle(target, downloads)
        root, relative, files = "hub", str(folder.relative_to(downloads.cache.hub)), dict(downloads.digests)
    else:
        folder = _convert(target, snapshot, downloads)
        root, relative, files = "bundles", folder.name, {p.name: sha256_of(p) for p in folder.iterdir()}
    return Record(
        repository=target.repository,
        revision=target.revision or "main",
        commit=snapshot.commit,
        sources=dict(downloads.digests),
        root=root,
        folder=relative,
        files=files,
        fingerprint=target.fingerprint,
    )


def _get_bundle(target: Target, downloads: _Downloads) -> Path:
    """Download a bundle; the configuration first, since it says how large the weights can be."""
    if CONFIG_NAME not in downloads.snapshot.files or WEIGHTS_NAME not in downloads.snapshot.files:
        known = [card.name for card in list_cards() if card.source.repository == target.repository]
        hint = f"; the registry reads it as {' or '.join(known)}" if known else ""
        raise CheckpointError(
            f"{target.repository}: holds no bundle of this package ({CONFIG_NAME} and {WEIGHTS_NAME}){hint}"
        )
    folder = downloads.get(CONFIG_NAME, _SMALL).parent
    limit = _weights_limit(read_config(folder))
    downloads.get(WEIGHTS_NAME, limit, _pin(target))
    if CARD_NAME in downloads.snapshot.files:
        downloads.get(CARD_NAME, _SMALL)
    return folder


def _weights_limit(config: BundleConfig) -> int:
    """Return the bytes that the weights of a network can have, with room for the header of the file."""
    import torch

    from modelsgenesis.networks import build_network

    with torch.device("meta"):
        tensors = build_network(config.network).state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _SMALL


def _convert(target: Target, snapshot: Snapshot, downloads: _Downloads) -> Path:
    """Download another format's files and convert them; the bundle appears whole or not at all."""
    from modelsgenesis.checkpoints import convert_checkpoint

    assert target.card is not None  # noqa: S101  # for the type checker
    source = target.card.source
    limit = source.parameters * _BYTES_PER_PARAMETER + _SMALL
    file = downloads.get(source.file, limit, _pin(target))
    extra = {name: downloads.get(name, _SMALL) for name in source.extra_files}
    digests = json.dumps([sorted(downloads.digests.items()), target.fingerprint])
    final = downloads.cache.bundles / f"{source.name}-{hashlib.sha256(digests.encode()).hexdigest()[:16]}"
    shutil.rmtree(final, ignore_errors=True)  # what is here was not intact
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=".making-"))
    except OSError as error:
        raise HubError(
            f"{final.parent}: cannot be written: {error.strerror}; set MODELSGENESIS_CACHE"
        ) from error
    try:
        convert_checkpoint(
            file,
            temporary,
            format=source.format,
            source={
                "repository": target.repository,
                "revision": snapshot.commit,
                "file": source.file,
                "sha256": downloads.digests[source.file],
            },
            extra_files=extra,
            input_contract=source.input,
            patch_size=source.patch_size,
        )
        _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _rename(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        # another process converted the same file meanwhile: its bundle has the same content


def copy_bundle(folder: Path, output: Path) -> Path:
    """Copy a bundle to a folder of the user's: whole, or not at all.

    Raises:
        HubError: The folder exists with something in it, or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HubError(f"{output}: exists already; name a new folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, temporary / name)
            temporary.chmod(0o755)
            temporary.replace(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HubError(f"{output}: cannot be written: {error.strerror}; choose another folder") from error
    return output


def verify(
    name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None
) -> dict[str, str]:
    """Check what is on this machine: digests as recorded, and a strict load. No connection is opened.

    Returns:
        SHA-256 by file.

    Raises:
        UnknownModelError: It is not on this machine.
        DigestError: A file was altered since it was downloaded.
        CheckpointError: It does not load.
    """
    folder = _local(name_or_folder, revision)
    if folder is None:
        target, here = _target(str(name_or_folder), revision), open_cache(cache)
        record = here.read(target.key)
        if record is None:
            raise UnknownModelError(
                f"{name_or_folder}: not on this machine; modelsgenesis download {name_or_folder}"
            )
        folder = here.bundle(record)
        for name, digest in record.files.items():
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                raise DigestError(
                    f"{folder / name}: is not the file that was downloaded; modelsgenesis download {name_or_folder}"
                )
    load_bundle(folder)
    names = [
        name
        for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)
        if is_inside(name) and (folder / name).is_file()
    ]
    return {name: sha256_of(folder / name) for name in names}
