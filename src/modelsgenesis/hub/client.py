"""What the Hub's client is asked for, and its errors in one line each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from modelsgenesis.errors import AccessError, DigestError, HubError, HubUnreachableError, UnknownModelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done and the bytes in all, while it is downloaded."""

SIGN_IN = "sign in with `hf auth login`, set HF_TOKEN or pass --token"
_BUSY = {429, 500, 502, 503, 504}
_ATTEMPTS = 4  # with waits of 1, 2 and 4 seconds


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub records it at one commit.

    Attributes:
        path: In the repository.
        size: Bytes.
        sha256: Of the content; only large files have one.
        git_sha1: Git's digest of a small file; None for a large one.
    """

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    private: bool
    files: dict[str, RemoteFile]


def api(token: str | None = None) -> "HfApi":
    """Return the client for the endpoint of the environment."""
    from huggingface_hub import HfApi

    from modelsgenesis._version import __version__

    return HfApi(token=token, library_name="modelsgenesis", library_version=__version__)


def endpoint() -> str:
    """Return the address of the Hub in use."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def take_snapshot(
    repository: str,
    revision: str | None,
    token: str | None,
    *,
    timeout: float | None = None,
    patient: bool = True,
) -> Snapshot:
    """Resolve a revision to a commit, and record size and digest of every file at it, in one request.

    Args:
        repository: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        token: None for the environment's.
        timeout: Seconds to connect and to wait for an answer; None for the client's own.
        patient: Whether to try again while the Hub is busy.

    Raises:
        HubError: One of its kinds, as `translated` has them.
    """
    from huggingface_hub import constants

    limit = timeout if timeout is not None else constants.HF_HUB_ETAG_TIMEOUT
    with translated(repository, revision, token):
        info = patiently(
            lambda: api(token).model_info(repository, revision=revision, files_metadata=True, timeout=limit),
            attempts=_ATTEMPTS if patient else 1,
        )
    if info.sha is None or info.siblings is None:
        raise HubError(f"{repository}: {endpoint()} names no commit or files; is it a Hugging Face Hub?")
    files = {
        file.rfilename: RemoteFile(
            file.rfilename,
            (file.lfs.size if file.lfs else file.size) or 0,
            file.lfs.sha256 if file.lfs else None,
            None if file.lfs else file.blob_id,
        )
        for file in info.siblings
    }
    return Snapshot(repository, info.sha, bool(info.private), files)


def patiently(call: Callable[[], T], attempts: int = _ATTEMPTS) -> T:
    """Call again, after growing waits, while the Hub says that it is busy; the client would give up."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(attempts - 1):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
        time.sleep(2**attempt)
    return call()


def is_offline() -> bool:
    """Tell whether the environment forbids connections."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


@contextmanager
def translated(repository: str, revision: str | None = None, token: str | None = None) -> Iterator[None]:
    """Turn what the client raises into this package's errors; no message holds the token.

    Raises:
        UnknownModelError: No such repository, revision or file, or it is private.
        AccessError: The token is missing, wrong, or lacks the rights.
        HubUnreachableError: No connection, no answer in time, offline mode, or the Hub is down.
        DigestError: A download ended short.
        HubError: Anything else that the Hub refused.
    """
    import httpx2  # what huggingface_hub speaks HTTP with, and lets through
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubUnreachableError(
            f"{repository}: offline mode (HF_HUB_OFFLINE) forbids the connection; unset it or download before"
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, repository, revision, token) from error
    except LocalEntryNotFoundError as error:
        raise HubUnreachableError(f"{repository}: {endpoint()} gives no file now, and the cache has none") from error
    except HFValidationError as error:
        raise UnknownModelError(f"{repository}: no name of a repository, expected org/name") from error
    except httpx2.TimeoutException as error:
        raise HubUnreachableError(
            f"{repository}: {endpoint()} did not answer in time; try later, or raise HF_HUB_ETAG_TIMEOUT"
        ) from error
    except httpx2.HTTPError as error:
        raise HubUnreachableError(
            f"{repository}: {endpoint()} cannot be reached ({_line(error)}); check the network or HF_ENDPOINT"
        ) from error
    except OSError as error:
        raise _broken_off(error, repository) from error
    except RuntimeError as error:  # of the transfer of one large file; what went wrong lies behind it
        if not isinstance(error.__cause__, (httpx2.HTTPError, OSError)):
            raise HubUnreachableError(f"{repository}: the transfer broke off ({_line(error)}); repeat it") from error
        with translated(repository, revision, token):
            raise error.__cause__ from error


def _refusal(error: Exception, repository: str, revision: str | None, token: str | None) -> HubError:
    """Return what an HTTP status of the Hub means for a user."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert isinstance(error, HfHubHTTPError)  # noqa: S101  # for the type checker; the caller caught it
    status, url = error.response.status_code, f"{endpoint()}/{repository}"
    signed_in = has_token(token)
    if isinstance(error, GatedRepoError):  # before its parent, RepositoryNotFoundError
        account = "with the account of your token" if signed_in else f"there, then {SIGN_IN}"
        return AccessError(f"{repository}: gated; accept its conditions at {url} {account}")
    if isinstance(error, RepositoryNotFoundError):
        remedy = "ask its owner for access" if signed_in else SIGN_IN
        return UnknownModelError(f"{repository}: not on {endpoint()}, or private; check the name, or {remedy}")
    if isinstance(error, RevisionNotFoundError):
        return UnknownModelError(f"{repository}: has no revision {revision!r}; see {url}/tree/main")
    if isinstance(error, RemoteEntryNotFoundError):
        return UnknownModelError(f"{repository}: has no such file at revision {revision!r}; see {url}/tree/main")
    said = _said(error)
    if status == 401:
        if not signed_in:
            return AccessError(f"{repository}: the Hub wants a token (401); {SIGN_IN}")
        return AccessError(
            f"{repository}: the Hub does not accept the token (401); make a new one in the account's settings"
        )
    if status == 403:
        return AccessError(f"{repository}: the token lacks the rights (403{said}); use one with write access to it")
    if status in _BUSY or status >= 500:
        return HubUnreachableError(f"{repository}: {endpoint()} is busy or down ({status}); try again later")
    return HubError(f"{repository}: {endpoint()} refused ({status}{said}); see {url}")


def _said(error: Exception) -> str:
    said = " ".join(str(getattr(error, "server_message", "") or "").split())
    return f": {said}" if said else ""


def _broken_off(error: OSError, repository: str) -> HubError:
    if "Consistency check failed" in str(error):
        return DigestError(f"{repository}: the download ended short and was thrown away; try again")
    return HubError(f"{repository}: the transfer broke off ({_line(error)}); check space and rights under HF_HOME")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def has_token(token: str | None) -> bool:
    """Tell whether a request would carry a token."""
    from huggingface_hub import get_token

    return bool(token or get_token())
