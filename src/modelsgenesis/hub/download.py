"""From a name to a verified bundle on this machine, and what is kept here.

The Hub's client keeps what was downloaded in its own cache. Beside it lie records of verified models, by which they
are found and checked again without a connection, and bundles that were converted from other formats.
"""

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any

from modelsgenesis import checkpoints
from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle, read_config
from modelsgenesis.checkpoints.genesis import LAYOUTS
from modelsgenesis.configs.base import Config
from modelsgenesis.errors import CheckpointError, ConfigurationError, HubError, did_you_mean, require
from modelsgenesis.files import open_regular, parsing, read_json, replacing, sha256_of, write_json
from modelsgenesis.hub.registry import ModelCard, Progress, find_card
from modelsgenesis.networks import build_network

BUNDLE_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)

_SMALL = 4 << 20  # bytes that a configuration or a card may have
_BYTES_PER_PARAMETER = 32  # float32 four times over, and optimiser state, as published training files have
_UNDER_WAY = 3600  # seconds after which an unfinished conversion counts as abandoned


def cache_folder(name: str, cache_dir: str | Path | None = None) -> Path:
    """Return the folder of `"records"` or of converted `"bundles"`.

    Below `modelsgenesis` in `cache_dir` if it is given, else below `MODELSGENESIS_CACHE`, else `modelsgenesis` under
    `HF_HOME`, else under the user's cache folder.
    """
    home = cache_dir or os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = None if cache_dir else os.environ.get("MODELSGENESIS_CACHE")
    return Path(own or f"{home}/modelsgenesis").expanduser() / name


def client_settings() -> Any:
    """Return the settings of the Hub's client, which reads them from the environment as it is imported.

    Raises:
        ConfigurationError: One of them cannot be; the client would end in a traceback.
    """
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0").strip()
        expected = f"{name}: received {value!r}, expected whole seconds, such as 10; or unset it"
        require(re.fullmatch(r"[0-9]{1,5}", value), ConfigurationError, expected)
    try:
        from huggingface_hub import constants
    except Exception as problem:  # such as of an HF_ENDPOINT with an impossible host
        kind = type(problem).__name__  # its text may hold the password of an address
        raise ConfigurationError(f"HF_ENDPOINT or another HF_ setting is wrong ({kind}); correct it") from problem
    return constants


@dataclass(frozen=True, kw_only=True)
class Record(Config):
    """A verified model, by which it is found and checked again without a connection.

    Attributes:
        repository: Where it came from.
        commit: What the revision was that was asked for.
        fingerprint: Of what the bundle depends on beside the files; a model of another is made anew.
        folder: The bundle; in the file as it lies from there, for a cache may be carried to another machine.
        files: SHA-256 of each file of the bundle.
    """

    repository: str
    commit: str
    fingerprint: str
    folder: str
    files: dict[str, str]


def read_record(path: Path) -> Record | None:
    """Return a record, or None when there is none that can be read: then it is made anew."""
    with suppress(ConfigurationError):
        record = Record.from_dict(read_json(path, ConfigurationError))
        return record.override(folder=os.path.normpath(path.parent / record.folder))
    return None


def forget(repository: str) -> None:
    """Drop what is known of a repository, since its branches moved; the files stay."""
    for path in cache_folder("records").glob("*.json"):
        record = read_record(path)
        if record is None or record.repository == repository:
            path.unlink(missing_ok=True)


def is_intact(path: Path, record: Record) -> bool:
    """Tell whether every file of the bundle of a record, which lies at `path`, is there and has its digest.

    Reading the weights again takes as long as loading them: a file that nobody touched since the record was
    written is taken as it is. Its time of change cannot be set back, as that of its content can.
    """
    files = {Path(record.folder, name): digest for name, digest in record.files.items()}
    if not all(file.is_file() for file in files):
        return False
    written = path.stat().st_mtime_ns
    touched = [file for file in files if max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) >= written]
    if any(sha256_of(file) != files[file] for file in touched):
        return False
    if touched:
        with suppress(OSError):  # of a cache that is only read
            path.touch()
    return True


@dataclass(frozen=True)
class Target:
    """What a name leads to: a repository at a revision, or a folder of this machine.

    Attributes:
        repository: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        card: The card of the model, if the name is one of the registry.
        folder: Where it is already.
        cache_dir: Where downloads go; None for the caches of the environment.
    """

    repository: str = ""
    revision: str | None = None
    card: ModelCard | None = None
    folder: Path | None = None
    cache_dir: str | Path | None = None

    @property
    def record(self) -> Path:
        """The file of its record: readable, and told apart by a digest."""
        parts = ([self.card.name] if self.card else []) + [self.repository, self.revision or "main"]
        # A file name has at most 255 bytes, and `a/b` must not meet `a--b`: hence the digest of the parts as they are.
        safe = re.sub(r"[^\w.-]", "_", "--".join(parts).replace("/", "--"), flags=re.ASCII)
        return cache_folder("records", self.cache_dir) / f"{safe[:80]}-{_digest(parts)[:12]}.json"

    @property
    def pin(self) -> str | None:
        """The digest in the card, which holds for the revision in the card only."""
        return self.card.source.sha256 if self.card and self.revision == self.card.source.revision else None

    @property
    def fingerprint(self) -> str:
        """A digest of what a bundle depends on beside the files; empty where that is nothing."""
        return _digest([self.card.source.to_dict(), checkpoints.CONVERTER_VERSION]) if self.card else ""


def fetch_bundle(
    name_or_repository: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder of a bundle, downloading, verifying and converting it when it is not here yet.

    What was verified once is found again without any connection, and files that were touched are compared anew. So a
    branch that moved since is only seen with `refresh`.

    Args:
        name_or_repository: A folder that is a bundle, a name of the registry, or `org/name[@revision]`.
        revision: Branch, tag or commit; None for the card's, or the default branch.
        token: None for that of the environment.
        progress: Called with a file's name, the bytes done and the bytes in all, while it is downloaded.
        refresh: Ask the Hub for the newest commit; without an answer the copy here is used, with a warning.
        cache_dir: Where downloads go, and where they are looked for; None for the caches of the environment.
        local_files_only: Open no connection: what is not here is an error.
        force_download: Download every file again, even if it is here.

    Returns:
        The folder, to be read only.

    Raises:
        HubError: There is no such model, or it could not be downloaded; `kind` tells why. A file with another digest
            than the card or the Hub promises was thrown away.
        CheckpointError: The files are not a bundle, or cannot be converted.

    Example:
        folder = fetch_bundle("genesis-chest-ct-3d")
    """
    if local_files_only and force_download:
        raise ConfigurationError("local_files_only and force_download exclude each other: leave one out")
    target = replace(resolve(name_or_repository, revision), cache_dir=cache_dir)
    if target.folder or local_files_only:
        return target.folder or _find_here(target, str(name_or_repository))
    return _fetch(target, token, progress, refresh, force_download)


def _find_here(target: Target, name: str) -> Path:
    """Return the copy that is here, intact; no connection is opened."""
    known = read_record(target.record)
    if known is None or known.fingerprint != target.fingerprint or not is_intact(target.record, known):
        raise HubError(f"{name}: no intact copy on this machine; modelsgenesis download {name}", "unknown")
    return Path(known.folder)


def _fetch(target: Target, token: str | None, progress: Progress | None, refresh: bool, force: bool) -> Path:
    """Return the copy that is here, if it is intact and need not be the newest, or download it."""
    settings = client_settings()  # checks the environment before the client, which may not survive it, is imported
    known = read_record(target.record)
    known = known if known and known.fingerprint == target.fingerprint and not force else None
    usable = known is not None and is_intact(target.record, known)
    if known and usable and (not refresh or settings.is_offline_mode()):
        return Path(known.folder)
    from modelsgenesis.hub.client import take_snapshot

    try:
        snapshot = take_snapshot(target.repository, target.revision, token, quick=usable)
    except HubError as error:
        if known is None or error.kind != "unreachable":
            raise
        if not usable:
            raise HubError(f"{target.repository}: the copy here was altered, and {error}") from error
        warnings.warn(f"{error}; using the copy of commit {known.commit[:12]}", stacklevel=3)
        return Path(known.folder)
    get = partial(snapshot.download, progress=progress, cache_dir=target.cache_dir, force=force)
    if target.card is None or target.card.source.format == "bundle":
        folder = _get_bundle(target, snapshot.files, get)
    else:
        folder = _convert(target, snapshot.commit, get)
    what = {"repository": snapshot.repository, "commit": snapshot.commit, "fingerprint": target.fingerprint}
    place = os.path.relpath(folder, target.record.parent)
    write_json(target.record, Record(**what, folder=place, files=_digests(folder)).to_dict())
    return folder


def resolve(name: str | Path, revision: str | None) -> Target:
    """Return what a name leads to; no connection is opened.

    Raises:
        CheckpointError: A folder is not a bundle.
        HubError: There is no such folder or model, or it has no such revision.
    """
    text, folder, card = str(name), Path(name).expanduser(), None
    if folder.is_dir():
        require((folder / CONFIG_NAME).is_file(), CheckpointError, f"{folder}: no {CONFIG_NAME} in it, not a bundle")
    elif isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1 or "\\" in text:
        raise HubError(f"{text}: no such folder; give a bundle, a name of the registry or org/name", "unknown")
    elif "/" in text and folder.parent.is_dir():  # never sent to the Hub: a typing error may name a patient
        elsewhere = f"for a Hub repository of this name, work in a folder without {folder.parent}/"
        raise HubError(f"{text}: no such model in the folder {folder.parent}{beside(folder)} ({elsewhere})", "unknown")
    else:
        model, _, asked = text.partition("@")
        if asked and revision and asked != revision:
            raise HubError(f"{model}: asked for the revisions {asked!r} and {revision!r}; give one", "unknown")
        revision, card = asked or revision, None if "/" in model else find_card(model)
        if card is None:
            return Target(model, revision)
        source, root = card.source, card.path.parent
        if source.repository is not None:
            return Target(source.repository, revision or source.revision, card)
        path, pin = root / source.file, source.sha256
        folder = path.parent
        if root.resolve() not in path.resolve().parents:  # a path or a link that leads out
            raise CheckpointError(f"{path}: no such file in the folder of its card")
        open_regular(path, CheckpointError, source.parameters * _BYTES_PER_PARAMETER + _SMALL).close()
        if pin and (digest := sha256_of(path)) != pin:
            raise HubError(f"{path}: its SHA-256 is {digest[:12]}…, its card pins {pin[:12]}…; replace either")
        read_config(folder, card=source)
    if revision:
        raise HubError(f"{text}: lies on this machine and has no revision {revision!r}; leave it out", "unknown")
    return Target(card=card, folder=folder)


def beside(folder: Path) -> str:
    """Return the end of a message on a folder that is not there: the bundles that lie where it should."""
    bundles = [str(path.parent) for path in folder.parent.glob(f"*/{CONFIG_NAME}")]
    return f"; {did_you_mean(str(folder), bundles)}" if bundles else ""


def _get_bundle(target: Target, there: Container[str], get: Callable[..., Path]) -> Path:
    """Get a bundle; the configuration first, since it says how large the weights can be."""
    weights = PurePosixPath(target.card.source.file if target.card else WEIGHTS_NAME)
    config_name, card_name = (str(weights.with_name(name)) for name in (CONFIG_NAME, CARD_NAME))
    if config_name not in there or str(weights) not in there:
        what = f"({CONFIG_NAME} and {WEIGHTS_NAME}); modelsgenesis list shows how others are called"
        raise CheckpointError(f"{target.repository}: holds no bundle of this package {what}")
    config = get(config_name, _SMALL)
    with parsing(config, CheckpointError, what="as a network"):
        network = read_config(config.parent, card=target.card and target.card.source).network
        tensors = build_network(network, "meta").state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    get(str(weights), size + _SMALL, pin=target.pin)  # with room for the header of the file
    if card_name in there:
        get(card_name, _SMALL)
    return config.parent


def _convert(target: Target, commit: str, get: Callable[..., Path]) -> Path:
    """Get another format's files and convert them."""
    card: Any = target.card
    source = card.source
    if source.format not in LAYOUTS:  # before gigabytes are downloaded
        known = did_you_mean(source.format, [*LAYOUTS, "bundle"])
        raise ConfigurationError(f"{source.name}: its card has the format {source.format!r}; {known}")
    file = get(source.file, source.parameters * _BYTES_PER_PARAMETER + _SMALL, pin=target.pin)
    extra = [get(name, _SMALL) for name in source.extra_files]  # beside the file in the client's cache
    # The name tells bundles of other files, cards and converters apart, so that none replaces one in use.
    digests = [sha256_of(path) for path in (file, *extra)]
    origin = {"repository": target.repository, "revision": commit, "file": source.file, "sha256": digests[0]}
    final = cache_folder("bundles", target.cache_dir) / f"{source.name}-{_digest([digests, target.fingerprint])[:16]}"
    try:
        with replacing(final, HubError, folder=True) as temporary:
            options = {"source": origin, "input_contract": source.input, "card": card.text}
            options |= {key: getattr(source, key) for key in ("format", "task", "network", "patch_size")}
            checkpoints.convert_checkpoint(file, temporary, **options)
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


def find_cached(name: str | Path, *, revision: str | None = None) -> tuple[Path, dict[str, str]]:
    """Return the folder of a bundle that is here, and the digests of its files when it was downloaded.

    No connection is opened. What lies beside its card is compared with the digest in the card.

    Raises:
        HubError: It is not on this machine.
    """
    target = resolve(name, revision)
    if target.folder:
        return target.folder, {}
    if (record := read_record(target.record)) is None:
        raise HubError(f"{name}: not on this machine; modelsgenesis download {name}", "unknown")
    return Path(record.folder), record.files


def verify(name_or_folder: str | Path, *, revision: str | None = None) -> dict[str, str]:
    """Check a bundle that is here, as `find_cached` finds it: digests as when it was downloaded, and a strict load.

    Returns:
        SHA-256 by file.

    Raises:
        HubError: It is not on this machine, or a file was altered since it was downloaded.
        CheckpointError: It does not load.
    """
    folder, recorded = find_cached(name_or_folder, revision=revision)
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
    there = output.exists() and (not output.is_dir() or any(output.iterdir()))
    require(not there, HubError, f"{output}: exists already; name a new folder")
    with replacing(output, HubError, folder=True) as temporary:
        for name in _digests(folder):
            shutil.copyfile(folder / name, temporary / name)
    return output


@dataclass(frozen=True)
class CachedBundle:
    """A converted bundle.

    Attributes:
        folder: Where it is; its name is made of model and fingerprint.
        size: Bytes.
        used: Whether a record still leads to it, or a run may.
    """

    folder: Path
    size: int
    used: bool


def cached_bundles() -> list[CachedBundle]:
    """List the converted bundles, and whether each is still in use; and models that were handed over in memory."""
    records = [read_record(path) for path in cache_folder("records").glob("*.json")]
    used = {record.folder for record in records if record}
    found = []
    models = {*cache_folder("models").glob("*/*")}  # which runs may start from again
    for folder in sorted(path for path in (*cache_folder("bundles").glob("*"), *models) if path.is_dir()):
        # A hidden folder is a conversion under way, or what a crash left behind, which is older.
        if not folder.name.startswith(".") or time.time() - folder.stat().st_mtime > _UNDER_WAY:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(CachedBundle(folder, size, folder in models or normpath(folder) in used))  # as records have it
    return found


def prune(*, everything: bool = False) -> list[CachedBundle]:
    """Remove converted bundles that nothing leads to, such as those of an older converter.

    Args:
        everything: Remove those in use as well; they are converted again when they are needed.

    Returns:
        What was removed.
    """
    removed = [bundle for bundle in cached_bundles() if everything or not bundle.used]
    for bundle in removed:
        shutil.rmtree(bundle.folder)
    return removed
