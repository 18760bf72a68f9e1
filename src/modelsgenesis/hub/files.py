"""Files by name, each checked before anything reads it: of one commit, or beside a local card."""

import io
from pathlib import Path
from typing import Any

from modelsgenesis.errors import CheckpointError, DigestError
from modelsgenesis.files import check_regular, reason_of, sha256_of
from modelsgenesis.hub.cache import Cache, hub_digest
from modelsgenesis.hub.client import Progress, Snapshot, patiently, speaking

_ROOM = 1 << 20  # bytes that an answer may have beside a file, such as a page that says why there is none


class LocalFiles:
    """Files in the folder of a user's own card, which names no repository.

    Attributes:
        origin: The name of the folder.
        digests: SHA-256 of every file that was given out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin = folder, folder.name
        self.digests: dict[str, str] = {}

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a file of at most `limit` bytes that does not lead out of the folder, with the digest `pin`."""
        path = self.folder / file
        if self.folder.resolve() not in path.resolve().parents or not path.exists():
            raise CheckpointError(f"{path}: no such file in the folder of its card")
        check_regular(path, CheckpointError, limit)
        digest = sha256_of(path)
        if pin is not None and digest != pin:
            raise DigestError(f"{path}: its SHA-256 is {digest[:12]}…, its card pins {pin[:12]}…; replace either")
        self.digests[file] = digest
        return path


class RemoteFiles:
    """Files of one commit, fetched into the client's own cache.

    Attributes:
        origin: The commit.
        digests: SHA-256 of every file that was given out.
    """

    def __init__(self, snapshot: Snapshot, token: str | None, cache: Cache, progress: Progress | None) -> None:
        self.snapshot, self.origin = snapshot, snapshot.commit
        self.token, self.cache, self.progress = token, cache, progress
        self.digests: dict[str, str] = {}

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a file of at most `limit` bytes with the digest `pin`, else with that of the Hub's record."""
        where, remote = f"{self.snapshot.repository}/{file}", self.snapshot.files.get(file)
        if remote is None:
            raise CheckpointError(f"{where}: not in the repository at commit {self.origin[:12]}")
        if remote.size > limit:
            raise CheckpointError(f"{where}: has {remote.size:,} bytes, expected at most {limit:,}; it was not read")
        if pin and len(remote.digest) == len(pin) and remote.digest != pin:
            said = f"the Hub has SHA-256 {remote.digest[:12]}…, its card pins {pin[:12]}…"
            raise DigestError(f"{where}: {said}; nothing was downloaded, since it is not the file that was reviewed")
        expected, found = pin or remote.digest, ""
        for _ in range(2):  # what lies in the cache may have been altered, or put there unchecked by another program
            path = self._download(file, remote.size)
            found = hub_digest(path, expected) if path.is_file() else "no file"
            if found == expected:
                self.digests[file] = found if len(found) == 64 else sha256_of(path)
                return path
            self._discard(path)
        said = f"its digest is {found[:12]}…, expected {expected[:12]}…"
        raise DigestError(f"{where}: {said}; it was thrown away, try again later")

    def _download(self, file: str, size: int) -> Path:
        """Return a file of the client's cache, which downloads it if it is not there."""
        repository, commit = self.snapshot.repository, self.origin
        options: Any = {"revision": commit, "cache_dir": self.cache.hub, "tqdm_class": _bar(file, self.progress)}
        with speaking(repository, self.token, revision=commit, limit=size + _ROOM) as api:
            return Path(patiently(lambda: api.hf_hub_download(repository, file, **options), repository))

    def _discard(self, path: Path) -> None:
        """Remove a file of the client's cache: the link of the snapshot, and the content behind it if it lies there."""
        content = path.resolve()
        try:
            path.unlink(missing_ok=True)
            if self.cache.hub.resolve() in content.parents:
                content.unlink(missing_ok=True)
        except OSError as error:
            raise DigestError(f"{path}: cannot be replaced: {reason_of(error)}; remove it") from error


def _bar(file: str, progress: Progress | None) -> type:
    """Return a progress bar for the client that draws nothing and tells `progress`."""
    from tqdm import tqdm  # the client's own, whose interface it wants

    class Bar(tqdm):
        monitor_interval = 0  # no thread

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if progress is not None:
                progress(file, int(self.n), int(self.total) if self.total else None)
            return shown

    return Bar
