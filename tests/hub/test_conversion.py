"""Models in others' formats: downloaded, checked, converted once, and found again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from loopback_hub import LoopbackHub
from modelsgenesis import checkpoints
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import Bundle, export_bundle, load_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
from modelsgenesis.errors import CheckpointError, DigestError
from modelsgenesis.networks import build_network

from .conftest import cached_files, write_card  # pyright: ignore[reportAttributeAccessIssue]

REPOSITORY = "authors/weights"
NETWORK = GenesisUNetConfig(widths=(4, 8, 16, 32))


def write_foreign_card(cards: Path, parameters: int, widths: str = "[4, 8, 16, 32]", **changes: str) -> None:
    network = f"{{kind: genesis_unet, widths: {widths}}}"
    what = {"repository": REPOSITORY, "file": "Genesis.pt", "format": "genesis-pytorch", "network": network, **changes}
    write_card(cards, "foreign", parameters=str(parameters), **what)


@pytest.fixture
def published(hub: LoopbackHub, cards: Path, tmp_path: Path) -> Bundle:
    """A small network in the layout of the release, on the Hub, with a card."""
    torch.manual_seed(0)
    made = Provenance(origin="untrained", library_version="0")
    config = BundleConfig(
        task="restoration", network=NETWORK, input=CONTRACTS["ct"], patch_size=(16, 16, 8), provenance=made
    )
    bundle = Bundle(build_network(NETWORK).eval(), config)
    file = export_bundle(bundle, tmp_path / "Genesis.pt", to="torch")
    hub.add(REPOSITORY, {"Genesis.pt": file.read_bytes()})
    write_foreign_card(cards, sum(parameter.numel() for parameter in bundle.network.parameters()))
    return bundle


def test_a_foreign_file_becomes_a_bundle_that_says_where_it_is_from(
    published: Bundle, hub: LoopbackHub, cards: Path, home: Path
) -> None:
    folder = room.fetch_bundle("foreign")
    assert folder.parent == home / "modelsgenesis" / "bundles"
    bundle = load_bundle(folder)
    x = torch.rand(1, 1, 16, 16, 8)
    assert torch.equal(bundle.network(x), published.network(x))
    blob = hub.repositories[REPOSITORY].files["Genesis.pt"]
    assert bundle.config.provenance.origin == "converted"
    assert bundle.config.provenance.source == {
        "repository": REPOSITORY,
        "revision": hub.repositories[REPOSITORY].heads["main"],
        "file": "Genesis.pt",
        "sha256": blob.sha256,
        "format": "genesis-pytorch",
        "converter_version": checkpoints.CONVERTER_VERSION,
    }
    assert bundle.card == (cards / "foreign.md").read_text()


def test_it_is_converted_once_and_warm_without_a_connection(
    published: Bundle, hub: LoopbackHub, no_network: Callable[[], None]
) -> None:
    cold = room.fetch_bundle("foreign")
    time = cold.stat().st_mtime_ns
    no_network()
    assert room.fetch_bundle("foreign") == cold
    assert cold.stat().st_mtime_ns == time
    assert set(room.verify("foreign")) == {"config.json", "model.safetensors", "README.md"}
    assert [bundle.used for bundle in room.cached_bundles()] == [True]


def test_a_newer_converter_converts_anew_from_the_same_download(
    published: Bundle, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = room.fetch_bundle("foreign")
    monkeypatch.setattr(checkpoints, "CONVERTER_VERSION", "newer")
    second = room.fetch_bundle("foreign")
    assert {bundle.name: bundle.used for bundle in room.cached_bundles()} == {first.name: False, second.name: True}
    assert [bundle.name for bundle in room.prune()] == [first.name]
    room.prune(everything=True)
    assert room.fetch_bundle("foreign") == second
    assert hub.count("GET /large/") == 1


def test_an_altered_bundle_is_converted_again(published: Bundle) -> None:
    config = room.fetch_bundle("foreign") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "labels": ["x"]}))
    with pytest.raises(DigestError, match=r"config\.json"):
        room.verify("foreign")
    assert load_bundle(room.fetch_bundle("foreign")).config.labels == ()


def test_two_conversions_at_once_give_one_bundle(published: Bundle, home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: room.fetch_bundle("foreign"), range(2)))
    assert len(folders) == 1
    load_bundle(next(iter(folders)))
    assert set((home / "modelsgenesis" / "bundles").iterdir()) == folders


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("what", ["another network", "code", "too large", "a missing file"])
def test_a_file_that_cannot_be_converted_leaves_no_bundle(
    hub: LoopbackHub, published: Bundle, cards: Path, tmp_path: Path, home: Path, what: str
) -> None:
    kind, word = CheckpointError, "Genesis.pt"
    if what == "another network":
        write_foreign_card(cards, 100_000, "[4, 8, 16, 64]")
    elif what == "code":
        torch.save({"state_dict": _Evil(tmp_path / "pwned")}, tmp_path / "evil.pt")
        hub.add(REPOSITORY, {"Genesis.pt": (tmp_path / "evil.pt").read_bytes()})
        kind = CheckpointError
    elif what == "too large":
        hub.add(REPOSITORY, {"Genesis.pt": b"x" * (16 << 20)})
        word = "16,777,216 bytes"
    else:
        write_foreign_card(cards, 100_000, format="genesis-pytorch\n  extra_files: [plan.json]")
        word = "plan.json: not in the repository"
    with pytest.raises(kind) as caught:
        room.fetch_bundle("foreign")
    assert word in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    assert hub.count("GET /large/") == (what != "too large")
    assert [name for name in cached_files(home) if name.startswith(("bundle", "record"))] == []
