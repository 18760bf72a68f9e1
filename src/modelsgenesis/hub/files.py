"""Files by name, each checked before anything reads it: of one commit, or beside a local card."""

import io
from pathlib import Path
from typing import Any, Protocol

from modelsgenesis.errors import CheckpointError, DigestError
from modelsgenesis.hub.cache import Cache, check_digest, sha256_of
from modelsgenesis.hub.client import Progress, Snapshot, patiently, translated


class Files(Protocol):
    """Where files come from.

    Attributes:
        origin: Commit, or the name of the local folder.
        digests: SHA-256 of every file that was given out.
    """

    origin: str
    digests: dict[str, str]

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a checked file of at most `limit` bytes, with the digest `pin` if one is known."""
        ...


class LocalFiles:
    """Files in the folder of a user's own card, which names no repository."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin = folder, folder.name
        self.digests: dict[str, str] = {}

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a file that does not lead out of the folder."""
        path = self.folder / file
        if not path.is_file() or self.folder.resolve() not in path.resolve().parents:
            raise CheckpointError(f"{path}: no such file in the folder of its card")
        check_size(path.stat().st_size, limit, str(path))
        digest = sha256_of(path)
        if pin is not None and digest != pin:
            raise DigestError(f"{path}: its SHA-256 is {digest[:12]}…, its card pins {pin[:12]}…; replace either")
        self.digests[file] = digest
        return path


class RemoteFiles:
    """Files of one commit, fetched into the client's own cache."""

    def __init__(self, snapshot: Snapshot, token: str | None, cache: Cache, progress: Progress | None) -> None:
        self.snapshot, self.origin = snapshot, snapshot.commit
        self.token, self.cache, self.progress = token, cache, progress
        self.digests: dict[str, str] = {}

    def get(self, file: str, limit: int, pin: str | None = None) -> Path:
        """Return a file that has the digest of the card, else that of the Hub's record."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        repository, where = self.snapshot.repository, f"{self.snapshot.repository}/{file}"
        remote = self.snapshot.files.get(file)
        if remote is None:
            raise CheckpointError(f"{where}: not in the repository at commit {self.snapshot.commit[:12]}")
        check_size(remote.size, limit, where)
        if pin and remote.sha256 and remote.sha256 != pin:
            raise DigestError(
                f"{where}: the Hub has SHA-256 {remote.sha256[:12]}…, its card pins {pin[:12]}…; "
                "nothing was downloaded, since it is not the file that was reviewed"
            )
        expected = {"sha256": pin or remote.sha256, "git_sha1": remote.git_sha1}
        place: dict[str, Any] = {"revision": self.snapshot.commit, "cache_dir": self.cache.hub}
        before = try_to_load_from_cache(repository, file, **place)
        if isinstance(before, str) and not _agrees(Path(before), expected, where):
            _discard(Path(before))  # altered since, or put there unchecked by another program
        with translated(repository, self.snapshot.commit, self.token):
            bar = _bar(file, self.progress)
            path = Path(patiently(lambda: hf_hub_download(repository, file, token=self.token, tqdm_class=bar, **place)))
        try:
            self.digests[file] = check_digest(path, expected, where)
        except DigestError:
            _discard(path)
            raise
        return path


def check_size(size: int, limit: int, where: str) -> None:
    """Refuse a file that is larger than it can be, before anything is allocated for it.

    Raises:
        CheckpointError: It is.
    """
    if size > limit:
        raise CheckpointError(f"{where}: has {size:,} bytes, expected at most {limit:,}; it was not read")


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
