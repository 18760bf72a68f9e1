"""A Hub that misbehaves: whatever it answers, the user gets one line, no secret, and nothing outside of the cache."""

import json
import logging
import subprocess
import sys

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from modelsgenesis.errors import CheckpointError, ConfigurationError
from modelsgenesis.hub import client
from modelsgenesis.hub.download import fetch_bundle
from modelsgenesis.hub.push import push_to_hub
from runs_to_push import TINY, bundle_files, failure

INFO, HEAD, LARGE, SMALL = "GET /api/models/", "HEAD .*safetensors", "GET /large/", "GET .*/config.json"
WHO, MAKE, YAML = "GET /api/whoami", "POST /api/repos/create", "POST /api/validate-yaml"
PREUPLOAD, BATCH, PUT, COMMIT = "POST .*/preupload/", "POST .*/lfs/objects/batch", "PUT /large/", "POST .*/commit/"
PAGE = {"body": b"<html>Welcome to the hotel</html>", "headers": {"Content-Type": "text/html; charset=nonsense"}}
OUT, SHA = "../../../../../canary", "0" * 40
WAYS = ((302, "http://localhost:9/x"), (200, "/x"))
CREATING = "Cannot create repo: another conflicting operation is in progress"
UP = (WHO, MAKE, YAML, PREUPLOAD, BATCH, PUT, COMMIT)


def body(value, **more):
    return {"body": value if isinstance(value, bytes) else json.dumps(value).encode(), **more}


def info(file=None, **changes):
    """A description of a model, with something wrong in it or in its one file."""
    known = {"rfilename": "config.json", "size": 2, "blobId": SHA}
    file = {**known, **file} if isinstance(file, dict) else file
    return body({"id": TINY, "sha": SHA, "private": False, "siblings": [file or known], **changes})


def headers(**values):
    return {"headers": {name.replace("_", "-"): value for name, value in values.items()}}


def moved(to):
    return body(b"", status=302, **headers(Location=to))


def rows(where, kind, word, *faults):
    return [(where, fault, kind, word) for fault in faults]


MISBEHAVIOUR = [  # where, what, and the error with a word of its message
    *(row for where in (INFO, HEAD, LARGE, SMALL, *UP) for row in rows(where, "other", "web page", PAGE)),
    *rows(INFO, "other", "understood", *map(body, (b"", b"{", None, [], b"[" * 100_000, b"\xff\xfe\x00"))),
    *rows(INFO, "other", "understood", body([], status=500), body(b"", status=204), info(siblings=7), info("x")),
    *rows(INFO, "other", "None", info(sha=None), info({"rfilename": None})),
    *rows(INFO, "other", "'../", info(sha="../../x"), info({"lfs": {"size": 1, "sha256": "../x", "pointerSize": 1}})),
    *rows(INFO, "other", "size ", *(info({"size": size}) for size in ("2", -1, 10**400, True, 0.5))),
    *rows(INFO, CheckpointError, "no bundle", info(siblings=None), info({"rfilename": "/etc/config.json"})),
    *rows(INFO, "other", "\\x1b", body({"error": "\x1b[2J"}, status=400)),
    *rows(INFO, "other", "bytes", body(b" " * (17 << 20))),
    *rows(INFO, "other", "compressed", body(b"\x1f\x8b", **headers(Content_Encoding="gzip"))),
    *rows(INFO, "unreachable", "slowly", {"trickle": 0}, {"trickle": 150}),
    *rows(INFO, "other", "/etc/passwd", moved("file:///etc/passwd")),
    *rows(INFO, "unreachable", "redirects", moved("/api/models/clinic/tiny")),
    *rows(LARGE, "unreachable", "slowly", {"trickle": 150}),
    *rows(LARGE, "other", "bytes", body(b"x" * (2 << 20))),
    *rows(LARGE, "other", "understood", headers(Content_Range="bytes */*")),
    *rows(HEAD, "other", "ETag", headers(X_Linked_Etag=OUT), headers(X_Linked_Etag="a" * 65)),
    *rows(HEAD, "other", "ETag", *(body(b"", status=n, **headers(Location=to, ETag=OUT)) for n, to in WAYS)),
    *rows(HEAD, "other", "commit", headers(X_Repo_Commit=OUT), headers(X_Repo_Commit=SHA)),
    *rows(HEAD, "other", "commit", body(b"", status=404, **headers(X_Repo_Commit=OUT, X_Error_Code="EntryNotFound"))),
    *rows(HEAD, "other", "storage that is not on the network", headers(X_Xet_Cas_Url="file:///etc")),
    *rows(HEAD, "unreachable", "short", headers(X_Linked_Size="-5")),
    *rows(HEAD, "other", "understood", headers(X_Linked_Size="9" * 400), moved("http://localhost:9/x")),
    *rows(HEAD, "unreachable", "999999 s", body(b"", status=429, **headers(Retry_After="999999"))),
    *rows(WHO, "other", "'../../x'", body({"name": "../../x"})),
    *rows(MAKE, "other", "circle", body(CREATING, status=409)),
    *rows(PREUPLOAD, "other", "understood", body({"files": 3})),
    *rows(BATCH, "other", "", body({"objects": [{"oid": SHA, "size": 1, "actions": {"upload": {"href": "x"}}}]})),
    *rows(COMMIT, "other", "understood", body({}), body({"commitUrl": f"http://x/{TINY}", "commitOid": "../../x"})),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1)


def outside(root):
    """Every file below a folder but those of the two caches."""
    hub = root / "home" / "hub"
    caches = (hub / "models--clinic--tiny", hub / ".locks" / "models--clinic--tiny", root / "home" / "modelsgenesis")
    files = [path for path in root.rglob("*") if not path.is_dir() and path.name != "CACHEDIR.TAG"]
    return {str(path): path.read_bytes() for path in files if not any(cache in path.parents for cache in caches)}


def line_of(call, kind, root):
    """Return the one line of the failure of a call, which touched nothing outside of the caches."""
    for folder in (root, root / "home", root / "home" / "hub"):
        folder.mkdir(exist_ok=True)
        (folder / "canary").write_text("here")
    before = outside(root)
    message = failure(call, kind)
    assert outside(root) == before
    return message


@pytest.mark.parametrize(
    ("where", "fault", "kind", "word"), MISBEHAVIOUR, ids=[f"{n}-{row[0]}" for n, row in enumerate(MISBEHAVIOUR)]
)
def test_it_is_one_line(hub, run, tmp_path, where, fault, kind, word):
    up = where in UP
    if not up:
        hub.add(TINY, bundle_files(run))
    hub.fault(where, times=999, **fault)
    name = "tiny" if where == WHO else TINY
    assert word in line_of(lambda: push_to_hub(run, name) if up else fetch_bundle(TINY), kind, tmp_path)


def test_another_commit_than_was_asked_for_is_refused(hub, tmp_path):
    hub.fault(INFO, **info())
    assert SHA in line_of(lambda: fetch_bundle(f"{TINY}@{'1' * 40}"), "other", tmp_path)


def test_a_way_that_is_less_safe_than_to_the_hub_is_not_taken(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_schemes", lambda: ("https",))
    assert "a way to http://" in line_of(lambda: fetch_bundle(TINY), "other", tmp_path)
    assert hub.requests == []


NO_ADDRESSES = ("", "huggingface.co", "ftp://a", "https://", "http://a b", "http://a?b")


@pytest.mark.parametrize(
    ("name", "value", "kind", "word"),
    [
        *(("HF_ENDPOINT", value, ConfigurationError, "https://") for value in NO_ADDRESSES),
        *(("HF_ENDPOINT", value, "other", "HF_ENDPOINT") for value in ("http://a:b", "http://[")),
        ("HF_ENDPOINT", "http://me:pass%2Fw%40rd@127.0.0.1:9", "unreachable", "***@127.0.0.1:9"),
        ("HTTP_PROXY", "foo://me:password@127.0.0.1:9", ConfigurationError, "HTTP_PROXY"),
        ("SSL_CERT_FILE", "/nowhere/certificates", ConfigurationError, "SSL_CERT_FILE"),
        ("HF_HUB_USER_AGENT_ORIGIN", "\u0430", "other", "understood"),
        *(("HF_TOKEN", f"hf_bcdefgh{one}secret", "denied", "ASCII") for one in "\u0430 \x07"),
    ],
)  # fmt: skip
def test_an_environment_that_cannot_be_is_one_line(hub, tmp_path, monkeypatch, name, value, kind, word):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(name, value)
    if name in ("HF_ENDPOINT", "HF_HUB_USER_AGENT_ORIGIN"):  # which the client has read already
        monkeypatch.setattr(constants, name.removeprefix("HF_").replace("HUB_U", "HF_HUB_U"), value)
    close_session()
    message = line_of(lambda: fetch_bundle(TINY), kind, tmp_path)
    close_session()
    assert word in message
    assert not any(secret in message for secret in ("me:", "pass", "secret", "bcdefgh"))


def test_a_setting_that_ends_the_client_as_it_is_imported_is_one_line(environment):
    code = "import sys; sys.argv[1:] = ['download', 'clinic/tiny']; from modelsgenesis.cli import main; main()"
    changed = {**environment, "HF_HUB_ETAG_TIMEOUT": "abc"}
    ended = subprocess.run([sys.executable, "-c", code], env=changed, capture_output=True, text=True)
    said = "error: HF_HUB_ETAG_TIMEOUT: received 'abc', expected whole seconds, such as 10; or unset it\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_blanks_round_a_token_are_not_sent(hub, run, monkeypatch):
    hub.add(TINY, bundle_files(run))
    monkeypatch.setenv("HF_TOKEN", " hf_alice\n")
    fetch_bundle(TINY)
    fetch_bundle(TINY, token="\thf_bob ", refresh=True)
    assert {request.authorization for request in hub.requests} == {None, "Bearer hf_alice", "Bearer hf_bob"}


def test_a_retry_says_in_one_line_what_it_waits_for(hub, run, caplog):
    hub.add(TINY, bundle_files(run))
    for where in (INFO, HEAD, LARGE):
        hub.fault(where, status=503)
    hub.fault(LARGE, cut=10)
    hub.fault(SMALL, headers={"X-HF-Warning": "topic; \x1b[2J"})
    fetch_bundle(TINY)
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all(record.name.startswith("modelsgenesis.hub.") for record in warned)
    lines = [record.getMessage() for record in warned]
    assert lines[0] == f"{TINY}: waiting for {hub.url} (503), trying again in 1 s"
    assert all(line.startswith(f"{TINY}: ") and line.isprintable() and len(line) < 220 for line in lines)
    assert not any("?" in line for line in lines)  # where the signature of an address begins
