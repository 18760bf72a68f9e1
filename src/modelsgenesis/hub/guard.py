"""Checks of what a server says, before the Hub's client acts on it, and limits on what it may cost.

The client writes to paths that it makes of a server's headers, follows any redirect, and reads for as long as a server
sends. Hooks on its HTTP session look at each request and each answer of a call of ours, and at no other's.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, get_token, set_client_factory
from huggingface_hub.utils import _http

from modelsgenesis.errors import ConfigurationError, HubError
from modelsgenesis.files import reason_of

# What the client speaks HTTP with: `httpx2`, and `httpx` before its second major version.
httpx: Any = vars(_http).get("httpx2") or vars(_http)["httpx"]

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
SIGN_IN = "sign in with `hf auth login`, set HF_TOKEN or pass --token"

PATIENCE = 60.0  # seconds that an answer may take, and one more for each `_SLOWEST` bytes that have come
_SLOWEST = 1000
_REQUESTS = 500  # that one call may lead to, its uploads aside: some of the client's retries have no end of their own
_LONGEST_WAIT = 300  # seconds that a busy server may ask for

_ETAG = re.compile(r'(?:W/)?"?(?:[0-9a-f]{40}|[0-9a-f]{64})"?')  # git's SHA-1 of a small file, SHA-256 of a large one

_INSTALLING = threading.Lock()


@dataclass
class Call:
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
_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def guarding(call: Call) -> Iterator[None]:
    """Check what servers say while the block runs in this thread.

    Raises:
        ConfigurationError: The environment has an address, a proxy or certificates that cannot be.
    """
    endpoint()
    with _INSTALLING:
        factory = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001 - a user's own, which is kept
        if not isinstance(factory, _GuardedSessions):
            set_client_factory(_GuardedSessions(factory))
    try:
        _http.get_session()
    except Exception as problem:  # of a proxy or of certificates, of any type
        names, why = f"{', '.join(PROXIES)}, NO_PROXY or SSL_CERT_FILE", redacted(reason_of(problem))
        raise ConfigurationError(f"{names} cannot be used: {why}; correct or unset it") from problem
    for name in ("utils._http", "file_download", "hf_api", "_commit_api", "lfs"):
        logging.getLogger(f"huggingface_hub.{name}").addFilter(_shorten)
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


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
        raise no_hub(call.repository, f"in a circle, {_REQUESTS} requests long")
    if request.url.scheme not in _schemes():
        raise no_hub(call.repository, f"with a way to {str(request.url)[:200]}")
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
    elif response.request.method == "HEAD":
        strange = _strange_file(call, response)
    if strange:
        raise no_hub(call.repository, strange)
    asked = re.findall(r"\d+", f"{headers.get('Retry-After', '')} {headers.get('RateLimit', '').partition(';t=')[2]}")
    if response.status_code >= 400 and asked and (len(asked[0]) > 9 or int(asked[0]) > _LONGEST_WAIT):
        busy = f"{call.repository}: {endpoint()} is busy for {asked[0][:20]} s; try again later"
        raise HubError(busy, "unreachable")
    answer = response.request.extensions["answer"]
    answer.stream, response.stream = response.stream, answer


def _strange_file(call: Call, response: Any) -> str:
    """Return what is wrong with the description of a file, from whose headers the client makes paths."""
    headers, to = response.headers, urlsplit(response.headers.get("Location", "https:"))
    commit = headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    etag = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG) or headers.get("ETag") or ""
    if commit not in (None, call.revision):
        return f"for the commit {commit[:50]!r}"
    followed = response.has_redirect_location and not (to.scheme or to.netloc)
    unused = not etag or followed or response.status_code >= 400  # the client makes no path of it
    return "" if unused or _ETAG.fullmatch(etag) else f"with the ETag {etag[:50]!r}, not a digest"


def no_hub(repository: str, how: str) -> HubError:
    """Return the error for an answer that a Hub does not give."""
    return HubError(
        f"{repository}: {endpoint()} answers {redacted(how)}, as no Hugging Face Hub does; check HF_ENDPOINT, the "
        "proxy, and whether the network first wants you to sign in on a page of its own"
    )


class _Answer(httpx.SyncByteStream):
    """What one answer may cost: the session asks it for the timeout of each read, then reads the body through it.

    A timeout that is a number begins anew with every byte, so that a server could send one now and then for ever.
    """

    def __init__(self, call: Call, pause: float) -> None:
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
                raise no_hub(self.call.repository, f"with more than {self.call.limit:,} bytes")
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
    for name in ("HF_ENDPOINT", *PROXIES, *map(str.lower, PROXIES)):
        # A password may hold a slash or an @, which no pattern for an address in a longer text can know.
        login = os.environ.get(name, "").rpartition("@")[0].partition("://")[2]
        text = text.replace(f"{login}@", "***@") if login else text
    return re.sub(r"\b(hf_|Bearer )\w+", r"\1***", re.sub(r"://[^/\s@]*@", "://***@", text))
