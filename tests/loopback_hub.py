"""A Hugging Face Hub on the loopback interface: real HTTP for the real client, with faults on demand.

Two origins, as the real one: the API on `127.0.0.1`, large files on `localhost`. Everything is kept in memory; tests read
and change `hub.repositories` directly.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LARGE = 4096  # bytes from which a file goes the way of large files; so does every .safetensors, .pt, .h5 …
LARGE_SUFFIXES = (".safetensors", ".pt", ".pth", ".h5", ".model", ".png")
LICENSES = {
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    "bsd-3-clause",
    "openrail",
    "other",
    "unknown",
}


@dataclass(frozen=True)
class Blob:
    """A file at a commit."""

    content: bytes
    lfs: bool = False
    claimed_size: int | None = None

    @property
    def size(self) -> int:
        return len(self.content) if self.claimed_size is None else self.claimed_size

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits and branches; `heads` maps a branch to a commit, `commits` a commit to its files."""

    private: bool = False
    gated: bool = False
    heads: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, Blob], branch: str = "main", message: str = "") -> str:
        parent = self.heads.get(branch)
        content = f"{parent}{sorted((path, blob.sha256) for path, blob in files.items())}{message}{len(self.commits)}"
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid], self.parents[oid], self.messages[oid] = dict(files), parent, message
        self.heads[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.heads.get(revision) or (revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, Blob]:
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
    call: Callable[[], object] | None = None  # before the answer


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    origin: str
    authorization: str | None
    range: str | None
    status: int = 0


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        super().__init__(message or code)


class LoopbackHub:
    """The state of the Hub and its two servers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # large files by SHA-256
        # token: who, role, organisations, gated repositories that were granted
        self.users: dict[str, dict[str, Any]] = {
            "hf_alice": {"name": "alice", "role": "write", "orgs": ["clinic"], "granted": set()},
            "hf_bob": {"name": "bob", "role": "write", "orgs": ["clinic"], "granted": set()},
            "hf_reader": {"name": "alice", "role": "read", "orgs": ["clinic"], "granted": set()},
            "hf_stranger": {"name": "mallory", "role": "write", "orgs": [], "granted": set()},
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.url = self.large_url = ""

    def fault(self, pattern: str, **what: Any) -> Fault:
        self.faults.append(Fault(pattern, **what))
        return self.faults[-1]

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", **options: Any) -> Repository:
        """Put files into a repository without the client, in one commit."""
        repository = self.repositories.setdefault(name, Repository(**options))
        now = repository.commits.get(repository.heads.get(branch, ""), {})
        blobs = {path: Blob(content, is_large(path, len(content))) for path, content in files.items()}
        self.large |= {blob.sha256: blob.content for blob in blobs.values() if blob.lfs}
        repository.commit({**now, **blobs}, branch)
        return repository

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, f"{r.method} {r.path}")) for r in self.requests)


def is_large(path: str, size: int) -> bool:
    return path.endswith(LARGE_SUFFIXES) or size >= LARGE


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


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # quiet
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that goes away is part of the tests
            super().handle()

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        origin = self.headers["Host"].split(":")[0]
        self.user = None
        record = [
            self.command,
            url.path,
            origin,
            self.headers.get("Authorization"),
            self.headers.get("Range"),
        ]
        fault = self._fault(f"{self.command} {url.path}")
        try:
            self._before(fault)
            answer, headers, status = self._route(url.path)
        except Refusal as refusal:
            answer, headers, status = (
                json.dumps({"error": str(refusal)}).encode(),
                refusal.headers,
                refusal.status,
            )
        except ConnectionAbortedError:
            self.close_connection = True
            self.hub.requests.append(Request(*record))
            return
        self.hub.requests.append(Request(*record, status=status))
        if fault and fault.drop_after:
            self.close_connection = True
            return
        self._send(answer, headers, status, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _fault(self, line: str) -> Fault | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    def _before(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.call:
            fault.call()
        threading.Event().wait(fault.delay)  # not time.sleep, which tests take away
        if fault.drop:
            raise ConnectionAbortedError
        if fault.status:
            raise Refusal(fault.status, message=fault.message)

    def _send(self, answer: bytes, headers: dict[str, str], status: int, fault: Fault | None) -> None:
        if fault and fault.corrupt:
            answer = bytes(255 - byte for byte in answer)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut is not None:
            self.wfile.write(answer[: fault.cut])
            self.close_connection = True
            return
        self.wfile.write(answer)

    # What is asked for

    def _route(self, path: str) -> tuple[bytes, dict[str, str], int]:
        if path.startswith("/large/"):
            return self._large(path.removeprefix("/large/"))
        self.user = self._authenticate()
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                with self.hub.lock:
                    result = getattr(self, method)(*(unquote(part or "") for part in found.groups()))
                if isinstance(result, tuple):
                    return result
                return json.dumps(result).encode(), {"Content-Type": "application/json"}, 200
        raise Refusal(404, message=f"no such endpoint: {self.command} {path}")

    def _authenticate(self) -> dict[str, Any] | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repository(self, name: str, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(name)
        owner = name.split("/")[0]
        member = self.user is not None and owner in (self.user["name"], *self.user["orgs"])
        if repository is None or (repository.private and not member):
            raise Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        if write and not (member and self.user and self.user["role"] == "write"):
            raise Refusal(403, message=f"You don't have the rights to write to {name}")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        oid = repository.resolve(revision)
        if oid is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def whoami(self) -> Any:
        if self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        return {
            "type": "user",
            "name": self.user["name"],
            "orgs": [{"name": name} for name in self.user["orgs"]],
            "auth": {"accessToken": {"displayName": "test", "role": self.user["role"]}},
        }

    def create(self) -> Any:
        asked = json.loads(self.body)
        if self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        owner = asked.get("organization") or self.user["name"]
        name = f"{owner}/{asked['name']}"
        if owner not in (self.user["name"], *self.user["orgs"]) or self.user["role"] != "write":
            raise Refusal(
                403, message=f"You don't have the rights to create a model under the namespace {owner!r}"
            )
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            answer = {"error": "You already created this model repo", "url": url}
            return (
                json.dumps(answer).encode(),
                {"X-Error-Message": "You already created this model repo"},
                409,
            )
        repository = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        repository.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, message="initial commit")
        return {"url": url, "name": name, "id": name}

    def delete(self) -> Any:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or (self.user or {}).get('name')}/{asked['name']}"
        self._repository(name, write=True)
        del self.hub.repositories[name]
        return {}

    def settings(self, name: str) -> Any:
        asked = json.loads(self.body)
        self._repository(name, write=True).private = asked.get("visibility") == "private"
        return {"private": self.hub.repositories[name].private}

    def validate_yaml(self) -> Any:
        errors = yaml_errors(json.loads(self.body)["content"])
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}, 400 if errors else 200

    def models(self) -> Any:
        names = sorted(name for name, repository in self.hub.repositories.items() if not repository.private)
        size, page = int(self.query.get("limit", ["100"])[0]), int(self.query.get("page", ["0"])[0])
        names, rest = names[page * size : (page + 1) * size], names[(page + 1) * size :]
        link = (
            {"Link": f'<{self.hub.url}/api/models?limit={size}&page={page + 1}>; rel="next"'} if rest else {}
        )
        return (
            json.dumps([{"id": name} for name in names]).encode(),
            {"Content-Type": "application/json", **link},
            200,
        )

    def info(self, name: str, revision: str) -> Any:
        repository = self._repository(name)
        oid = self._commit(repository, revision or "main")
        blobs = "blobs" in self.query
        return {
            "id": name,
            "modelId": name,
            "sha": oid,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [
                {"rfilename": path, **(described(blob) if blobs else {})}
                for path, blob in repository.commits[oid].items()
            ],
        }

    def tree(self, name: str, revision: str) -> Any:
        repository = self._repository(name)
        files = repository.commits[self._commit(repository, revision)]
        return [entry(path, blob) for path, blob in files.items()]

    def paths_info(self, name: str, revision: str) -> Any:
        repository = self._repository(name)
        files = repository.commits[self._commit(repository, revision)]
        asked = parse_qs(self.body.decode()).get("paths", [])
        return [entry(path, files[path]) for path in asked if path in files]

    def refs(self, name: str) -> Any:
        heads = self._repository(name).heads
        branches = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": oid} for b, oid in heads.items()]
        return {"branches": branches, "converts": [], "tags": []}

    def commits(self, name: str, revision: str) -> Any:
        repository = self._repository(name)
        oid: str | None = self._commit(repository, revision)
        found: list[dict[str, Any]] = []
        while oid:
            title = repository.messages[oid]
            found.append(
                {"id": oid, "title": title, "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"}
            )
            oid = repository.parents[oid]
        return found

    def branch(self, name: str, branch: str) -> Any:
        repository = self._repository(name, write=True)
        if self.command == "DELETE":
            del repository.heads[branch]
            return {}
        if branch in repository.heads:
            raise Refusal(409, message="Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.heads[branch] = self._commit(repository, start)
        return {}

    def preupload(self, name: str, revision: str) -> Any:
        repository = self._repository(name, write="create_pr" not in self.query)
        now = repository.commits[self._commit(repository, revision)]
        return {
            "files": [
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if is_large(asked["path"], asked["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": (lambda b: (b.sha256 if b.lfs else b.git_sha1) if b else None)(
                        now.get(asked["path"])
                    ),
                }
                for asked in json.loads(self.body)["files"]
            ]
        }

    def lfs_batch(self, name: str) -> Any:
        self._repository(name)
        objects: list[dict[str, Any]] = []
        for asked in json.loads(self.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.large_url}/large/{asked['oid']}"},
                "verify": {"href": f"{self.hub.url}/{name}/lfs/verify"},
            }
            present = {} if asked["oid"] not in self.hub.large else None
            objects.append({**asked, **({"actions": actions} if present is not None else {})})
        return {"transfer": "basic", "objects": objects}

    def lfs_verify(self, name: str) -> Any:
        asked = json.loads(self.body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, message="the object was not uploaded")
        return {}

    def commit(self, name: str, revision: str) -> Any:
        proposal = "create_pr" in self.query
        repository = self._repository(name, write=not proposal)
        if self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        head = self._commit(repository, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head) and not proposal:
            raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head])
        for line in lines:
            self._apply(files, line["key"], line["value"])
        branch = (
            f"refs/pr/{sum(b.startswith('refs/pr') for b in repository.heads) + 1}" if proposal else revision
        )
        if proposal:
            repository.heads[branch] = head
        oid = repository.commit(files, branch, header["summary"])
        proposed = f"{self.hub.url}/{name}/discussions/{branch.split('/')[-1]}" if proposal else None
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": url,
            "pullRequestUrl": proposed,
            "hookOutput": "",
        }

    def _apply(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.hub.large:
                raise Refusal(
                    400, message=f"LFS pointer pointed to a file that does not exist: {value['oid']}"
                )
            files[value["path"]] = Blob(self.hub.large[value["oid"]], lfs=True)
        elif key == "deletedFile":
            del files[value["path"]]

    def resolve(self, name: str, revision: str, path: str) -> Any:
        repository = self._repository(name)
        oid = self._commit(repository, revision)
        if repository.gated and (self.user is None or name not in self.user["granted"]):
            raise Refusal(403 if self.user else 401, "GatedRepo", "Access to this model is restricted")
        blob = repository.commits[oid].get(path)
        commit = {"X-Repo-Commit": oid}
        if blob is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", **commit)
        if not blob.lfs:
            length = {"Content-Length": str(blob.size)} if self.command == "HEAD" else {}
            return self._ranged(blob.content, {"ETag": f'"{blob.git_sha1}"', **commit, **length})
        return (
            b"",
            {
                **commit,
                "X-Linked-Etag": f'"{blob.sha256}"',
                "X-Linked-Size": str(blob.size),
                "Location": f"{self.hub.large_url}/large/{blob.sha256}?file={quote(path)}",
            },
            302,
        )

    def _large(self, oid: str) -> tuple[bytes, dict[str, str], int]:
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise Refusal(400, message="the content is not that of the object")
            self.hub.large[oid] = self.body
            return b"", {}, 200
        if oid not in self.hub.large:
            raise Refusal(404, message="no such object")
        return self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _ranged(self, content: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str], int]:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not asked:
            return content, headers, 200
        start, size = int(asked[1]), len(content)
        return content[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}, 206


def described(blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.lfs else {}
    return {"size": blob.size, "blobId": blob.git_sha1, **lfs}


def entry(path: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.lfs else {}
    return {"type": "file", "path": path, "size": blob.size, "oid": blob.git_sha1, **lfs}


NAME, REVISION = r"([^/ ]+/[^/ ]+)", r"([^/ ]+)"
ROUTES = [
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"DELETE /api/repos/delete", "delete"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (r"GET /api/models", "models"),
    (rf"PUT /api/models/{NAME}/settings", "settings"),
    (rf"GET /api/models/{NAME}(?:/revision/{REVISION})?", "info"),
    (rf"GET /api/models/{NAME}/tree/{REVISION}", "tree"),
    (rf"GET /api/models/{NAME}/refs", "refs"),
    (rf"GET /api/models/{NAME}/commits/{REVISION}", "commits"),
    (rf"(?:POST|DELETE) /api/models/{NAME}/branch/{REVISION}", "branch"),
    (rf"POST /api/models/{NAME}/paths-info/{REVISION}", "paths_info"),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", "preupload"),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", "commit"),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (rf"POST /{NAME}/lfs/verify", "lfs_verify"),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{REVISION}/(.+)", "resolve"),
]


def yaml_errors(card: str) -> list[str]:
    """The Hub's rules for front matter, as far as they are documented."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", card, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(front, dict):
        return ["the front matter must be a mapping"]
    errors: list[str] = []
    if "license" in front and front["license"] not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    for key in ("tags", "datasets", "metrics", "language"):
        value = front.get(key, [])
        if not (isinstance(value, (list, str)) and all(isinstance(item, str) for item in value)):
            errors.append(f'"{key}" must be strings')
    for key in ("library_name", "pipeline_tag"):
        if key in front and not isinstance(front[key], str):
            errors.append(f'"{key}" must be a string')
    base = front.get("base_model", [])
    for name in [base] if isinstance(base, str) else base:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            errors.append(f'"base_model" with value "{name}" is not valid')
    for model in front.get("model-index", []):
        for result in model["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                errors.append('"model-index" needs a task type, a dataset type and name')
            if not all("type" in metric and "value" in metric for metric in result["metrics"]):
                errors.append('"model-index" metrics need type and value')
    return errors
