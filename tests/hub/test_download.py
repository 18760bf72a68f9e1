"""From a name to a verified bundle: what works, what is kept, and others' formats, converted once."""

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from loopback_hub import use_endpoint
from modelsgenesis import checkpoints, from_pretrained
from modelsgenesis.checkpoints import Bundle, export_bundle, load_bundle
from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, HubError
from modelsgenesis.files import sha256_of
from modelsgenesis.hub import download
from modelsgenesis.hub.download import cache_folder, cached_bundles, copy_bundle, fetch_bundle, prune, verify
from modelsgenesis.networks import build_network
from runs_to_push import CONFIG, TINY, bundle_files, cached_files, failure, write_card, write_run

FILES = ["README.md", "config.json", "model.safetensors"]


def test_a_folder_is_returned_as_it_is(run, tmp_path, no_network):
    no_network()
    assert fetch_bundle(run) == fetch_bundle(str(run)) == run
    assert "not a bundle" in failure(lambda: fetch_bundle(tmp_path), CheckpointError)
    assert "no revision 'v1'" in failure(lambda: fetch_bundle(run, revision="v1"), "unknown")
    for name in ("./nowhere", "/nowhere/run", "a/b/c", "~/nowhere"):
        assert "no such folder" in failure(lambda name=name: fetch_bundle(name), "unknown")


@pytest.mark.parametrize("name", ["runs/typo", "runs/typo@main", "runs\\typo", "./runs/typo"])
def test_a_name_whose_parent_folder_is_here_is_a_path_and_never_sent(hub, run, tmp_path, monkeypatch, no_network, name):
    monkeypatch.chdir(tmp_path)
    run.parent.joinpath("runs").mkdir()
    write_run(tmp_path / "runs" / "typed")
    no_network()
    message = failure(lambda: fetch_bundle(name), "unknown")
    assert "no such model in the folder runs; did you mean runs/typed?" in message or "no such folder" in message
    assert hub.requests == []


def test_a_cache_of_ones_own_a_copy_that_is_here_and_a_fresh_one(tiny_on_hub, hub, tmp_path, cards, home, no_network):
    own = tmp_path / "own"
    folder = fetch_bundle("tiny-ct", cache_dir=own)
    assert own in folder.parents
    assert cached_files(home) == []
    assert fetch_bundle("tiny-ct", cache_dir=own, force_download=True) == folder
    assert hub.count("GET /large/") == 2
    no_network()
    assert fetch_bundle("tiny-ct", cache_dir=own, local_files_only=True) == folder
    assert from_pretrained("tiny-ct", cache_dir=own, local_files_only=True, device="cpu").name == "tiny-ct"
    message = failure(lambda: fetch_bundle("tiny-ct", local_files_only=True), "unknown")
    assert message == "tiny-ct: no intact copy on this machine; modelsgenesis download tiny-ct"
    both = {"local_files_only": True, "force_download": True}
    assert "exclude each other" in failure(lambda: fetch_bundle("tiny-ct", **both), ConfigurationError)


def test_a_repository_that_moved_is_followed(tiny_on_hub, hub, second):
    hub.repositories["old/name"] = hub.repositories[TINY]
    hub.fault("GET /api/models/old/name", status=307, headers={"Location": f"/api/models/{TINY}"}, times=9)
    for name in FILES:
        hub.fault(
            f"/old/name/resolve/.*/{name}",
            status=307,
            times=9,
            headers={"Location": f"/{TINY}/resolve/{hub.repositories[TINY].heads['main']}/{name}"},
        )
    assert (fetch_bundle("old/name") / "model.safetensors").is_file()


def test_a_warm_bundle_needs_no_connection(tiny_on_hub, run, home, monkeypatch, no_network):
    """Nor does one in a cache that was carried to a machine without a network."""
    cold = fetch_bundle(TINY)
    no_network()
    assert fetch_bundle(TINY) == cold
    assert {name: (cold / name).read_bytes() for name in FILES} == bundle_files(run)
    carried = home.rename(home.with_name("carried"))
    monkeypatch.setenv("HF_HOME", str(carried))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(carried / "hub"))
    assert carried in fetch_bundle(TINY).parents


def test_all_files_come_from_one_commit_though_the_branch_moves(tiny_on_hub, hub, run, second):
    first = hub.repositories[TINY].heads["main"]
    hub.fault("GET .*config.json", call=lambda: hub.add(TINY, bundle_files(second)))
    folder = fetch_bundle(TINY)
    assert folder.name == first != hub.repositories[TINY].heads["main"]
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert fetch_bundle(TINY) == folder
    after = fetch_bundle(TINY, refresh=True)
    assert after.name == hub.repositories[TINY].heads["main"]
    assert fetch_bundle(TINY) == after


def test_a_revision_is_a_branch_or_a_commit(tiny_on_hub, hub, second, run):
    first = hub.repositories[TINY].heads["main"]
    hub.add(TINY, bundle_files(second))
    hub.add(TINY, bundle_files(run), branch="wild/branch")
    assert fetch_bundle(f"{TINY}@{first}").name == first
    assert fetch_bundle(TINY, revision="wild/branch").name == hub.repositories[TINY].heads["wild/branch"]
    assert "'a' and 'b'" in failure(lambda: fetch_bundle(f"{TINY}@a", revision="b"), "unknown")
    assert "'gone'" in failure(lambda: fetch_bundle(TINY, revision="gone"), "unknown")


def test_a_card_that_describes_another_model_is_refused(tiny_on_hub, cards):
    write_card(cards, network="{kind: genesis_unet, widths: [4, 16], norm: instance}")
    message = failure(lambda: fetch_bundle("tiny-ct"), CheckpointError)
    assert message.startswith("tiny-ct: its file has network ")
    assert "16" in message.partition("its card says")[2]
    assert message == failure(lambda: fetch_bundle("tiny-ct"), CheckpointError)


def test_a_card_can_name_files_beside_it(run, cards, no_network):
    no_network()
    write_card(cards, repository="null", file="tiny/model.safetensors")
    write_run(cards / "tiny")
    assert fetch_bundle("tiny-ct") == cards / "tiny"
    assert "no revision 'v1'" in failure(lambda: fetch_bundle("tiny-ct@v1"), "unknown")
    write_card(cards, repository="null", file="tiny/model.safetensors", sha256="a" * 64)
    assert "pins aaaa" in failure(lambda: fetch_bundle("tiny-ct"), "other")
    write_card(cards, repository="null", file="link/model.safetensors")
    (cards / "link").symlink_to(run)
    assert "in the folder of its card" in failure(lambda: fetch_bundle("tiny-ct"), CheckpointError)


def test_what_was_altered_in_the_cache_is_fetched_again_or_refused(tiny_on_hub, closed_port, monkeypatch):
    weights = fetch_bundle(TINY) / "model.safetensors"
    content = weights.read_bytes()
    altered = content[:-1] + bytes([content[-1] ^ 1])
    weights.resolve().write_bytes(altered)
    assert (fetch_bundle(TINY) / "model.safetensors").read_bytes() == content
    weights.resolve().write_bytes(altered)
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    assert "the copy here was altered, and " in failure(lambda: fetch_bundle(TINY), "other")


def test_progress_is_told_by_file_and_nothing_is_drawn(tiny_on_hub, run, capfd):
    told: dict[str, Any] = {}
    fetch_bundle(TINY, progress=lambda file, done, total: told.update({file: (done, total)}))
    assert told == {name: (len(content), len(content)) for name, content in bundle_files(run).items()}
    assert capfd.readouterr() == ("", "")


def test_offline_mode_opens_no_connection(tiny_on_hub, monkeypatch, no_network):
    fetch_bundle(TINY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    no_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch_bundle(TINY, refresh=True)
    assert "HF_HUB_OFFLINE" in failure(lambda: fetch_bundle("clinic/new"), "unreachable")


def test_copy_and_verify(tiny_on_hub, run, tmp_path):
    assert "modelsgenesis download clinic/tiny" in failure(lambda: verify(TINY), "unknown")
    folder = fetch_bundle(TINY)
    copy = copy_bundle(folder, tmp_path / "out" / "copy")
    assert sorted(path.name for path in copy.iterdir() if not path.is_symlink()) == FILES
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in bundle_files(run).items()}
    assert verify(copy) == verify(TINY) == digests
    with pytest.raises(HubError, match="exists already"):
        copy_bundle(folder, copy)
    (folder / "README.md").resolve().write_text("altered")
    with pytest.raises(HubError, match=r"README\.md"):
        verify(TINY)
    load_bundle(copy)


AUTHORS = "authors/weights"


def write_foreign_card(cards, widths="[4, 8, 16, 32]", **changes):
    network = f"{{kind: genesis_unet, widths: {widths}}}"
    what = {"repository": AUTHORS, "file": "Genesis.pt", "format": "genesis-pytorch", "network": network, **changes}
    write_card(cards, "foreign", parameters=100_000, **what)


@pytest.fixture
def published(hub, cards, tmp_path):
    """A small network in the layout of the release, on the Hub, with a card."""
    torch.manual_seed(0)
    network = GenesisUNetConfig(widths=(4, 8, 16, 32))
    bundle = Bundle(build_network(network).eval(), CONFIG.override(network=network))
    file = export_bundle(bundle, tmp_path / "Genesis.pt", to="torch")
    hub.add(AUTHORS, {"Genesis.pt": file.read_bytes()})
    write_foreign_card(cards)
    return bundle


def test_a_foreign_file_becomes_a_bundle_that_says_where_it_is_from(
    published, hub, cards, home, no_network, monkeypatch
):
    """Once: the next time it is found without a connection."""
    folder = fetch_bundle("foreign")
    assert folder.parent == home / "modelsgenesis" / "bundles"
    bundle = load_bundle(folder)
    x = torch.rand(1, 1, 16, 16, 8)
    assert torch.equal(bundle.network(x), published.network(x))
    assert bundle.config.provenance.origin == "converted"
    source, repository = bundle.config.provenance.source, hub.repositories[AUTHORS]
    assert source["revision"] == repository.heads["main"]
    assert source["sha256"] == repository.files["Genesis.pt"].sha256
    assert bundle.card == (cards / "foreign.md").read_text()
    no_network()
    assert fetch_bundle("foreign") == folder
    assert sorted(verify("foreign")) == FILES
    assert [bundle.used for bundle in cached_bundles()] == [True]


def test_a_newer_converter_converts_anew_from_the_same_download(published, hub, monkeypatch):
    first = fetch_bundle("foreign")
    monkeypatch.setattr(checkpoints, "CONVERTER_VERSION", "newer")
    second = fetch_bundle("foreign")
    assert {bundle.folder: bundle.used for bundle in cached_bundles()} == {first: False, second: True}
    assert [bundle.folder for bundle in prune()] == [first]
    prune(everything=True)
    assert fetch_bundle("foreign") == second
    assert hub.count("GET /large/") == 1


def test_an_altered_bundle_is_converted_again(published):
    config = fetch_bundle("foreign") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "labels": ["x"]}))
    with pytest.raises(HubError, match=r"config\.json"):
        verify("foreign")
    assert load_bundle(fetch_bundle("foreign")).config.labels == ()


def test_two_conversions_at_once_give_one_bundle(published, home):
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: fetch_bundle("foreign"), range(2)))
    assert len(folders) == 1
    load_bundle(next(iter(folders)))
    assert set((home / "modelsgenesis" / "bundles").iterdir()) == folders


@pytest.mark.parametrize(
    ("changes", "content", "word"),
    [
        ({"widths": "[4, 8, 16, 64]"}, None, "Genesis.pt"),
        ({}, b"x" * (16 << 20), "16,777,216 bytes"),
        ({"format": "genesis-pytorch\n  extra_files: [plan.json]"}, None, "plan.json: not in the repository"),
    ],
)
def test_a_file_that_cannot_be_converted_leaves_no_bundle(hub, published, cards, home, changes, content, word):
    write_foreign_card(cards, **changes)
    hub.add(AUTHORS, {"Genesis.pt": content} if content else {})
    assert word in failure(lambda: fetch_bundle("foreign"), CheckpointError)
    assert not [name for name in cached_files(home) if name.startswith(("record", "bundle"))]


def test_the_environment_says_where_the_cache_is(monkeypatch, tmp_path):
    for variable, place in (("HF_HOME", "modelsgenesis/records"), ("MODELSGENESIS_CACHE", "records")):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert cache_folder("records") == tmp_path / variable / place


def test_a_damaged_record_is_made_anew(tiny_on_hub, home):
    folder = fetch_bundle(TINY)
    (record,) = home.rglob("records/*.json")
    for content in ("{", "[" * 100_000, "[]", "null", '{"repository": 3}', "\0", ""):
        record.write_text(content)
        assert fetch_bundle(TINY) == folder


def test_untouched_files_are_taken_as_they_are_and_touched_ones_read(tiny_on_hub, home, monkeypatch):
    fetch_bundle(TINY)
    (record,), read = home.rglob("records/*.json"), []
    monkeypatch.setattr(download, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    for seconds, expected in ((1, []), (-100, FILES)):
        time = record.stat().st_mtime + seconds
        os.utime(record, (time, time))
        fetch_bundle(TINY)
        assert sorted(read) == expected
