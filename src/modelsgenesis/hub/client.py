"""The Hub's client as this package uses it: errors in one line each, a repository at one commit, verified files."""

import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors

from modelsgenesis._version import __version__
from modelsgenesis.errors import CheckpointError, GenesisError, HubError, HubFailure
from modelsgenesis.files import TEXT_LIMIT, reason_of, sha256_of
from modelsgenesis.hub.cache import client_settings
from modelsgenesis.hub.guard import SIGN_IN, Call, endpoint, guarding, httpx, no_hub, redacted, token_of
from modelsgenesis.hub.registry import Progress, is_inside

_BUSY = {429, 500, 502, 503, 504}
_ATTEMPTS = 4  # with waits of 1, 2 and 4 seconds
_QUICK = 1.25  # seconds to connect, and to wait, when there is something to fall back on
_SLACK = 1 << 20  # bytes that an answer may have beside a file, such as a page that says why there is none


@contextmanager
def hub_errors(
    repository: str, token: str | None = None, *, revision: str | None = None, limit: int = TEXT_LIMIT
) -> Iterator[HfApi]:
    """Give the client; what servers say is checked, and whatever it raises becomes one line of this package.

    Args:
        repository: `org/name`.
        token: None for the environment's.
        revision: Branch, tag or commit; files are only taken from a commit.
        limit: Bytes that an answer may have.

    Raises:
        HubError: Of the kind that its attribute tells.
        ConfigurationError: The environment names an endpoint, a proxy or a limit that cannot be.
    """
    sent = token_of(token)
    with guarding(Call(repository, revision, limit)):
        try:
            yield HfApi(token=sent if token else None, library_name="modelsgenesis", library_version=__version__)
        except GenesisError:
            raise
        except Exception as error:  # of any type: the client trusts what a server answers
            raise _explain(error, repository, revision, signed_in=bool(sent)) from error


def _explain(error: Exception, repository: str, revision: str | None, *, signed_in: bool) -> GenesisError:
    """Return what an exception of the client means for a user."""
    if isinstance(error, GenesisError):
        return error
    if isinstance(error, (RuntimeError, errors.LocalEntryNotFoundError)) and isinstance(error.__cause__, Exception):
        return _explain(error.__cause__, repository, revision, signed_in=signed_in)  # why lies behind it
    meanings = _refusals if isinstance(error, errors.HfHubHTTPError) else _failures
    for holds, kind, text in meanings(error, repository, revision, signed_in):
        if holds:
            return HubError(f"{repository}: {text}", kind)
    return no_hub(repository, f"what cannot be understood ({reason_of(error)})")


_Meanings = Iterator[tuple[bool, HubFailure, str]]  # the first that holds counts


def _refusals(error: Any, repository: str, revision: str | None, signed_in: bool) -> _Meanings:
    """Yield what an answer of the Hub may mean, by its status and the client's class for it."""
    status, hub, kind = error.response.status_code, endpoint(), type(error)
    url = f"{hub}/{repository}"
    words = " ".join(redacted(str(getattr(error, "server_message", None) or ""))[:300].split())
    said = f"{status}: {words}" if words else f"{status}"
    account = "with the account of your token" if signed_in else f"there, then {SIGN_IN}"
    hint = "ask its owner for access" if signed_in else SIGN_IN
    # A gated repository is a subclass of one that is not found.
    yield kind is errors.GatedRepoError, "denied", f"gated; accept its conditions at {url} {account}"
    unknown = issubclass(kind, errors.RepositoryNotFoundError)
    yield unknown, "unknown", f"not on {hub}, or private; check the name, or {hint}"
    yield kind is errors.RevisionNotFoundError, "unknown", f"has no revision {revision!r}; see {url}/tree/main"
    yield kind is errors.RemoteEntryNotFoundError, "unknown", f"has no such file; see {url}/tree/main"
    invalid = f"the Hub does not accept the token ({said}); make a new one in the account's settings"
    yield status == 401, "denied", invalid if signed_in else f"the Hub wants a token ({status}); {SIGN_IN}"
    yield status == 403, "denied", f"the token lacks the rights ({said}); use one with write access to it"
    moved = f"another push made or changed it meanwhile ({said}); see {url}/commits, or choose another --hub-model-id"
    yield status in (409, 412), "conflict", moved
    yield status >= 500 or status in _BUSY, "unreachable", f"{hub} is busy or down ({status}); try again later"
    yield True, "other", f"{hub} refused ({said}); see {url}"


def _failures(error: Exception, repository: str, revision: str | None, signed_in: bool) -> _Meanings:
    """Yield what the end of a call without an answer may mean; nothing holds where an answer makes no sense."""
    hub, reason = endpoint(), redacted(reason_of(error))
    cut = "Consistency check failed" in str(error)
    yield cut, "unreachable", "the download ended short and was thrown away; try again"
    offline = isinstance(error, errors.OfflineModeIsEnabled)
    yield offline, "unreachable", "offline mode (HF_HUB_OFFLINE) forbids it; unset it or download before"
    yield isinstance(error, errors.HFValidationError), "unknown", "not the name of a repository, expected org/name"
    late = f"{hub} did not answer in time; try later, or raise HF_HUB_ETAG_TIMEOUT"
    yield isinstance(error, httpx.TimeoutException), "unreachable", late
    network = f"{hub} cannot be reached ({reason}); check the network, HF_ENDPOINT and the proxy"
    yield isinstance(error, httpx.HTTPError), "unreachable", network
    if not isinstance(error, (errors.FileMetadataError, RecursionError)):
        repeat = f"the transfer broke off ({reason}); repeat it"  # of one large file
        yield isinstance(error, RuntimeError), "unreachable", repeat
        disk = f"the transfer broke off ({reason}); check space and rights under HF_HOME"
        yield isinstance(error, OSError), "other", disk


def retry_when_busy(call: Callable[[], Any], repository: str, attempts: int = _ATTEMPTS) -> Any:
    """Call again, after growing waits, while the Hub says that it is busy; the client would give up."""
    for attempt in range(attempts - 1):
        try:
            return call()
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            busy = f"waiting for {endpoint()} ({error.response.status_code}), trying again in {2**attempt} s"
            logging.getLogger(__name__).warning("%s: %s", repository, busy)
        time.sleep(2**attempt)
    return call()


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub records it at one commit: its size in bytes, and its digest, see `hub_digest`."""

    size: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit; `files` has those whose names stay inside of it."""

    repository: str
    commit: str
    private: bool
    files: dict[str, RemoteFile]
    token: str | None = field(repr=False)

    def download(
        self, file: str, limit: int, cache: Path, *, pin: str | None = None, progress: Progress | None = None
    ) -> Path:
        """Return a file in the client's own cache, with the digest `pin`, else with that of the Hub's record.

        Args:
            file: Its path in the repository.
            limit: Bytes that it may have.
            cache: The client's cache.
            pin: The SHA-256 that it must have.
            progress: Called with the file, the bytes done and the bytes in all.

        Raises:
            CheckpointError: It is not in the repository, or too large.
            HubError: It could not be downloaded, or has another digest.
        """
        where, remote = f"{self.repository}/{file}", self.files.get(file)
        if remote is None:
            raise CheckpointError(f"{where}: not in the repository at commit {self.commit[:12]}")
        if remote.size > limit:
            raise CheckpointError(f"{where}: has {remote.size:,} bytes, expected at most {limit:,}; it was not read")
        if pin and len(remote.digest) == len(pin) and remote.digest != pin:
            said = f"the Hub has SHA-256 {remote.digest[:12]}…, its card pins {pin[:12]}…"
            raise HubError(f"{where}: {said}; nothing was downloaded, since it is not the file that was reviewed")
        expected, found = pin or remote.digest, ""
        options: Any = {"revision": self.commit, "cache_dir": cache, "tqdm_class": _bar(file, progress)}
        with hub_errors(self.repository, self.token, revision=self.commit, limit=remote.size + _SLACK) as api:
            get = partial(api.hf_hub_download, self.repository, file, **options)
            for anew in (False, True):  # what lies in the cache may be altered, or put there unchecked by others
                path = Path(retry_when_busy(partial(get, force_download=anew), self.repository))
                found = hub_digest(path, expected) if path.is_file() else "that of no file"
                if found == expected:
                    return path
                path.unlink(missing_ok=True)  # the client itself would take it again
        said = f"its digest is {found[:12]}…, expected {expected[:12]}…"
        raise HubError(f"{where}: {said}; it was thrown away, try again later")


def take_snapshot(repository: str, revision: str | None, token: str | None, *, quick: bool = False) -> Snapshot:
    """Resolve a revision to a commit, and record size and digest of every file at it, in one request.

    Args:
        repository: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        token: None for the environment's.
        quick: Whether to give up at once when the Hub is slow or busy.

    Raises:
        HubError: Of the kind that its attribute tells.
    """
    timeout, attempts = (_QUICK, 1) if quick else (client_settings().HF_HUB_ETAG_TIMEOUT, _ATTEMPTS)
    options: Any = {"revision": revision, "files_metadata": True, "timeout": timeout}
    with hub_errors(repository, token, revision=revision) as api:
        info = retry_when_busy(lambda: api.model_info(repository, **options), repository, attempts)
        pinned = re.fullmatch("[0-9a-f]{40}", revision or "")  # an answer about another commit is not one
        commit = expect(info.sha, pinned[0] if pinned else "[0-9a-f]{40}")
        named = {expect(file.rfilename): file for file in info.siblings or ()}
        files = {name: _remote_file(file) for name, file in named.items() if is_inside(name)}
    return Snapshot(repository, commit, bool(info.private), files, token)


def _remote_file(file: Any) -> RemoteFile:
    size = file.lfs.size if file.lfs else file.size
    if type(size) is not int or not 0 <= size < 2**63:
        raise ValueError(f"the size {str(size)[:40]} for {file.rfilename!r}")
    digest = expect(file.lfs.sha256, "[0-9a-f]{64}") if file.lfs else expect(file.blob_id, "[0-9a-f]{40}")
    return RemoteFile(size, digest)


def expect(value: Any, pattern: str = "(?s:.+)") -> str:
    """Return a text that a server gave, if it has the form that it should."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{str(value)[:40]!r} where {pattern} belongs")
    return value


def hub_digest(content: Path | bytes, like: str) -> str:
    """Return the digest of a file as the Hub records it: SHA-256 of a large one, git's SHA-1 of a small one.

    Args:
        content: A regular file, or what is in it.
        like: Such a digest, whose length tells which of the two it is.
    """
    if len(like) == 64:
        return sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
    content = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


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
