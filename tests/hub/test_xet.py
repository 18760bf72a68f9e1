"""The same over xet, the Hub's storage of chunks, with a folder of this machine as the store."""

import hashlib
import shutil

import hf_xet
import pytest
from huggingface_hub import constants

from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import HubError
from modelsgenesis.hub import client
from modelsgenesis.hub.download import fetch_bundle
from modelsgenesis.hub.push import push_to_hub
from runs_to_push import GENESIS, cached_files


@pytest.fixture(autouse=True)
def store(hub, run, tmp_path, monkeypatch):
    """Turn the storage of chunks on."""
    hub.xet = tmp_path / "chunks"
    hub.xet.mkdir()
    files = [run / "model.safetensors", run / "figures" / "restorations.png"]
    for file in files:
        (found,) = hf_xet.hash_files([str(file)])
        hub.xet_hashes[hashlib.sha256(file.read_bytes()).hexdigest()] = found.hash
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(client, "_schemes", lambda: ("http", "local"))
    return hub.xet


def test_push_then_fetch(hub, run):
    made = push_to_hub(run, GENESIS)
    assert hub.count("PUT /large/") == 0
    weights = (run / "model.safetensors").read_bytes()
    assert hub.repositories[GENESIS].files["model.safetensors"].content == weights
    folder = fetch_bundle(GENESIS)
    assert folder.name == made.commit
    assert hub.count("GET /large/") == 0
    assert hub.count("GET .*xet-read-token") > 0
    assert (folder / "model.safetensors").read_bytes() == weights
    load_bundle(folder)


def test_what_the_storage_gives_is_checked_too(hub, run, home):
    """Another file's chunks under the record of this one."""
    push_to_hub(run, GENESIS)
    weights = next(iter(hub.xet_hashes))
    other = bytearray((run / "model.safetensors").read_bytes())
    other[-1] ^= 1
    fake = run / "fake.bin"
    fake.write_bytes(other)
    (found,) = hf_xet.hash_files([str(fake)])
    session = hf_xet.XetSession()
    with session.new_upload_commit(endpoint=f"local://{hub.xet}", token="xet", token_expiry_unix_secs=2**31) as commit:
        commit.start_upload_file(str(fake), sha256=hashlib.sha256(other).hexdigest())
    hub.xet_hashes[weights] = found.hash
    with pytest.raises(HubError, match=r"model\.safetensors: its digest is .*it was thrown away"):
        fetch_bundle(GENESIS)
    assert "model.safetensors" not in cached_files(home)


def test_a_storage_that_fails_is_one_line(hub, run, home, store, monkeypatch):
    hub.xet = run / "config.json"  # a file where the folder should be
    with pytest.raises(HubError, match=r"the transfer broke off \(.*repeat with: "):
        push_to_hub(run, GENESIS)
    hub.xet = store
    push_to_hub(run, GENESIS)
    with monkeypatch.context() as patched:
        patched.setattr(client, "_schemes", lambda: ("http", "https"))
        with pytest.raises(HubError, match="storage that is not on the network"):  # local://, of this machine's files
            fetch_bundle(GENESIS)
    shutil.rmtree(store)
    store.mkdir()
    with pytest.raises(HubError, match=r"the transfer broke off \("):
        fetch_bundle(GENESIS)
    assert "model.safetensors" not in cached_files(home)
