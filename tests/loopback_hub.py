"""A Hugging Face Hub on the loopback interface: real HTTP for the real client, with faults on demand.

Two origins, as the real one: the API on `127.0.0.1`, large files on `localhost`. Everything is in memory;
tests read and change `hub.repositories` directly.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import hf_xet
import yaml
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import close_session

LARGE = 4096  # bytes from which a file goes the way of large files; so does every .safetensors, .pt, .h5 …
LARGE_SUFFIXES = (".safetensors", ".pt", ".pth", ".h5", ".model", ".png")


@dataclass(frozen=True)
class Blob:
    """A file at a commit."""

    content: bytes
    lfs: bool = False
    claimed_size: int | None = None

    @property
    def size(self):
        return len(self.content) if self.claimed_size is None else self.claimed_size

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_sha1(self):
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def oid(self):
        return self.sha256 if self.lfs else self.git_sha1


@dataclass
class Repository:
    """Commits and branches; `heads` maps a branch to a commit, `commits` a commit to its files."""

    private: bool = False
    gated: bool = False
    heads: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)

    def commit(self, files, branch="main"):
        parent = self.heads.get(branch)
        listing = sorted((path, blob.sha256) for path, blob in files.items())
        oid = hashlib.sha1(f"{parent}{listing}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.parents[oid] = dict(files), parent
        self.heads[branch] = oid
        return oid

    @property
    def files(self):
        return self.commits[self.heads["main"]]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose `METHOD /path` matches `pattern`."""

    pattern: str
    times: int = 1
    status: int | None = None  # answer with this
    message: str = ""
    cut: int | None = None  # close the connection after so many bytes of the body
    corrupt: bool = False  # another content of the right size
    delay: float = 0.0  # seconds before the answer
    drop: bool = False  # close the connection without an answer
    drop_after: bool = False  # do what was asked, then close the connection without an answer
    call: Callable[[], object] = lambda: None  # before the answer
    body: bytes | None = None  # answer with this instead
    headers: dict[str, str] = field(default_factory=dict)  # over those of the answer
    trickle: int | None = None  # after so many bytes of the whole answer, one byte in 50 ms


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, status, code="", message="", **headers):
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        super().__init__(message or code)


class LoopbackHub:
    """The state of the Hub and its two servers."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # large files by SHA-256
        self.users: dict[str, dict[str, Any]] = {}  # by token
        for name, role in (("alice", "write"), ("bob", "write"), ("reader", "read"), ("stranger", "write")):
            orgs = [] if name == "stranger" else ["clinic"]
            self.users[f"hf_{name}"] = {"name": name, "role": role, "orgs": orgs, "granted": set()}
        self.requests: list[SimpleNamespace] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.xet: Path | None = None  # the folder of chunks; without it large files go the way of git-lfs
        self.xet_hashes: dict[str, str] = {}  # by SHA-256; the real storage finds them in what was uploaded
        self.url = self.large_url = ""

    def fault(self, pattern, **what):
        self.faults.append(Fault(pattern, **what))

    def add(self, name, files, *, branch="main", **options):
        """Put files into a repository without the client, in one commit."""
        repository = self.repositories.setdefault(name, Repository(**options))
        now = repository.commits.get(repository.heads.get(branch, ""), {})
        blobs = {path: Blob(content, is_large(path, len(content))) for path, content in files.items()}
        self.large |= {blob.sha256: blob.content for blob in blobs.values() if blob.lfs}
        repository.commit({**now, **blobs}, branch)
        return repository

    def read_xet(self, sha256, size):
        """Put a file together from its chunks, as the storage does."""
        target = f"{self.xet}/read-{sha256}"
        store = {"endpoint": f"local://{self.xet}", "token": "xet", "token_expiry_unix_secs": int(time.time()) + 3600}
        with hf_xet.XetSession().new_file_download_group(**store) as group:
            group.start_download_file(hf_xet.XetFileInfo(self.xet_hashes[sha256], size), target)
        return Path(target).read_bytes()

    def count(self, pattern):
        return sum(bool(re.search(pattern, f"{r.method} {r.path}")) for r in self.requests)


def is_large(path, size):
    """Tell whether git-lfs keeps a file; text stays in git, as on the Hub, where its limit is 10 MB."""
    return path.endswith(LARGE_SUFFIXES) or (size >= LARGE and not path.endswith((".md", ".json")))


class Handler(BaseHTTPRequestHandler):
    """One connection, and the answers of the API."""

    hub: LoopbackHub
    query: dict[str, list[str]]
    body: bytes
    user: dict[str, Any] | None
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
        sent = {"authorization": self.headers["Authorization"], "range": self.headers["Range"]}
        self.hub.requests.append(SimpleNamespace(method=self.command, path=url.path, origin=host, **sent))
        fault.call()
        threading.Event().wait(fault.delay)  # not time.sleep, which tests take away
        self.close_connection |= fault.drop or fault.drop_after
        if fault.drop:
            return
        try:
            given = (fault.body, {}, fault.status or 200)
            answer, headers, status = self.route(url.path, fault) if fault.body is None else given
        except RefusalError as refusal:
            answer, headers, status = json.dumps({"error": str(refusal)}).encode(), refusal.headers, refusal.status
        if not fault.drop_after:
            self._send(answer, {**headers, **fault.headers}, status, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

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

    def route(self, path, fault):
        if fault.status:
            raise RefusalError(fault.status, message=fault.message)
        if path.startswith("/large/"):
            return self._large(path.removeprefix("/large/"))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user = self.hub.users.get(token)
        if token and not self.user:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                with self.hub.lock:
                    result = getattr(self, method)(*(unquote(part or "") for part in found.groups()))
                if isinstance(result, tuple):
                    return result
                return json.dumps(result).encode(), {"Content-Type": "application/json"}, 200
        raise RefusalError(404, message=f"no such endpoint: {self.command} {path}")

    def _signed_in(self):
        if self.user is None:
            raise RefusalError(401, message="Invalid username or password.")
        return self.user

    def _repository(self, name, write=False):
        repository = self.hub.repositories.get(name)
        owner = name.split("/")[0]
        member = self.user is not None and owner in (self.user["name"], *self.user["orgs"])
        if repository is None or (repository.private and not member):
            raise RefusalError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and not (member and self._signed_in()["role"] == "write"):
            self._signed_in()
            raise RefusalError(403, message=f"You don't have the rights to write to {name}")
        return repository

    def _commit(self, repository, revision):
        oid = repository.heads.get(revision, revision)
        if oid not in repository.commits:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def whoami(self):
        user = self._signed_in()
        orgs = [{"name": name, "roleInOrg": "write"} for name in user["orgs"]]
        rights = {"type": "access_token", "accessToken": {"displayName": "t", "role": user["role"]}}
        return {"type": "user", "name": user["name"], "orgs": orgs, "auth": rights}

    def create(self):
        asked, user = json.loads(self.body), self._signed_in()
        owner = asked.get("organization") or user["name"]
        name = f"{owner}/{asked['name']}"
        if owner not in (user["name"], *user["orgs"]) or user["role"] != "write":
            raise RefusalError(403, message=f"You don't have the rights to create a model under {owner!r}")
        repository = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        repository.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def validate_yaml(self):
        errors = card_errors(json.loads(self.body)["content"])
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}, 400 if errors else 200

    def info(self, name, revision):
        repository = self._repository(name)
        oid = self._commit(repository, revision or "main")
        siblings = []
        for path, blob in repository.commits[oid].items():
            lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.lfs else {}
            siblings.append({"rfilename": path, "size": blob.size, "blobId": blob.git_sha1, **lfs})
        return {"id": name, "sha": oid, "private": repository.private, "siblings": siblings}

    def branch(self, name, branch):
        repository = self._repository(name, write=True)
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.heads[branch] = self._commit(repository, start)
        return {}

    def preupload(self, name, revision):
        repository = self._repository(name, write="create_pr" not in self.query)
        now = repository.commits[self._commit(repository, revision)]
        files = []
        for asked in json.loads(self.body)["files"]:
            mode = "lfs" if is_large(asked["path"], asked["size"]) else "regular"
            oid = now[asked["path"]].oid if asked["path"] in now else None
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def lfs_batch(self, name):
        self._repository(name)
        objects = json.loads(self.body)["objects"]
        for asked in objects:
            if asked["oid"] not in self.hub.large:
                asked["actions"] = {"upload": {"href": f"{self.hub.large_url}/large/{asked['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def xet_token(self, name, kind, revision):
        """Where chunks go: a folder of this machine stands in for the storage."""
        self._commit(self._repository(name, write=kind == "write"), revision)
        url, expiry = f"local://{self.hub.xet}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expiry)}
        answer = json.dumps({"casUrl": url, "accessToken": "xet", "exp": expiry}).encode()
        return answer, {"Content-Type": "application/json", **headers}, 200

    def commit(self, name, revision):
        proposal = "create_pr" in self.query
        repository = self._repository(name, write=not proposal)
        self._signed_in()
        head = self._commit(repository, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head) and not proposal:
            raise RefusalError(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] in self.hub.xet_hashes:
                    self.hub.large[value["oid"]] = self.hub.read_xet(value["oid"], value["size"])
                files[value["path"]] = Blob(self.hub.large[value["oid"]], lfs=True)
        branch = f"refs/pr/{sum(b.startswith('refs/pr') for b in repository.heads) + 1}" if proposal else revision
        if proposal:
            repository.heads[branch] = head
        oid = repository.commit(files, branch)
        proposed = f"{self.hub.url}/{name}/discussions/{branch.split('/')[-1]}" if proposal else None
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": proposed}

    def resolve(self, name, revision, path):
        repository = self._repository(name)
        oid = self._commit(repository, revision)
        if repository.gated and (self.user is None or name not in self.user["granted"]):
            raise RefusalError(403 if self.user else 401, "GatedRepo", "Access to this model is restricted")
        blob = repository.commits[oid].get(path)
        commit = {"X-Repo-Commit": oid}
        if blob is None:
            raise RefusalError(404, "EntryNotFound", "Entry not found", **commit)
        if not blob.lfs:
            length = {"Content-Length": str(blob.size)} if self.command == "HEAD" else {}
            return self._ranged(blob.content, {"ETag": f'"{blob.git_sha1}"', **commit, **length})
        if blob.sha256 in self.hub.xet_hashes:
            refresh = f"{self.hub.url}/api/models/{name}/xet-read-token/{oid}"
            commit |= {"X-Xet-Hash": self.hub.xet_hashes[blob.sha256], "X-Xet-Refresh-Route": refresh}
        location = f"{self.hub.large_url}/large/{blob.sha256}?file={quote(path)}"
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "Location": location}
        return b"", {**commit, **linked}, 302

    def _large(self, oid):
        if self.command == "PUT":
            self.hub.large[oid] = self.body
            return b"", {}, 200
        return self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _ranged(self, content, headers):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not asked:
            return content, headers, 200
        start, size = int(asked[1]), len(content)
        return content[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}, 206


NAME, REVISION = r"([^/ ]+/[^/ ]+)", r"([^/ ]+)"
ROUTES = [
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (rf"GET /api/models/{NAME}(?:/revision/{REVISION})?", "info"),
    (rf"POST /api/models/{NAME}/branch/{REVISION}", "branch"),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", "preupload"),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", "commit"),
    (rf"GET /api/models/{NAME}/xet-(read|write)-token/{REVISION}", "xet_token"),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{REVISION}/(.+)", "resolve"),
]


LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "other", "unknown"}


def card_errors(card):
    """Return what the Hub would refuse in the header of a card, as far as its rules are documented."""
    try:
        data: Any = ModelCard(card).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        return [str(error)]
    found = [] if data.get("license", "other") in LICENSES else [f'"license" must be one of {sorted(LICENSES)}']
    for key in ("tags", "datasets", "library_name", "pipeline_tag", "base_model"):
        values = data.get(key, [])
        if not all(isinstance(value, str) for value in (values if isinstance(values, list) else [values])):
            found.append(f'"{key}" must be text')
    base = data.get("base_model", "org/name")
    return found if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else [*found, f'"base_model" {base!r} is not valid']


@contextmanager
def served():
    """Run a Hub, for the clients of other processes; `HF_ENDPOINT=hub.url` leads them to it."""
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
        yield hub


@contextmanager
def connected(monkeypatch):
    """Run a Hub to which the client of this process speaks; its retries do not wait."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with served() as hub:
        use_endpoint(monkeypatch, hub.url)
        yield hub
        close_session()


def use_endpoint(monkeypatch, url):
    """Let the client of this process speak to a server."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


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
