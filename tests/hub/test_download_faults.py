"""What goes wrong on the way down: the message, what the caches hold afterwards, and that no token leaks."""

import os
import random

import pytest
from huggingface_hub import constants

from loopback_hub import Blob, use_endpoint
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import CheckpointError
from modelsgenesis.hub.client import take_snapshot
from modelsgenesis.hub.download import copy_bundle, fetch_bundle
from runs_to_push import TINY, cached_files, failure, write_card

INFO, LARGE = "GET /api/models/", "GET /large/"
pytestmark = pytest.mark.usefixtures("tiny_on_hub")


@pytest.mark.parametrize("with_a_copy", [False, True])
@pytest.mark.parametrize(("trouble", "word"), [("refused", "cannot be reached"), ("silent", "in time")])
def test_a_hub_that_cannot_be_reached_is_given_up_soon(hub, closed_port, home, monkeypatch, trouble, word, with_a_copy):
    here = fetch_bundle(TINY) if with_a_copy else None
    if trouble == "refused":
        use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    else:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
        hub.fault(INFO, delay=4.0)
    if with_a_copy:
        with pytest.warns(UserWarning, match=f"{word}.*using the copy of commit"):
            assert fetch_bundle(TINY, refresh=True) == here
    else:
        assert word in failure(lambda: fetch_bundle(TINY), "unreachable")
        assert cached_files(home) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_body_is_resumed_where_it_broke(hub, run, seed, monkeypatch):
    chunk = 1024  # the client keeps whole chunks only: of 10 MB, by default
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    weights = (run / "model.safetensors").read_bytes()
    offset = random.Random(seed).randrange(len(weights))
    hub.fault(LARGE, cut=offset)
    assert (fetch_bundle(TINY) / "model.safetensors").read_bytes() == weights
    asked = [request.range for request in hub.requests if request.path.startswith("/large/")]
    assert asked == [None, f"bytes={offset // chunk * chunk}-" if offset >= chunk else None]


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("what", [INFO, "HEAD .*safetensors", LARGE, "GET .*config.json"])
def test_a_burst_of_server_errors_is_waited_out(hub, status, what):
    hub.fault(what, status=status, times=3)
    load_bundle(fetch_bundle(TINY))


@pytest.mark.parametrize(
    ("where", "fault", "kind", "word", "kept"),
    [
        (LARGE, {"cut": 0}, "unreachable", "cannot be reached", ["config.json"]),
        (INFO, {"status": 503}, "unreachable", "503", []),
        (INFO, {"status": 403, "message": "not for you"}, "denied", "403: not for you", []),
        (INFO, {"status": 418, "message": "teapot"}, "other", "418: teapot", []),
        (LARGE, {"corrupt": True}, "other", "model.safetensors", ["config.json"]),
        ("GET .*/README.md", {"corrupt": True}, "other", "README.md", ["config.json", "model.safetensors"]),
    ],
)
def test_what_does_not_go_away_is_said_and_leaves_only_whole_files(hub, home, where, fault, kind, word, kept):
    hub.fault(where, times=99, **fault)
    assert word in failure(lambda: fetch_bundle(TINY), kind)
    assert cached_files(home) == kept
    hub.faults.clear()
    load_bundle(fetch_bundle(TINY))


def test_a_wrong_digest_in_the_card_stops_before_the_download(hub, home, cards):
    write_card(cards, sha256="a" * 64)
    message = failure(lambda: fetch_bundle("tiny-ct"), "other")
    assert "its card pins aaaaaaaaaaaa…; nothing was downloaded" in message
    assert hub.count(LARGE) == 0
    assert "model.safetensors" not in cached_files(home)


def test_the_token_stays_home(hub):
    """Large files lie on another host, which the Hub redirects to."""
    fetch_bundle(TINY, token="hf_bob")
    sent = {(request.path.startswith("/large/"), request.origin, request.authorization) for request in hub.requests}
    assert sent == {(True, "localhost", None), (False, "127.0.0.1", "Bearer hf_bob")}


@pytest.mark.parametrize(
    ("name", "token", "state", "kind", "words"),
    [
        (TINY, "hf_wrong", {}, "denied", ["does not accept the token"]),
        ("clinic/none", "hf_bob", {}, "unknown", ["not on http", "or private", "ask its owner"]),
        (TINY, "hf_stranger", {"private": True}, "unknown", ["or private"]),
        (TINY, "hf_bob", {"gated": True}, "denied", ["gated", "clinic/tiny with the account"]),
        (TINY, None, {"gated": True}, "denied", ["gated", "hf auth login"]),
    ],
)
def test_what_is_not_for_everybody(hub, home, monkeypatch, name, token, state, kind, words):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    vars(hub.repositories[TINY]).update(state)
    message = failure(lambda: fetch_bundle(name, token=token), kind)
    assert all(word in message for word in words)
    assert cached_files(home) == []
    hub.users["hf_bob"]["granted"].add(TINY)
    load_bundle(fetch_bundle(TINY, token="hf_bob"))


def test_paths_that_lead_out_are_never_followed(hub, tmp_path):
    out = ("../../evil.json", "/evil.json", "figures/../../evil.json", "C:evil.json", "..\\evil.json")
    hub.add(TINY, dict.fromkeys(out, b"{}"))
    assert not set(out) & set(take_snapshot(TINY, None, None).files)
    copy_bundle(fetch_bundle(TINY), tmp_path / "copy")
    load_bundle(tmp_path / "copy")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_files_that_are_missing_or_said_to_have_10_gb_are_not_downloaded(hub, run):
    files, weights = hub.repositories[TINY].files, (run / "model.safetensors").read_bytes()
    files["model.safetensors"] = Blob(weights, lfs=True, claimed_size=10 << 30)
    assert "10,737,418,240 bytes" in failure(lambda: fetch_bundle(TINY), CheckpointError)
    files["config.json"] = Blob(b"{}", claimed_size=10 << 30)
    assert "10,737,418,240 bytes" in failure(lambda: fetch_bundle(TINY), CheckpointError)
    del files["model.safetensors"]
    assert "holds no bundle of this package" in failure(lambda: fetch_bundle(TINY), CheckpointError)
    assert hub.count(LARGE) == 0


def test_a_link_in_the_cache_that_leads_out_is_replaced_and_its_target_stays(hub, tmp_path):
    config = fetch_bundle(TINY) / "config.json"
    (tmp_path / "outside").write_text("{}")
    config.unlink()
    config.symlink_to(tmp_path / "outside")
    load_bundle(fetch_bundle(TINY))
    assert (tmp_path / "outside").read_text() == "{}"
    config.unlink()
    os.mkfifo(config)
    load_bundle(fetch_bundle(TINY))
    config.unlink()
    config.mkdir()
    assert "HF_HOME" in failure(lambda: fetch_bundle(TINY), "other")
