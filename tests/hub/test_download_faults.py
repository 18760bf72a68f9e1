"""What goes wrong on the way down: the message, what the caches hold afterwards, and that no token leaks."""

import hashlib
import json
import random
import struct
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from loopback_hub import Blob, LoopbackHub
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import (
    AccessError,
    CheckpointError,
    DigestError,
    HubError,
    HubUnreachableError,
    UnknownModelError,
)

from .conftest import (  # pyright: ignore[reportAttributeAccessIssue]
    bundle_files,
    cached_files,
    use_endpoint,
    write_card,
    write_run,
)

TINY = "clinic/tiny"


@pytest.fixture(autouse=True)
def tiny(hub: LoopbackHub, run: Path) -> LoopbackHub:
    """A bundle on the Hub."""
    hub.add(TINY, bundle_files(run))
    return hub


def failure(kind: type[HubError | CheckpointError], name: str = TINY, **options: object) -> str:
    """Fetch, expect an error of exactly this kind, and return its one line."""
    with pytest.raises(kind) as caught:
        room.fetch_bundle(name, **options)  # pyright: ignore[reportArgumentType]
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert "hf_" not in message
    return message


def test_connection_refused(closed_port: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    message = failure(HubUnreachableError)
    assert message.startswith(f"clinic/tiny: http://127.0.0.1:{closed_port} cannot be reached")
    assert "check the network or HF_ENDPOINT" in message
    assert cached_files(home) == []


def test_connection_refused_with_a_copy_here_is_quick(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here = room.fetch_bundle(TINY)
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    begin = time.monotonic()
    with pytest.warns(UserWarning, match=r"cannot be reached .*using the copy of commit"):
        assert room.fetch_bundle(TINY, refresh=True) == here
    assert time.monotonic() - begin < 3


def test_a_server_that_says_nothing_is_given_up_soon(
    hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.fault("GET /api/models/", delay=1.0)
    assert "did not answer in time; try later, or raise HF_HUB_ETAG_TIMEOUT" in failure(HubUnreachableError)
    assert cached_files(home) == []


def test_a_slow_server_with_a_copy_here_is_given_up_in_3_seconds(hub: LoopbackHub) -> None:
    here = room.fetch_bundle(TINY)
    hub.fault("GET /api/models/", delay=4.0)
    begin = time.monotonic()
    with pytest.warns(UserWarning, match=r"did not answer in time.*using the copy"):
        assert room.fetch_bundle(TINY, refresh=True) == here
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_body_is_resumed_where_it_broke(
    hub: LoopbackHub, run: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = 1024  # the client keeps whole chunks only: of 10 MB, by default
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    weights = (run / "model.safetensors").read_bytes()
    offset = random.Random(seed).randrange(len(weights))
    hub.fault("GET /large/", cut=offset)
    assert (room.fetch_bundle(TINY) / "model.safetensors").read_bytes() == weights
    asked = [request.range for request in hub.requests if request.path.startswith("/large/")]
    assert asked == [None, f"bytes={offset // chunk * chunk}-" if offset >= chunk else None]


def test_a_body_that_is_cut_again_and_again_leaves_nothing_half_done(hub: LoopbackHub, home: Path) -> None:
    hub.fault("GET /large/", cut=0, times=99)
    assert "cannot be reached" in failure(HubUnreachableError)
    assert cached_files(home) == ["config.json"]  # complete and verified


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("what", ["GET /api/models/", "HEAD .*safetensors", "GET /large/", "GET .*config.json"])
def test_a_burst_of_server_errors_is_waited_out(hub: LoopbackHub, status: int, what: str) -> None:
    hub.fault(what, status=status, times=3)
    load_bundle(room.fetch_bundle(TINY))


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_stays_down_is_said(hub: LoopbackHub, home: Path, status: int) -> None:
    hub.fault("GET /api/models/", status=status, times=99)
    assert f"is busy or down ({status}); try again later" in failure(HubUnreachableError)
    assert cached_files(home) == []


@pytest.mark.parametrize(
    ("file", "request_line"),
    [
        ("model.safetensors", "GET /large/"),
        ("config.json", "GET .*/config.json"),
        ("README.md", "GET .*/README.md"),
    ],
)
def test_a_corrupted_file_of_the_right_size_is_refused(
    hub: LoopbackHub, home: Path, file: str, request_line: str
) -> None:
    fault = hub.fault(request_line, corrupt=True, times=99)
    message = failure(DigestError)
    assert message.startswith(f"clinic/tiny/{file}: ")
    assert "it was thrown away, try again later" in message
    assert file not in cached_files(home)
    assert not any(name.startswith("record") for name in cached_files(home))
    fault.times = 0
    load_bundle(room.fetch_bundle(TINY))


def test_a_wrong_digest_in_the_card_stops_before_the_download(hub: LoopbackHub, home: Path, cards: Path) -> None:
    write_card(cards, sha256="a" * 64)
    message = failure(DigestError, "tiny-ct")
    assert "its card pins aaaaaaaaaaaa…; nothing was downloaded, since it is not the file" in message
    assert hub.count("GET /large/") == 0
    assert "model.safetensors" not in cached_files(home)


def test_the_token_stays_home(hub: LoopbackHub) -> None:
    """Large files lie on another host, which the Hub redirects to."""
    room.fetch_bundle(TINY, token="hf_bob")
    large = [request for request in hub.requests if request.path.startswith("/large/")]
    assert large
    assert all(request.origin == "localhost" for request in large)
    assert all(request.authorization is None for request in large)
    home_requests = [request for request in hub.requests if not request.path.startswith("/large/")]
    assert {request.authorization for request in home_requests} == {"Bearer hf_bob"}


def test_a_wrong_token(hub: LoopbackHub, home: Path) -> None:
    message = failure(AccessError, token="hf_" + "wrong")
    assert message == "clinic/tiny: the Hub does not accept the token (401); make a new one in the account's settings"
    assert cached_files(home) == []


def test_a_token_without_the_rights(hub: LoopbackHub, home: Path) -> None:
    hub.fault("GET /api/models/", status=403, message="not for you")
    assert "clinic/tiny: the token lacks the rights (403: not for you)" in failure(AccessError)
    assert cached_files(home) == []


@pytest.mark.parametrize("signed_in", [True, False])
def test_a_repository_that_is_not_there(hub: LoopbackHub, home: Path, signed_in: bool, monkeypatch) -> None:
    if not signed_in:
        monkeypatch.delenv("HF_TOKEN")
    message = failure(UnknownModelError, "clinic/none")
    assert message.startswith(f"clinic/none: not on {hub.url}, or private; check the name, or ")
    assert message.endswith("ask its owner for access" if signed_in else "HF_TOKEN or pass --token")
    assert cached_files(home) == []


def test_a_private_repository(hub: LoopbackHub, home: Path) -> None:
    hub.repositories[TINY].private = True
    assert "or private" in failure(UnknownModelError, token="hf_stranger")
    assert cached_files(home) == []
    load_bundle(room.fetch_bundle(TINY, token="hf_bob"))


def test_a_gated_repository(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[TINY].gated = True
    accept = f"clinic/tiny: gated; accept its conditions at {hub.url}/clinic/tiny "
    assert failure(AccessError) == accept + "with the account of your token"
    monkeypatch.delenv("HF_TOKEN")
    assert failure(AccessError).startswith(accept + "there, then sign in with `hf auth login`")
    assert cached_files(home) == []
    hub.users["hf_bob"]["granted"].add(TINY)
    load_bundle(room.fetch_bundle(TINY, token="hf_bob"))


def test_a_name_that_is_none(home: Path) -> None:
    assert "no name of a repository, expected org/name" in failure(UnknownModelError, "a--b/c..d")


def test_a_missing_file(hub: LoopbackHub, home: Path) -> None:
    del hub.repositories[TINY].files["model.safetensors"]
    assert "holds no bundle of this package (config.json and model.safetensors)" in failure(CheckpointError)
    assert cached_files(home) == []


def test_paths_that_lead_out_are_never_followed(hub: LoopbackHub, tmp_path: Path, home: Path) -> None:
    hub.add(TINY, {"../../evil.json": b"{}", "/absolute.json": b"{}", "figures/../../x.png": b"x"})
    folder = room.fetch_bundle(TINY)
    load_bundle(folder)
    room.copy_bundle(folder, tmp_path / "copy")
    names = {path.name for path in tmp_path.rglob("*")}
    assert not names & {"evil.json", "absolute.json", "x.png"}


def test_a_link_in_a_repository_is_only_its_text(hub: LoopbackHub, run: Path) -> None:
    """Git stores a link as a small file with the path in it."""
    files = hub.repositories[TINY].files
    files["model.safetensors"] = Blob(b"../../../../etc/passwd")
    folder = room.fetch_bundle(TINY)
    with pytest.raises(CheckpointError, match=r"damaged, or no safetensors file"):
        load_bundle(folder)


def test_a_file_said_to_have_10_gb_is_not_downloaded(hub: LoopbackHub, run: Path, home: Path) -> None:
    weights = (run / "model.safetensors").read_bytes()
    hub.repositories[TINY].files["model.safetensors"] = Blob(weights, lfs=True, claimed_size=10 << 30)
    assert "has 10,737,418,240 bytes, expected at most " in failure(CheckpointError)
    assert hub.count("GET /large/") == 0
    hub.repositories[TINY].files["config.json"] = Blob(b"{}", claimed_size=10 << 30)
    assert "config.json: has 10,737,418,240 bytes" in failure(CheckpointError)


def test_a_header_said_to_have_10_gb_allocates_nothing(hub: LoopbackHub) -> None:
    claim = struct.pack("<Q", 10 << 30) + b"{}"
    blob = Blob(claim, lfs=True)
    hub.large[blob.sha256] = claim
    hub.repositories[TINY].files["model.safetensors"] = blob
    with pytest.raises(CheckpointError, match=r"damaged, or no safetensors file .*header too large"):
        load_bundle(room.fetch_bundle(TINY))


def test_a_tensor_of_10_gb_in_a_small_file_allocates_nothing(hub: LoopbackHub) -> None:
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [50000, 50000], "data_offsets": [0, 10**10]}})
    content = struct.pack("<Q", len(header)) + header.encode()
    blob = Blob(content, lfs=True)
    hub.large[blob.sha256] = content
    hub.repositories[TINY].files["model.safetensors"] = blob
    with pytest.raises(CheckpointError, match=r"damaged, or no safetensors file"):
        load_bundle(room.fetch_bundle(TINY))


def test_a_server_that_is_no_hub(hub: LoopbackHub, home: Path) -> None:
    hub.fault("GET /api/models/", status=418, message="teapot")
    assert "refused (418: teapot); see " in failure(HubError)
    assert cached_files(home) == []


def test_a_cache_that_cannot_be_written_is_said(home: Path) -> None:
    home.mkdir()
    (home / "hub").write_text("a file where the folder should be")
    message = failure(HubError)
    assert message.startswith("clinic/tiny: the transfer broke off (")
    assert message.endswith("; check space and rights under HF_HOME")


def test_digests_are_those_of_the_files(hub: LoopbackHub, run: Path) -> None:
    digests = room.verify(room.fetch_bundle(TINY))
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in bundle_files(run).items()}


def test_another_run_has_other_weights(tmp_path: Path, run: Path) -> None:
    other = write_run(tmp_path / "other", seed=1)
    assert room.verify(other)["model.safetensors"] != room.verify(run)["model.safetensors"]
