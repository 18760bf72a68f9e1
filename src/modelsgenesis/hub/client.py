"""What the Hub's client is asked for, and its errors in one line each."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modelsgenesis.errors import (
    AccessError,
    GenesisError,
    HubError,
    HubUnreachableError,
    PublishError,
    UnknownModelError,
)
from modelsgenesis.files import TEXT_LIMIT, reason_of
from modelsgenesis.hub.environment import SIGN_IN, client_settings, endpoint, redacted, token_of
from modelsgenesis.hub.registry import is_inside

# Called with a file's name, the bytes done and the bytes in all, while it is downloaded.
Progress = Callable[[str, int, int | None], None]

_BUSY = {429, 500, 502, 503, 504}
_ATTEMPTS = 4  # with waits of 1, 2 and 4 seconds
_QUICK = 1.25  # seconds to connect, and to wait, when there is something to fall back on


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


@contextmanager
def speaking(
    repository: str, token: str | None = None, *, revision: str | None = None, limit: int = TEXT_LIMIT
) -> Iterator[Any]:
    """Give the client; what servers say is checked, and whatever it raises becomes one line of this package.

    Args:
        repository: `org/name`.
        token: None for the environment's.
        revision: Branch, tag or commit; files are only taken from a commit.
        limit: Bytes that an answer may have.

    Raises:
        UnknownModelError: No such repository, revision or file, or it is private.
        AccessError: The token is missing, wrong, or lacks the rights.
        HubUnreachableError: No connection, no answer in time, offline mode, or the Hub is down.
        HubError: Anything else that the Hub refused, or an answer that no Hub gives.
        ConfigurationError: The environment names an endpoint, a proxy or a limit that cannot be.
    """
    sent = token_of(token)
    from huggingface_hub import HfApi

    from modelsgenesis._version import __version__
    from modelsgenesis.hub.guard import Call, guarding

    with guarding(Call(repository, revision, limit)):
        try:
            yield HfApi(token=sent if token else None, library_name="modelsgenesis", library_version=__version__)
        except GenesisError:
            raise
        except Exception as error:  # of any type: the client trusts what a server answers
            raise _explained(error, repository, revision, signed_in=bool(sent)) from error


def take_snapshot(repository: str, revision: str | None, token: str | None, *, quick: bool = False) -> Snapshot:
    """Resolve a revision to a commit, and record size and digest of every file at it, in one request.

    Args:
        repository: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        token: None for the environment's.
        quick: Whether to give up at once when the Hub is slow or busy.

    Raises:
        HubError: One of its kinds, as `speaking` has them.
    """
    timeout, attempts = (_QUICK, 1) if quick else (client_settings().HF_HUB_ETAG_TIMEOUT, _ATTEMPTS)
    options: Any = {"revision": revision, "files_metadata": True, "timeout": timeout}
    with speaking(repository, token, revision=revision) as api:
        info = patiently(lambda: api.model_info(repository, **options), repository, attempts)
        pinned = re.fullmatch("[0-9a-f]{40}", revision or "")  # an answer about another commit is none
        commit = expected(info.sha, pinned[0] if pinned else "[0-9a-f]{40}")
        files = {
            file.rfilename: _remote_file(file) for file in info.siblings or () if is_inside(expected(file.rfilename))
        }
    return Snapshot(repository, commit, bool(info.private), files)


def _remote_file(file: Any) -> RemoteFile:
    size = file.lfs.size if file.lfs else file.size
    if type(size) is not int or not 0 <= size < 2**63:
        raise ValueError(f"the size {str(size)[:40]} for {file.rfilename!r}")
    digest = expected(file.lfs.sha256, "[0-9a-f]{64}") if file.lfs else expected(file.blob_id, "[0-9a-f]{40}")
    return RemoteFile(size, digest)


def expected(value: Any, pattern: str = "(?s:.+)") -> str:
    """Return a text that a server gave, if it has the form that it should."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{str(value)[:40]!r} where {pattern} belongs")
    return value


def patiently(call: Callable[[], Any], repository: str, attempts: int = _ATTEMPTS) -> Any:
    """Call again, after growing waits, while the Hub says that it is busy; the client would give up."""
    from huggingface_hub.errors import HfHubHTTPError

    from modelsgenesis.hub.guard import say_again

    for attempt in range(attempts - 1):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            say_again(repository, str(error.response.status_code), 2**attempt)
        time.sleep(2**attempt)
    return call()


def _explained(error: Exception, repository: str, revision: str | None, *, signed_in: bool) -> GenesisError:
    """Return what an exception of the client means for a user."""
    from huggingface_hub import errors

    from modelsgenesis.hub.guard import httpx, no_hub

    if isinstance(error, GenesisError):
        return error
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error, repository, revision, signed_in=signed_in)
    if isinstance(error, (RuntimeError, errors.LocalEntryNotFoundError)) and isinstance(error.__cause__, Exception):
        return _explained(error.__cause__, repository, revision, signed_in=signed_in)  # why lies behind it
    reason, hub, down = redacted(reason_of(error)), endpoint(), HubUnreachableError
    if "Consistency check failed" in str(error):
        return down(f"{repository}: the download ended short and was thrown away; try again")
    meanings: dict[Any, tuple[type[HubError], str]] = {
        errors.OfflineModeIsEnabled: (down, "offline mode (HF_HUB_OFFLINE) forbids it; unset it or download before"),
        errors.HFValidationError: (UnknownModelError, "no name of a repository, expected org/name"),
        httpx.TimeoutException: (down, f"{hub} did not answer in time; try later, or raise HF_HUB_ETAG_TIMEOUT"),
        httpx.HTTPError: (down, f"{hub} cannot be reached ({reason}); check the network, HF_ENDPOINT and the proxy"),
        RuntimeError: (down, f"the transfer broke off ({reason}); repeat it"),  # of one large file
        OSError: (HubError, f"the transfer broke off ({reason}); check space and rights under HF_HOME"),
    }
    for kind, (meaning, text) in meanings.items():
        if isinstance(error, kind) and not isinstance(error, (errors.FileMetadataError, RecursionError)):
            return meaning(f"{repository}: {text}")
    return no_hub(repository, f"what cannot be understood ({reason})")


def _refusal(error: Any, repository: str, revision: str | None, *, signed_in: bool) -> HubError:
    """Return what an HTTP status of the Hub means for a user."""
    from huggingface_hub import errors

    status, hub = error.response.status_code, endpoint()
    url = f"{hub}/{repository}"
    words = " ".join(redacted(str(getattr(error, "server_message", None) or ""))[:300].split())
    said = f"{status}: {words}" if words else f"{status}"
    account = "with the account of your token" if signed_in else f"there, then {SIGN_IN}"
    unknown = f"not on {hub}, or private; check the name, or {'ask its owner for access' if signed_in else SIGN_IN}"
    refused = f"the Hub does not accept the token ({said}); make a new one in the account's settings"
    moved = f"another push made or changed it meanwhile ({said}); see {url}/commits, or choose another --hub-model-id"
    kind = type(error)
    meanings = (  # the first that holds; a gated repository is one that is not found, too
        (kind is errors.GatedRepoError, AccessError, f"gated; accept its conditions at {url} {account}"),
        (issubclass(kind, errors.RepositoryNotFoundError), UnknownModelError, unknown),
        (kind is errors.RevisionNotFoundError, UnknownModelError, f"has no revision {revision!r}; see {url}/tree/main"),
        (kind is errors.RemoteEntryNotFoundError, UnknownModelError, f"has no such file; see {url}/tree/main"),
        (status == 401, AccessError, refused if signed_in else f"the Hub wants a token ({status}); {SIGN_IN}"),
        (status == 403, AccessError, f"the token lacks the rights ({said}); use one with write access to it"),
        (status in (409, 412), PublishError, moved),
        (status in _BUSY or status >= 500, HubUnreachableError, f"{hub} is busy or down ({status}); try again later"),
        (True, HubError, f"{hub} refused ({said}); see {url}"),
    )
    return next(meaning(f"{repository}: {text}") for holds, meaning, text in meanings if holds)
