"""A Hugging Face Hub on the loopback interface: real HTTP for the real client, with faults on demand.

Two origins, as the real one: the API on `127.0.0.1`, large files on `localhost`. Everything is in memory;
tests read and change `hub.repositories` directly.
"""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from loopback_api import Answer, Api
from loopback_state import Blob, Fault, LoopbackHub, RefusalError, Repository, Request

__all__ = ["Blob", "LoopbackHub", "Repository", "connected", "environment_of", "serve", "use_endpoint", "use_home"]


@contextmanager
def serve() -> Iterator[LoopbackHub]:
    """Run a Hub; `hub.url` is its endpoint."""
    hub = LoopbackHub()
    handler = type("Bound", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url = f"http://127.0.0.1:{servers[0].server_address[1]}"
    hub.large_url = f"http://localhost:{servers[1].server_address[1]}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def use_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let the caches and tokens of this process be in a folder."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "MODELSGENESIS_CACHE", "MODELSGENESIS_CARDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    return folder


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let the client of this process speak to a server."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Run a Hub to which the client of this process speaks; its retries do not wait."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serve() as hub:
        use_endpoint(monkeypatch, hub.url)
        yield hub
        close_session()


def environment_of(hub: LoopbackHub, home: Path) -> dict[str, str]:
    """Return the environment of a process of its own that speaks to a Hub, as alice."""
    client = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_alice"}
    source = str(Path(__file__).parents[1] / "src")
    return {**os.environ, **client, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Handler(Api, BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:  # quiet
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that goes away is part of the tests
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.user = None
        asked = (self.headers[name] for name in ("Authorization", "Range"))
        record = (self.command, url.path, self.headers["Host"].split(":")[0], *asked)
        fault = self._fault(f"{self.command} {url.path}")
        try:
            answer, headers, status = self._before(fault) or self.route(url.path)
        except RefusalError as refusal:
            answer, headers, status = json.dumps({"error": str(refusal)}).encode(), refusal.headers, refusal.status
        except ConnectionAbortedError:
            self.close_connection = True
            self.hub.requests.append(Request(*record))
            return
        self.hub.requests.append(Request(*record, status=status))
        if fault and fault.drop_after:
            self.close_connection = True
            return
        self._send(answer, {**headers, **(fault.headers if fault else {})}, status, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _fault(self, line: str) -> Fault | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    def _before(self, fault: Fault | None) -> Answer | None:
        if fault is None:
            return None
        if fault.call:
            fault.call()
        threading.Event().wait(fault.delay)  # not time.sleep, which tests take away
        if fault.drop:
            raise ConnectionAbortedError
        if fault.body is not None:
            return fault.body, {}, fault.status or 200
        if fault.status:
            raise RefusalError(fault.status, message=fault.message)
        return None

    def _send(self, answer: bytes, headers: dict[str, str], status: int, fault: Fault | None) -> None:
        if fault and fault.corrupt:
            answer = bytes(255 - byte for byte in answer)
        if fault and fault.trickle is not None:
            self.wfile = Trickle(self.wfile, fault.trickle)  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut is not None:
            self.wfile.write(answer[: fault.cut])
            self.close_connection = True
            return
        self.wfile.write(answer)


class Trickle:
    """A connection on which everything after the first bytes comes slowly, one by one."""

    def __init__(self, file: Any, quick: int) -> None:
        self.file, self.quick = file, quick

    def write(self, content: bytes) -> None:
        self.file.write(content[: self.quick])
        for byte in content[self.quick :]:
            self.file.write(bytes([byte]))
            self.file.flush()
            threading.Event().wait(0.05)
        self.quick = max(0, self.quick - len(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
