"""The Hub's client as this package uses it: errors in one line each, a repository at one commit, verified files.

The client writes to paths that it makes of a server's headers, follows any redirect, and reads for as long as a server
sends. Hooks on its HTTP session look at each request and each answer of a call of ours, and at no other's.
"""

import io
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, errors, get_token, set_client_factory
from huggingface_hub.utils import _http
from huggingface_hub.utils.sha import git_hash

from modelsgenesis._version import __version__
from modelsgenesis.errors import CheckpointError, ConfigurationError, GenesisError, HubError, HubFailure, require
from modelsgenesis.files import TEXT_LIMIT, reason_of, sha256_of
from modelsgenesis.hub.registry import Progress

# What the client speaks HTTP with: `httpx2`, and `httpx` before its second major version.
httpx: Any = vars(_http).get("httpx2") or vars(_http)["httpx"]

SIGN_IN = "sign in with `hf auth login` or set HF_TOKEN"
PATIENCE = 60.0  # seconds that an answer may take, and one more for each `_SLOWEST` bytes that have come

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SLOWEST = 1000
_REQUESTS = 500  # that one call may lead to, its uploads aside: some of the client's retries have no end of their own
_LONGEST_WAIT = 300  # seconds that a busy server may ask for
_BUSY = {429, 500, 502, 503, 504}
_ATTEMPTS = 4  # with waits of 1, 2 and 4 seconds
_QUICK = 1.25  # seconds to connect, and to wait, when there is something to fall back on
_SLACK = 1 << 20  # bytes that an answer may have beside a file, such as a page that says why there is none
_ETAG = re.compile(r'(?:W/)?"?(?:[0-9a-f]{40}|[0-9a-f]{64})"?')  # git's SHA-1 of a small file, SHA-256 of a large one


# --- what a server says --------------------------------------------------------------------------------------


@dataclass
class _Call:
    """A call of ours to the client.

    Attributes:
        repository: `org/name`.
        revision: The commit that files must come from, if any are asked for.
        limit: Bytes that an answer may have.
        requests: How many it has led to.
    """

    repository: str
    revision: str | None
    limit: int
    requests: int = 0


# The hooks are shared by all threads: a context variable tells them whose request they see.
_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)
_INSTALLING = threading.Lock()


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
    endpoint()
    sent = token_of(token)
    with _INSTALLING:
        factory = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001 - a user's own, which is kept
        if not isinstance(factory, _GuardedSessions):
            set_client_factory(_GuardedSessions(factory))
    try:
        _http.get_session()
    except Exception as problem:  # of a proxy or of certificates, of any type
        names, why = f"{', '.join(_PROXIES)}, NO_PROXY or SSL_CERT_FILE", redacted(reason_of(problem))
        raise ConfigurationError(f"{names} cannot be used: {why}; correct or unset it") from problem
    for name in ("utils._http", "file_download", "hf_api", "_commit_api", "lfs"):
        logging.getLogger(f"huggingface_hub.{name}").addFilter(_shorten)
    call = _CALL.set(_Call(repository, revision, limit))
    try:
        yield HfApi(token=sent if token else None, library_name="modelsgenesis", library_version=__version__)
    except GenesisError:
        raise
    except Exception as error:  # of any type: the client trusts what a server answers
        raise _explain(error, repository, revision, signed_in=bool(sent)) from error
    finally:
        _CALL.reset(call)


@dataclass(frozen=True)
class _GuardedSessions:
    """Makes HTTP sessions with our hooks: the client asks for a new one after some failures."""

    factory: Callable[[], Any]

    def __call__(self) -> Any:
        session = self.factory()
        session.event_hooks["request"].append(_check_request)
        session.event_hooks["response"].append(_check_response)
        return session


def _check_request(request: Any) -> None:
    """Refuse a way that leads nowhere, and set the limits of time."""
    if (call := _CALL.get()) is None:
        return
    call.requests += request.method != "PUT"
    if call.requests > _REQUESTS:
        raise _no_hub(call.repository, f"in a circle, {_REQUESTS} requests long")
    if request.url.scheme not in _schemes():
        raise _no_hub(call.repository, f"with a way to {str(request.url)[:200]}")
    request.headers["Accept-Encoding"] = "identity"  # a few bytes of gzip can be gigabytes
    limits = {name: second or PATIENCE for name, second in request.extensions["timeout"].items()}
    answer = request.extensions.setdefault("answer", _Answer(call, limits["read"]))  # one for all redirects
    if request.method != "PUT":  # whose body can take hours, through a proxy after the first byte of an answer
        limits["read"] = answer
    request.extensions["timeout"] = limits


def _schemes() -> tuple[str, ...]:
    """Return how a request may go: never less safely than to the Hub itself."""
    return ("https",) if urlsplit(constants.ENDPOINT).scheme == "https" else ("http", "https")


def _check_response(response: Any) -> None:
    """Refuse what no Hub says, and limit what is read of the rest."""
    if (call := _CALL.get()) is None:
        return
    headers, strange = response.headers, ""
    storage = headers.get(constants.HUGGINGFACE_HEADER_X_XET_ENDPOINT, constants.ENDPOINT)
    page = "html" in headers.get("Content-Type", "") and headers.get("Content-Length") != "0"
    if response.is_success and page:
        strange = "with a web page"
    elif headers.get("Content-Encoding", "identity") != "identity":
        strange = "compressed, though it was asked not to"
    elif storage.partition(":")[0] not in _schemes():
        strange = "with a storage that is not on the network"
    elif response.request.method == "HEAD":  # of a file: the client makes paths of its commit and its ETag
        commit = headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
        etag = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG) or headers.get("ETag") or ""
        to = urlsplit(headers.get("Location", "https:"))
        unused = response.status_code >= 400 or (response.has_redirect_location and not (to.scheme or to.netloc))
        if commit not in (None, call.revision):
            strange = f"for the commit {commit[:50]!r}"
        elif etag and not unused and not _ETAG.fullmatch(etag):
            strange = f"with the ETag {etag[:50]!r}, not a digest"
    if strange:
        raise _no_hub(call.repository, strange)
    asked = re.findall(r"\d+", f"{headers.get('Retry-After', '')} {headers.get('RateLimit', '').partition(';t=')[2]}")
    if response.status_code >= 400 and asked and (len(asked[0]) > 9 or int(asked[0]) > _LONGEST_WAIT):
        busy = f"{call.repository}: {endpoint()} is busy for {asked[0][:20]} s; try again later"
        raise HubError(busy, "unreachable")
    answer = response.request.extensions["answer"]
    answer.stream, response.stream = response.stream, answer


class _Answer(httpx.SyncByteStream):
    """What one answer may cost: the session asks it for the timeout of each read, then reads the body through it.

    A timeout that is a number begins anew with every byte, so that a server could send one now and then for ever.
    """

    def __init__(self, call: _Call, pause: float) -> None:
        self.call, self.pause, self.begin = call, pause, time.monotonic()
        self.received, self.stream = 0, ()

    def __index__(self) -> int:
        left = PATIENCE + self.received / _SLOWEST - (time.monotonic() - self.begin)
        if left <= 0:
            slow = f"{self.call.repository}: {endpoint()} answers too slowly; try again later"
            raise HubError(slow, "unreachable")
        return max(1, math.ceil(min(left, self.pause)))

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.stream:
            self.received += len(chunk)
            if self.received > self.call.limit:
                raise _no_hub(self.call.repository, f"with more than {self.call.limit:,} bytes")
            yield chunk

    def close(self) -> None:
        self.stream.close()  # pyright: ignore[reportAttributeAccessIssue]


def _shorten(record: logging.LogRecord) -> bool:
    """Put one printable line of ours in place of a warning of the client, without the signatures of addresses."""
    call = _CALL.get()
    if call is None or record.levelno < logging.WARNING:
        return True
    said = redacted(reason_of(Exception(re.sub(r"\?\S+", "", record.getMessage()))))
    logging.getLogger(__name__).warning("%s: %s", call.repository, said)
    return False


def endpoint() -> str:
    """Return the address of the Hub in use, to be shown.

    Raises:
        ConfigurationError: `HF_ENDPOINT` is not an address.
    """
    shown = redacted(constants.ENDPOINT)
    if not re.fullmatch(r"https?://[^\s?#]+", constants.ENDPOINT):
        raise ConfigurationError(f"HF_ENDPOINT: received {shown!r}, expected https:// and a host; correct or unset it")
    return shown


def token_of(token: str | None) -> str:
    """Return the token that a request carries, a given one or the environment's; empty when there is none.

    Raises:
        HubError: It holds what no header of a request can.
    """
    try:
        sent = (token or get_token() or "").strip()
    except (OSError, ValueError) as error:  # of the file that keeps it
        raise HubError(f"the stored token cannot be read: {reason_of(error)}; {SIGN_IN}", "denied") from error
    if not re.fullmatch(r"[!-~]*", sent):
        said = "the token holds blanks or characters outside of ASCII; copy it again where it was made"
        raise HubError(said, "denied")
    return sent


def redacted(text: str) -> str:
    """Return text without the passwords of addresses and without tokens; what the client says passes through here."""
    token = os.environ.get("HF_TOKEN", "").strip()
    text = text.replace(token, "***") if len(token) > 7 else text
    for name in ("HF_ENDPOINT", *_PROXIES, *map(str.lower, _PROXIES)):
        # A password may hold a slash or an @, which no pattern for an address in a longer text can know.
        login = os.environ.get(name, "").rpartition("@")[0].partition("://")[2]
        text = text.replace(f"{login}@", "***@") if login else text
    return re.sub(r"\b(hf_|Bearer )\w+", r"\1***", re.sub(r"://[^/\s@]*@", "://***@", text))


# --- what an exception of the client means -------------------------------------------------------------------


def _no_hub(repository: str, how: str) -> HubError:
    """Return the error for an answer that a Hub does not give."""
    return HubError(
        f"{repository}: {endpoint()} answers {redacted(how)}, as no Hugging Face Hub does; check HF_ENDPOINT, the "
        "proxy, and whether the network first wants you to sign in on a page of its own"
    )


def _explain(error: Exception, repository: str, revision: str | None, *, signed_in: bool) -> GenesisError:
    """Return what an exception of the client means for a user."""
    while isinstance(error, (RuntimeError, errors.LocalEntryNotFoundError)) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why lies behind it
    if isinstance(error, GenesisError):
        return error
    answered = isinstance(error, errors.HfHubHTTPError)
    meanings = _refusals(error, repository, revision, signed_in) if answered else _failures(error)
    for holds, kind, text in meanings:
        if holds:
            return HubError(f"{repository}: {text}", kind)
    return _no_hub(repository, f"what cannot be understood ({reason_of(error)})")


_Meanings = Iterator[tuple[bool, HubFailure, str]]  # the first that holds counts


def _refusals(error: Any, repository: str, revision: str | None, signed_in: bool) -> _Meanings:
    """Yield what an answer of the Hub may mean, by its status and the client's class for it."""
    status, hub, kind = error.response.status_code, endpoint(), type(error)
    url = f"{hub}/{repository}"
    words = " ".join(redacted(str(getattr(error, "server_message", None) or ""))[:300].split())
    said = f"{status}: {words}" if words else f"{status}"
    hint = "ask its owner for access" if signed_in else SIGN_IN
    # A gated repository is a subclass of one that is not found.
    gated = f"gated; accept its conditions at {url} with the account of your token, or {SIGN_IN}"
    yield kind is errors.GatedRepoError, "denied", gated
    unknown = issubclass(kind, errors.RepositoryNotFoundError)
    yield unknown, "unknown", f"not on {hub}, or private; check the name, or {hint}"
    yield kind is errors.RevisionNotFoundError, "unknown", f"has no revision {revision!r}; see {url}/tree/main"
    yield kind is errors.RemoteEntryNotFoundError, "unknown", f"has no such file; see {url}/tree/main"
    yield status == 401, "denied", f"the Hub does not accept the token, or wants one ({said}); {SIGN_IN}"
    yield status == 403, "denied", f"the token lacks the rights ({said}); use one with write access to it"
    moved = f"another push made or changed it meanwhile ({said}); see {url}/commits, or choose another repository"
    yield status in (409, 412), "conflict", moved
    yield status >= 500 or status in _BUSY, "unreachable", f"{hub} is busy or down ({status}); try again later"
    yield True, "other", f"{hub} refused ({said}); see {url}"


def _failures(error: Exception) -> _Meanings:
    """Yield what the end of a call without an answer may mean; nothing holds where an answer makes no sense."""
    hub, reason = endpoint(), redacted(reason_of(error))
    yield "Consistency check failed" in str(error), "unreachable", "it ended short and was thrown away; try again"
    offline = "offline mode (HF_HUB_OFFLINE) forbids it; unset it or download before"
    yield isinstance(error, errors.OfflineModeIsEnabled), "unreachable", offline
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


# --- files ---------------------------------------------------------------------------------------------------


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
class Snapshot:
    """A repository at one commit.

    Attributes:
        repository: `org/name`.
        commit: The commit.
        private: Whether only its owners see it.
        files: Size in bytes and digest, see `hub_digest`, of each file whose name stays inside of the repository.
        token: None for the environment's.
    """

    repository: str
    commit: str
    private: bool
    files: dict[str, tuple[int, str]]
    token: str | None = field(repr=False)

    def download(
        self,
        file: str,
        limit: int,
        *,
        pin: str | None = None,
        progress: Progress | None = None,
        cache_dir: str | Path | None = None,
        force: bool = False,
    ) -> Path:
        """Return a file in the client's own cache, with the digest `pin`, else with that of the Hub's record.

        Args:
            file: Its path in the repository.
            limit: Bytes that it may have.
            pin: The SHA-256 that it must have.
            progress: Called with the file, the bytes done and the bytes in all.
            cache_dir: Where it goes; None for the client's own cache.
            force: Download it even if it is there.

        Raises:
            CheckpointError: It is not in the repository, or too large.
            HubError: It could not be downloaded, or has another digest.
        """
        where = f"{self.repository}/{file}"
        require(file in self.files, CheckpointError, f"{where}: not in the repository at commit {self.commit[:12]}")
        size, digest = self.files[file]
        too_large = f"{where}: has {size:,} bytes, expected at most {limit:,}; it was not read"
        require(size <= limit, CheckpointError, too_large)
        expected, found = pin or digest, ""
        other = f"{where}: the Hub has SHA-256 {digest[:12]}…, its card pins {expected[:12]}…; nothing was downloaded"
        require(len(digest) != len(expected) or digest == expected, HubError, other)
        options: Any = {"revision": self.commit, "tqdm_class": _bar(file, progress), "cache_dir": cache_dir}
        with hub_errors(self.repository, self.token, revision=self.commit, limit=size + _SLACK) as api:
            get = partial(api.hf_hub_download, self.repository, file, **options)
            for anew in (force, True):  # what lies in the cache may be altered, or put there unchecked by others
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
    timeout, attempts = (_QUICK, 1) if quick else (constants.HF_HUB_ETAG_TIMEOUT, _ATTEMPTS)
    options: Any = {"revision": revision, "files_metadata": True, "timeout": timeout}
    files: dict[str, tuple[int, str]] = {}
    with hub_errors(repository, token, revision=revision) as api:
        info = retry_when_busy(lambda: api.model_info(repository, **options), repository, attempts)
        pinned = re.fullmatch("[0-9a-f]{40}", revision or "")  # an answer about another commit is not one
        commit = expect(info.sha, pinned[0] if pinned else "[0-9a-f]{40}")
        for file in info.siblings or ():
            size = file.lfs.size if file.lfs else file.size
            if type(size) is not int or not 0 <= size < 2**63:
                raise ValueError(f"the size {str(size)[:40]} for {file.rfilename!r}")
            digest = expect(file.lfs.sha256, "[0-9a-f]{64}") if file.lfs else expect(file.blob_id, "[0-9a-f]{40}")
            if is_inside(expect(file.rfilename)):
                files[file.rfilename] = (size, digest)
    return Snapshot(repository, commit, bool(info.private), files, token)


def is_inside(path: str) -> bool:
    """Tell whether a path from a server stays inside its folder on every system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not (path.startswith("/") or "\\" in path or ":" in path or ".." in parts)


def expect(value: Any, pattern: str = "(?s:.+)") -> str:
    """Return a text that a server gave, if it has the form that it should."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{str(value)[:40]!r} where {pattern} belongs")
    return value


def hub_digest(path: Path, like: str) -> str:
    """Return the digest of a file as the Hub records it: SHA-256 of a large one, git's SHA-1 of a small one.

    Args:
        path: The file.
        like: Such a digest, whose length tells which of the two it is.
    """
    return sha256_of(path) if len(like) == 64 else git_hash(path.read_bytes())


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
