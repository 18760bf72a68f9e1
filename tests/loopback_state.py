"""What a Hub on the loopback interface knows: repositories, users, and the faults that tests ask for."""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, files, branch="main", message=""):
        parent = self.heads.get(branch)
        listing = sorted((path, blob.sha256) for path, blob in files.items())
        content = f"{parent}{listing}{message}{len(self.commits)}"
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid], self.parents[oid], self.messages[oid] = dict(files), parent, message
        self.heads[branch] = oid
        return oid

    def resolve(self, revision):
        return self.heads.get(revision) or (revision if revision in self.commits else None)

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


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    origin: str
    authorization: str | None
    range: str | None


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
        # token: who, role, organisations, gated repositories that were granted
        users = (("alice", "alice", "write"), ("bob", "bob", "write"), ("reader", "alice", "read"))
        self.users: dict[str, dict[str, Any]] = {
            f"hf_{token}": {"name": name, "role": role, "orgs": ["clinic"], "granted": set()}
            for token, name, role in users
        }
        self.users["hf_stranger"] = {"name": "mallory", "role": "write", "orgs": [], "granted": set()}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.xet: Path | None = None  # the folder of chunks; without it large files go the way of git-lfs
        self.xet_hashes: dict[str, str] = {}  # by SHA-256; the real storage finds them in what was uploaded
        self.url = self.large_url = ""

    def fault(self, pattern, **what):
        self.faults.append(Fault(pattern, **what))
        return self.faults[-1]

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
        import hf_xet

        target = f"{self.xet}/read-{sha256}"
        expiry = int(time.time()) + 3600
        session = hf_xet.XetSession()
        with session.new_file_download_group(
            endpoint=f"local://{self.xet}", token="xet", token_expiry_unix_secs=expiry
        ) as group:
            group.start_download_file(hf_xet.XetFileInfo(self.xet_hashes[sha256], size), target)
        return Path(target).read_bytes()

    def count(self, pattern):
        return sum(bool(re.search(pattern, f"{r.method} {r.path}")) for r in self.requests)


def is_large(path, size):
    """Tell whether git-lfs keeps a file; text stays in git, as on the Hub, where its limit is 10 MB."""
    return path.endswith(LARGE_SUFFIXES) or (size >= LARGE and not path.endswith((".md", ".json")))
