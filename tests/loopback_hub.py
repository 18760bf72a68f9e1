"""A Hugging Face Hub on the loopback interface: real HTTP for the real client, with faults on demand.

Two origins, as the real one: the API on `127.0.0.1`, large files on `localhost`. Everything is in memory;
tests read and change `hub.repositories` directly.
"""

import json
import re
import threading
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import close_session

from loopback_api import Api
from loopback_state import Blob as Blob
from loopback_state import Fault, LoopbackHub, RefusalError, Request


@contextmanager
def connected(monkeypatch):
    """Run a Hub to which the client of this process speaks; its retries do not wait."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub = LoopbackHub()
    handler = type("Bound", (Handler,), {"hub": hub})
    with ExitStack() as stack:
        servers = [stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler)) for _ in range(2)]
        for server in servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,)).start()
            stack.callback(server.shutdown)
        hub.url, hub.large_url = (
            f"http://{host}:{server.server_address[1]}"
            for host, server in zip(("127.0.0.1", "localhost"), servers, strict=True)
        )
        use_endpoint(monkeypatch, hub.url)
        yield hub
        close_session()


def use_endpoint(monkeypatch, url):
    """Let the client of this process speak to a server."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


class Handler(Api, BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other
    disable_nagle_algorithm = True

    def log_message(self, *_):  # quiet
        pass

    def handle(self):
        with suppress(ConnectionError):  # a client that goes away is part of the tests
            super().handle()

    def finish(self):
        with suppress(ConnectionError):
            super().finish()

    def _handle(self):
        url = urlsplit(self.path)
        self.query, self.user = parse_qs(url.query), None
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        host, fault = self.headers["Host"].split(":")[0], self._next_fault(f"{self.command} {url.path}")
        self.hub.requests.append(
            Request(self.command, url.path, host, self.headers["Authorization"], self.headers["Range"])
        )
        fault.call()
        threading.Event().wait(fault.delay)  # not time.sleep, which tests take away
        self.close_connection |= fault.drop or fault.drop_after
        if fault.drop:
            return
        try:
            answer, headers, status = self._answer(fault, url.path)
        except RefusalError as refusal:
            answer, headers, status = json.dumps({"error": str(refusal)}).encode(), refusal.headers, refusal.status
        if not fault.drop_after:
            self._send(answer, {**headers, **fault.headers}, status, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _answer(self, fault, path):
        if fault.body is not None:
            return fault.body, {}, fault.status or 200
        if fault.status:
            raise RefusalError(fault.status, message=fault.message)
        return self.route(path)

    def _next_fault(self, line):
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return Fault("")

    def _send(self, answer, headers, status, fault):
        if fault.corrupt:
            answer = bytes(255 - byte for byte in answer)
        if fault.trickle is not None:
            self.wfile = Trickle(self.wfile, fault.trickle)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[: fault.cut])
            self.close_connection |= fault.cut is not None


class Trickle:
    """A connection on which everything after the first bytes comes slowly, one by one."""

    def __init__(self, file, quick):
        self.file, self.quick = file, quick

    def write(self, content):
        self.file.write(content[: self.quick])
        for byte in content[self.quick :]:
            self.file.write(bytes([byte]))
            self.file.flush()
            threading.Event().wait(0.05)
        self.quick = max(0, self.quick - len(content))

    def __getattr__(self, name):
        return getattr(self.file, name)
