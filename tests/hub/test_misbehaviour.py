"""A Hub that misbehaves: whatever it answers, the user gets one line, no secret, and nothing outside of the cache."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback_hub import LoopbackHub
from modelsgenesis import hub as room
from modelsgenesis.errors import (
    CheckpointError,
    DigestError,
    GenesisError,
    HubError,
    HubUnreachableError,
)
from modelsgenesis.hub import guard

from .conftest import bundle_files  # pyright: ignore[reportAttributeAccessIssue]

TINY, NEW = "clinic/tiny", "clinic/new"
INFO, HEAD, LARGE, SMALL = "GET /api/models/", "HEAD .*safetensors", "GET /large/", "GET .*/config.json"
PAGE = {"body": b"<html>Welcome to the hotel</html>", "headers": {"Content-Type": "text/html"}}
OUT = "../../../../../canary"
SHA = "0" * 40


def info(**changes: Any) -> dict[str, bytes]:
    """A description of a model."""
    file = {"rfilename": "config.json", "size": 2, "blobId": SHA}
    file.update({name: changes.pop(name) for name in ("rfilename", "size", "blobId", "lfs") if name in changes})
    return {"body": json.dumps({"id": TINY, "sha": SHA, "private": False, "siblings": [file], **changes}).encode()}


DOWN = [  # what goes wrong where, and the error and a word of its message
    (INFO, PAGE, HubError, "web page"),
    (HEAD, PAGE, HubError, "web page"),
    (LARGE, PAGE, HubError, "web page"),
    (SMALL, PAGE, HubError, "web page"),
    (INFO, {"body": b""}, HubError, "understood"),
    (INFO, {"body": b"{"}, HubError, "understood"),
    (INFO, {"body": b"null"}, HubError, "understood"),
    (INFO, {"body": b"[]"}, HubError, "understood"),
    (INFO, {"body": b"[" * 100_000}, HubError, "understood"),
    (INFO, {"body": b"\xff\xfe\x00"}, HubError, "understood"),
    (INFO, {"body": b"[]", "status": 500}, HubError, "understood"),
    (INFO, {"body": b'{"error": "\x1b[2J"}', "status": 400}, HubError, "refused"),
    (INFO, info(sha=None), HubError, "None"),
    (INFO, info(sha="../../x"), HubError, "'../../x'"),
    (INFO, info(sha=[1]), HubError, "[1]"),
    (INFO, info(siblings=None), CheckpointError, "no bundle"),
    (INFO, info(siblings=7), HubError, "understood"),
    (INFO, info(siblings=["x"]), HubError, "understood"),
    (INFO, info(rfilename=None), HubError, "None"),
    (INFO, info(rfilename="/etc/passwd"), CheckpointError, "no bundle"),
    (INFO, info(size="2"), HubError, "size 2"),
    (INFO, info(size=-1), HubError, "size -1"),
    (INFO, info(size=10**400), HubError, "size 1000"),
    (INFO, info(size=True), HubError, "size True"),
    (INFO, info(blobId=OUT), HubError, "canary"),
    (INFO, info(lfs={"size": 1, "sha256": "../x", "pointerSize": 1}), HubError, "'../x'"),
    (INFO, info(lfs=[]), CheckpointError, "no bundle"),
    (INFO, {"body": b" " * (17 << 20)}, HubError, "bytes"),
    (INFO, {"body": b"{}", "headers": {"Content-Length": "3000000000"}}, HubError, "bytes"),
    (INFO, {"body": b"\x1f\x8b", "headers": {"Content-Encoding": "gzip"}}, HubError, "compressed"),
    (INFO, {"trickle": 100}, HubUnreachableError, "slowly"),
    (INFO, {"trickle": 0}, HubUnreachableError, "slowly"),
    (LARGE, {"trickle": 150}, HubUnreachableError, "slowly"),
    (LARGE, {"body": b"x" * (2 << 20)}, HubError, "bytes"),
    (LARGE, {"headers": {"Content-Length": "no"}}, HubUnreachableError, "reached"),
    (LARGE, {"headers": {"Content-Range": "bytes */*"}}, HubError, "understood"),
    (HEAD, {"headers": {"X-Linked-Etag": OUT}}, HubError, "ETag"),
    (HEAD, {"headers": {"X-Linked-Etag": '"' + "a" * 65 + '"'}}, HubError, "ETag"),
    (HEAD, {"headers": {"X-Repo-Commit": OUT}}, HubError, "commit"),
    (HEAD, {"headers": {"X-Repo-Commit": SHA}}, HubError, "commit"),
    (HEAD, {"headers": {"X-Xet-Hash": OUT, "X-Xet-Refresh-Route": "/x"}}, HubError, "Xet"),
    (
        HEAD,
        {
            "body": b"",
            "status": 404,
            "headers": {"X-Repo-Commit": OUT, "X-Error-Code": "EntryNotFound"},
        },
        HubError,
        "commit",
    ),
    (HEAD, {"body": b"", "status": 302, "headers": {"Location": "http://localhost:9/x"}}, HubError, "understood"),
    (HEAD, {"headers": {"Location": "file:///etc/passwd"}}, HubError, "file:///etc/passwd"),
    (HEAD, {"headers": {"X-Linked-Size": "-5"}}, HubError, ""),
    (INFO, {"body": b"", "status": 302, "headers": {"Location": "file:///etc/passwd"}}, HubError, "file:///etc/passwd"),
    (INFO, {"body": b"", "status": 302, "headers": {"Location": "/api/models/clinic/tiny"}}, HubUnreachableError, "redir"),
    (INFO, {"body": b"", "status": 302, "headers": {"Location": "http://["}}, HubUnreachableError, "reached"),
    (INFO, {"body": b"", "status": 302}, HubError, ""),
    (HEAD, {"body": b"", "status": 429, "headers": {"Retry-After": "999999"}}, HubUnreachableError, "999999 s"),
    (INFO, {"body": b"", "status": 204}, HubError, "understood"),
    (INFO, {"body": b"{}", "headers": {"Content-Type": "text/html; charset=nonsense"}}, HubError, "web page"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 1)


def outside(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder but the two caches."""
    caches = (root / "home" / "hub" / "models--clinic--tiny", root / "home" / "hub" / ".locks" / "models--clinic--tiny")
    own = {root / "home", *caches, *(folder.parent for folder in caches), root / "home" / "hub" / "CACHEDIR.TAG"}
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if path not in own and not any(cache in path.parents for cache in caches)
    }


def failure(call: Callable[[], object], kind: type[GenesisError], root: Path) -> str:
    """Call, and return the one line of an error of exactly this kind, which came soon and left nothing behind."""
    (root / "canary").write_text("here")
    before, begin = outside(root), time.monotonic()
    with pytest.raises(GenesisError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert message.isprintable()
    assert "hf_" not in message
    assert time.monotonic() - begin < 5
    assert outside(root) == before
    return message


@pytest.mark.parametrize(("where", "fault", "kind", "word"), DOWN, ids=map(str, range(len(DOWN))))
def test_down(
    hub: LoopbackHub, run: Path, tmp_path: Path, where: str, fault: dict[str, Any], kind: Any, word: str
) -> None:
    hub.add(TINY, bundle_files(run))
    hub.fault(where, times=99, **fault)
    message = failure(lambda: room.fetch_bundle(TINY), kind, tmp_path)
    print(message)
    assert word in message
