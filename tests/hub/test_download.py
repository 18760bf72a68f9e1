"""From a name to a verified bundle: what works, and what is kept."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from loopback_hub import LoopbackHub, use_endpoint
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import (
    CheckpointError,
    DigestError,
    HubError,
    HubUnreachableError,
    UnknownModelError,
)

from .conftest import (  # pyright: ignore[reportAttributeAccessIssue]
    bundle_files,
    cached_files,
    write_card,
    write_run,
)


@pytest.fixture
def tiny(hub: LoopbackHub, run: Path) -> str:
    """A bundle on the Hub."""
    hub.add("clinic/tiny", bundle_files(run))
    return "clinic/tiny"


def test_a_folder_is_returned_as_it_is(run: Path, no_network: Callable[[], None]) -> None:
    no_network()
    assert room.fetch_bundle(run) == run
    assert room.fetch_bundle(str(run)) == run


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/run", "a/b/c", "~/nowhere"])
def test_what_looks_like_a_folder_and_is_none_is_said(name: str, no_network: Callable[[], None]) -> None:
    no_network()
    with pytest.raises(UnknownModelError, match=r"no such folder; give a bundle"):
        room.fetch_bundle(name)


def test_a_folder_without_a_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no bundle"):
        room.fetch_bundle(tmp_path)
    with pytest.raises(UnknownModelError, match=r"is a folder, which has no revision 'v1'"):
        room.fetch_bundle(write_run(tmp_path / "r"), revision="v1")


def test_a_warm_bundle_needs_no_connection(tiny: str, run: Path, no_network: Callable[[], None]) -> None:
    cold = room.fetch_bundle(tiny)
    no_network()
    warm = room.fetch_bundle(tiny)
    assert warm == cold
    weights = [load_bundle(folder).network.state_dict() for folder in (warm, run)]
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_all_files_come_from_one_commit_though_the_branch_moves(
    tiny: str, hub: LoopbackHub, run: Path, tmp_path: Path
) -> None:
    first = hub.repositories[tiny].heads["main"]
    other = bundle_files(write_run(tmp_path / "other", seed=1))
    hub.fault("GET .*config.json", call=lambda: hub.add(tiny, other))
    folder = room.fetch_bundle(tiny)
    assert hub.repositories[tiny].heads["main"] != first
    assert folder.name == first
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_moved_branch_is_seen_when_asked_for(tiny: str, hub: LoopbackHub, tmp_path: Path) -> None:
    before = room.fetch_bundle(tiny)
    hub.add(tiny, bundle_files(write_run(tmp_path / "other", seed=1)))
    assert room.fetch_bundle(tiny) == before
    after = room.fetch_bundle(tiny, refresh=True)
    assert after.name == hub.repositories[tiny].heads["main"] != before.name
    assert room.fetch_bundle(tiny) == after


def test_a_revision_is_a_branch_or_a_commit(tiny: str, hub: LoopbackHub, tmp_path: Path) -> None:
    first = hub.repositories[tiny].heads["main"]
    hub.add(tiny, bundle_files(write_run(tmp_path / "other", seed=1)))
    hub.add(tiny, bundle_files(write_run(tmp_path / "third", seed=2)), branch="wild/branch")
    assert room.fetch_bundle(f"{tiny}@{first}").name == first
    assert room.fetch_bundle(tiny, revision="wild/branch").name == hub.repositories[tiny].heads["wild/branch"]
    with pytest.raises(UnknownModelError, match=r"asked for the revisions 'a' and 'b'; give one"):
        room.fetch_bundle(f"{tiny}@a", revision="b")
    with pytest.raises(UnknownModelError, match=r"clinic/tiny: has no revision 'gone'; see http"):
        room.fetch_bundle(tiny, revision="gone")


def test_a_name_of_the_registry_pins_the_file(tiny: str, run: Path, cards: Path, hub: LoopbackHub) -> None:
    write_card(cards, sha256=hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest())
    assert room.fetch_bundle("tiny-ct").name == hub.repositories[tiny].heads["main"]


def test_a_digest_added_to_the_card_later_is_checked_against_what_is_here(tiny: str, cards: Path, home: Path) -> None:
    room.fetch_bundle("tiny-ct")
    write_card(cards, sha256="a" * 64)
    with pytest.raises(DigestError, match=r"its card pins aaaaaaaaaaaa"):
        room.fetch_bundle("tiny-ct")


def test_a_card_that_describes_another_model_is_refused(tiny: str, cards: Path, home: Path) -> None:
    write_card(cards, network="{kind: genesis_unet, widths: [4, 16], norm: instance}")
    with pytest.raises(CheckpointError, match=r"tiny-ct: its file has network .*its card says .*16"):
        room.fetch_bundle("tiny-ct")
    assert not [name for name in cached_files(home) if name.startswith("record")]


def test_a_card_can_name_files_beside_it(run: Path, cards: Path, no_network: Callable[[], None]) -> None:
    no_network()
    write_card(cards, repository="null", file="tiny/model.safetensors")
    write_run(cards / "tiny")
    assert room.fetch_bundle("tiny-ct") == cards / "tiny"
    write_card(cards, repository="null", file="tiny/model.safetensors", sha256="a" * 64)
    with pytest.raises(DigestError, match=r"model\.safetensors: its SHA-256 is .*its card pins aaaa"):
        room.fetch_bundle("tiny-ct")
    write_card(cards, repository="null", file="link/model.safetensors")
    (cards / "link").symlink_to(run)
    with pytest.raises(CheckpointError, match=r"no such file in the folder of its card"):
        room.fetch_bundle("tiny-ct")


def test_what_was_altered_in_the_cache_is_fetched_again(tiny: str, hub: LoopbackHub, run: Path) -> None:
    weights = room.fetch_bundle(tiny) / "model.safetensors"
    content = weights.read_bytes()
    weights.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert room.fetch_bundle(tiny).joinpath("model.safetensors").read_bytes() == content


def test_what_was_altered_is_never_used_even_without_a_network(
    tiny: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = room.fetch_bundle(tiny) / "config.json"
    config.resolve().write_text(config.read_text().replace("ct", "mr"))
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    with pytest.raises(DigestError, match=r"clinic/tiny: the copy here was altered, and .*cannot be reached"):
        room.fetch_bundle(tiny)


def test_what_another_program_put_into_the_cache_is_not_trusted(tiny: str, hub: LoopbackHub, run: Path) -> None:
    """The client itself keeps a corrupted file of the right size; ours finds it and takes the good one."""
    from huggingface_hub import hf_hub_download

    hub.fault("GET /large/", corrupt=True)
    bad = Path(hf_hub_download(tiny, "model.safetensors"))
    good = (run / "model.safetensors").read_bytes()
    assert len(bad.read_bytes()) == len(good)
    assert bad.read_bytes() != good
    assert (room.fetch_bundle(tiny) / "model.safetensors").read_bytes() == good


def test_progress_is_told_by_file(tiny: str, run: Path) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    room.fetch_bundle(tiny, progress=lambda file, done, total: told.update({file: (done, total)}))
    size = (run / "model.safetensors").stat().st_size
    assert told["model.safetensors"] == (size, size)
    assert set(told) == {"config.json", "model.safetensors", "README.md"}


def test_nothing_is_drawn_without_progress(tiny: str, capfd: pytest.CaptureFixture[str]) -> None:
    room.fetch_bundle(tiny)
    assert capfd.readouterr() == ("", "")


def test_a_cache_folder_of_ones_own_holds_everything(tiny: str, tmp_path: Path, home: Path) -> None:
    folder = room.fetch_bundle(tiny, cache=tmp_path / "mine")
    assert tmp_path / "mine" in folder.parents
    assert not home.exists()


def test_a_moved_cache_still_works_offline(
    tiny: str, home: Path, monkeypatch: pytest.MonkeyPatch, no_network: Callable[[], None]
) -> None:
    """As when a cache is carried to a machine without a network."""
    room.fetch_bundle(tiny)
    moved = home.rename(home.with_name("carried"))
    monkeypatch.setenv("HF_HOME", str(moved))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved / "hub"))
    no_network()
    assert moved in room.fetch_bundle(tiny).parents


def test_offline_mode_opens_no_connection(
    tiny: str, monkeypatch: pytest.MonkeyPatch, no_network: Callable[[], None]
) -> None:
    room.fetch_bundle(tiny)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    no_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert room.fetch_bundle(tiny, refresh=True)
    with pytest.raises(
        HubUnreachableError, match=r"clinic/new: offline mode \(HF_HUB_OFFLINE\) forbids the connection"
    ):
        room.fetch_bundle("clinic/new")


def test_a_repository_of_another_format_names_the_models_that_read_it(
    hub: LoopbackHub, cards: Path, home: Path
) -> None:
    hub.add("clinic/tiny", {"Genesis.pt": b"x"})
    with pytest.raises(CheckpointError, match=r"holds no bundle of this package .*the registry reads it as tiny-ct"):
        room.fetch_bundle("clinic/tiny")
    assert cached_files(home) == []


def test_copy_and_verify(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"not on this machine; modelsgenesis download clinic/tiny"):
        room.verify(tiny)
    with pytest.raises(UnknownModelError, match=r"not on this machine"):
        room.cached_folder(tiny)
    folder = room.fetch_bundle(tiny)
    assert room.cached_folder(tiny) == folder
    copy = room.copy_bundle(folder, tmp_path / "out" / "copy")
    assert sorted(path.name for path in copy.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert not any(path.is_symlink() for path in copy.iterdir())
    assert room.verify(copy) == room.verify(tiny)
    with pytest.raises(HubError, match=r"copy: exists already; name a new folder"):
        room.copy_bundle(folder, copy)
    (folder / "README.md").resolve().write_text("altered")
    with pytest.raises(DigestError, match=r"README\.md: is not the file that was downloaded; modelsgenesis download"):
        room.verify(tiny)
