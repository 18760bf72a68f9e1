"""What is kept on this machine beside the Hub client's own cache: records of verified models, and converted bundles."""

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelsgenesis.configs import Config
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.files import read_json, sha256_of, write_json

CACHE_VARIABLE = "MODELSGENESIS_CACHE"
"""Names the folder of records and converted bundles."""

_UNDER_WAY = 3600  # seconds after which an unfinished conversion counts as abandoned


@dataclass(frozen=True, kw_only=True)
class Record(Config):
    """A verified model, by which it is found and checked again without a connection.

    Attributes:
        repository: Where it came from.
        commit: What the revision was that was asked for.
        fingerprint: Of what the bundle depends on beside the files; a model of another is made anew.
        root: Whether the bundle lies in the Hub client's cache or among the converted ones.
        folder: The bundle, relative to the root: a cache may be carried to another machine.
        files: SHA-256 of each file of the bundle.
    """

    repository: str
    commit: str
    fingerprint: str
    root: Literal["hub", "bundles"]
    folder: str
    files: dict[str, str]


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

    def is_intact(self, key: str, record: Record) -> bool:
        """Tell whether every file of a record's bundle is there and has its digest.

        Reading the weights again takes as long as loading them: a file that nobody touched since the record was
        written is taken as it is. Its time of change cannot be set back, as that of its content can.
        """
        files = {self.bundle(record) / name: digest for name, digest in record.files.items()}
        if not all(file.is_file() for file in files):
            return False
        path = self.records / f"{key}.json"
        written = path.stat().st_mtime_ns
        touched = [file for file in files if max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) >= written]
        if any(sha256_of(file) != files[file] for file in touched):
            return False
        if touched:
            with suppress(OSError):  # of a cache that is only read
                path.touch()
        return True


def client_settings() -> Any:
    """Return the settings of the Hub's client, which reads them from the environment as it is imported.

    Raises:
        ConfigurationError: One of them cannot be; the client would end in a traceback.
    """
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0").strip()
        if not re.fullmatch(r"[0-9]{1,5}", value):
            raise ConfigurationError(f"{name}: received {value!r}, expected whole seconds, such as 10; or unset it")
    try:
        from huggingface_hub import constants
    except Exception as problem:  # such as of an HF_ENDPOINT with an impossible host
        kind = type(problem).__name__  # its text may hold the password of an address
        raise ConfigurationError(
            f"HF_ENDPOINT or another HF_ setting cannot be ({kind}); correct or unset it"
        ) from problem
    return constants


def open_cache(folder: str | Path | None = None) -> Cache:
    """Return the cache: a given folder holds all of it, else the environment says where the parts are.

    `MODELSGENESIS_CACHE`, else `modelsgenesis` under `HF_HOME`, else under the user's cache folder.
    """
    if folder is not None:
        return Cache(Path(folder).expanduser(), Path(folder).expanduser() / "hub")
    home = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = os.environ.get(CACHE_VARIABLE) or f"{home}/modelsgenesis"
    return Cache(Path(root).expanduser(), Path(client_settings().HF_HUB_CACHE).expanduser())


def key_of(*parts: str) -> str:
    """Return a file name for what is asked for: readable, and told apart by a digest."""
    # A file name has at most 255 bytes, and `a/b` must not meet `a--b`: hence the digest of the parts as they are.
    safe = re.sub(r"[^\w.-]", "_", "--".join(part.replace("/", "--") for part in parts), flags=re.ASCII)
    return f"{safe[:80]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def is_own_conversion(folder: Path, cache: str | Path | None = None) -> bool:
    """Tell whether a folder is a bundle that this package converted, and checked as it did."""
    return folder.parent == open_cache(cache).bundles


def cached_bundles(cache: str | Path | None = None) -> list[CachedBundle]:
    """List the converted bundles, and whether each is still in use."""
    here, now = open_cache(cache), time.time()
    records = [here.read(path.stem) for path in here.records.glob("*.json")]
    used = {record.folder for record in records if record and record.root == "bundles"}
    found = []
    for folder in sorted(path for path in here.bundles.glob("*") if path.is_dir()):
        # A hidden folder is a conversion under way, or what a crash left behind, which is older.
        if not folder.name.startswith(".") or now - folder.stat().st_mtime > _UNDER_WAY:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(CachedBundle(folder.name, folder, size, folder.name in used))
    return found


def prune(cache: str | Path | None = None, *, everything: bool = False) -> list[CachedBundle]:
    """Remove converted bundles that nothing leads to, such as those of an older converter.

    Args:
        cache: The cache; None for that of the environment.
        everything: Remove those in use as well; they are converted again when they are needed.

    Returns:
        What was removed.
    """
    removed = [bundle for bundle in cached_bundles(cache) if everything or not bundle.used]
    for bundle in removed:
        shutil.rmtree(bundle.folder)
    return removed
