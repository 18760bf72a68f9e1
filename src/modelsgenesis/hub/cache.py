"""What is on this machine: records of verified downloads, and bundles converted from other formats."""

import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelsgenesis.configs import Config
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.files import read_json, sha256_of, write_json
from modelsgenesis.hub.environment import client_settings

# Names the folder of records and converted bundles.
CACHE_VARIABLE = "MODELSGENESIS_CACHE"

_UNDER_WAY = 3600  # seconds after which an unfinished conversion counts as abandoned


@dataclass(frozen=True, kw_only=True)
class Record(Config):
    """One verified download, by which it is found and checked again without a connection.

    Attributes:
        repository: Where it came from.
        revision: What was asked for.
        commit: What that was.
        sources: SHA-256 of each file that was downloaded.
        root: Whether the bundle lies in the Hub's own cache or among the converted ones.
        folder: The bundle, relative to the root.
        files: SHA-256 of each file of the bundle.
        stamps: Size and time of each of them when its digest was compared: a file that was touched since is
            read again, one that was not is taken as it is.
        fingerprint: Of the card and the converter; a converted bundle of another is made anew.
    """

    repository: str
    revision: str
    commit: str
    sources: dict[str, str]
    root: Literal["hub", "bundles"]
    folder: str
    files: dict[str, str]
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    fingerprint: str = ""


@dataclass(frozen=True)
class CachedBundle:
    """A converted bundle.

    Attributes:
        name: Its folder's name: model and fingerprint.
        folder: Where it is.
        size: Bytes.
        used: Whether a record still leads to it.
    """

    name: str
    folder: Path
    size: int
    used: bool


@dataclass(frozen=True)
class Cache:
    """The folders in use.

    Attributes:
        root: Of records and converted bundles.
        hub: The Hub client's own cache.
    """

    root: Path
    hub: Path

    @property
    def bundles(self) -> Path:
        """The folder of converted bundles."""
        return self.root / "bundles"

    @property
    def records(self) -> Path:
        """The folder of records."""
        return self.root / "records"

    def read(self, key: str) -> Record | None:
        """Return a record, or None when there is none that can be read: then it is made anew."""
        try:
            return Record.from_dict(read_json(self.records / f"{key}.json", ConfigurationError))
        except ConfigurationError:
            return None

    def write(self, key: str, record: Record) -> None:
        """Keep a record of files that were just verified."""
        record = record.override(stamps=self._stamps(record))
        write_json(self.records / f"{key}.json", record.to_dict())

    def forget(self, repository: str) -> None:
        """Drop what is known of a repository, since its branches moved; the files stay."""
        for path in self.records.glob("*.json"):
            record = self.read(path.stem)
            if record is None or record.repository == repository:
                path.unlink(missing_ok=True)

    def bundle(self, record: Record) -> Path:
        """Return the folder that a record leads to."""
        return (self.hub if record.root == "hub" else self.bundles) / record.folder

    def intact(self, record: Record) -> bool:
        """Tell whether every file of a record's bundle is there, untouched or at least with its digest."""
        folder, stamps = self.bundle(record), self._stamps(record)
        if stamps.keys() != record.files.keys():
            return False
        if stamps == record.stamps:
            return True
        return all(sha256_of(folder / name) == digest for name, digest in record.files.items())

    def _stamps(self, record: Record) -> dict[str, tuple[int, ...]]:
        """Return size and time of change of each file of a record that is there."""
        found = {name: self.bundle(record) / name for name in record.files}
        files = {name: path.stat() for name, path in found.items() if path.is_file()}
        return {name: (status.st_size, status.st_mtime_ns) for name, status in files.items()}


def is_own_conversion(folder: Path, cache: str | Path | None = None) -> bool:
    """Tell whether a folder is a bundle that this package converted, and checked as it did."""
    return folder.parent == open_cache(cache).bundles


def open_cache(folder: str | Path | None = None) -> Cache:
    """Return the cache: a given folder holds all of it, else the environment says where the parts are.

    `MODELSGENESIS_CACHE`, else `modelsgenesis` under `HF_HOME`, else under the user's cache folder.
    """
    if folder is not None:
        return Cache(Path(folder).expanduser(), Path(folder).expanduser() / "hub")
    own, home = os.environ.get(CACHE_VARIABLE), os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    root = Path(own) if own else base / "modelsgenesis"
    return Cache(root.expanduser(), Path(client_settings().HF_HUB_CACHE).expanduser())


def key_of(*parts: str) -> str:
    """Return a file name for what is asked for: readable, and told apart by a digest."""
    safe = re.sub(r"[^\w.-]", "_", "--".join(part.replace("/", "--") for part in parts), flags=re.ASCII)
    return f"{safe[:80]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder by its name."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}


def hub_digest(content: Path | bytes, like: str) -> str:
    """Return the digest of a file as the Hub records it: SHA-256 of a large one, git's SHA-1 of a small one.

    Args:
        content: A regular file, or what is in it.
        like: Such a digest, whose length tells which of the two it is.
    """
    if isinstance(content, Path) and len(like) == 64:
        return sha256_of(content)
    content = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def cached_bundles(cache: str | Path | None = None) -> list[CachedBundle]:
    """List the converted bundles, and whether each is still in use."""
    here = open_cache(cache)
    records = [here.read(path.stem) for path in here.records.glob("*.json")]
    used = {record.folder for record in records if record and record.root == "bundles"}
    folders = [path for path in sorted(here.bundles.glob("*")) if path.is_dir() and not _under_way(path)]
    return [CachedBundle(folder.name, folder, _size(folder), folder.name in used) for folder in folders]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _under_way(folder: Path) -> bool:
    """Tell whether a conversion may still be writing it; what a crash left behind is older."""
    return folder.name.startswith(".") and time.time() - folder.stat().st_mtime < _UNDER_WAY


def prune(cache: str | Path | None = None, *, everything: bool = False) -> list[CachedBundle]:
    """Remove converted bundles that nothing leads to, such as those of an older converter.

    Args:
        cache: The cache; None for that of the environment.
        everything: Remove those in use as well; they are converted again when they are needed.

    Returns:
        What was removed.
    """
    for bundle in (removed := [bundle for bundle in cached_bundles(cache) if everything or not bundle.used]):
        shutil.rmtree(bundle.folder)
    return removed
