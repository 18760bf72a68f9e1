"""From a name to a verified bundle: what works, and what is kept."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download

from loopback_hub import LoopbackHub, use_endpoint
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import CheckpointError, DigestError, HubError, HubUnreachableError, UnknownModelError

from .conftest import bundle_files, cached_files, write_card, write_run  # pyright: ignore[reportAttributeAccessIssue]

TINY = "clinic/tiny"
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def tiny(hub: LoopbackHub, run: Path) -> str:
    """A bundle on the Hub."""
    hub.add(TINY, bundle_files(run))
    return TINY


@pytest.fixture
def other(tmp_path: Path) -> dict[str, bytes]:
    """The files of another run."""
    return bundle_files(write_run(tmp_path / "other", seed=1))


def test_a_folder_is_returned_as_it_is(run: Path, tmp_path: Path, no_network: Callable[[], None]) -> None:
    no_network()
    assert room.fetch_bundle(run) == room.fetch_bundle(str(run)) == run
    with pytest.raises(CheckpointError, match="no bundle"):
        room.fetch_bundle(tmp_path)
    with pytest.raises(UnknownModelError, match="no revision 'v1'"):
        room.fetch_bundle(run, revision="v1")
    for name in ("./nowhere", "/nowhere/run", "a/b/c", "~/nowhere"):
        with pytest.raises(UnknownModelError, match="no such folder"):
            room.fetch_bundle(name)


def test_a_warm_bundle_needs_no_connection(
    tiny: str, run: Path, home: Path, monkeypatch: pytest.MonkeyPatch, no_network: Callable[[], None]
) -> None:
    """Nor does one in a cache that was carried to a machine without a network."""
    cold = room.fetch_bundle(tiny)
    no_network()
    assert room.fetch_bundle(tiny) == cold
    assert {name: (cold / name).read_bytes() for name in FILES} == bundle_files(run)
    carried = home.rename(home.with_name("carried"))
    monkeypatch.setenv("HF_HOME", str(carried))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(carried / "hub"))
    assert carried in room.fetch_bundle(tiny).parents


def test_all_files_come_from_one_commit_though_the_branch_moves(
    tiny: str, hub: LoopbackHub, run: Path, other: dict[str, bytes]
) -> None:
    first = hub.repositories[tiny].heads["main"]
    hub.fault("GET .*config.json", call=lambda: hub.add(tiny, other))
    folder = room.fetch_bundle(tiny)
    assert folder.name == first != hub.repositories[tiny].heads["main"]
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert room.fetch_bundle(tiny) == folder
    after = room.fetch_bundle(tiny, refresh=True)
    assert after.name == hub.repositories[tiny].heads["main"]
    assert room.fetch_bundle(tiny) == after


def test_a_revision_is_a_branch_or_a_commit(tiny: str, hub: LoopbackHub, other: dict[str, bytes], run: Path) -> None:
    first = hub.repositories[tiny].heads["main"]
    hub.add(tiny, other)
    hub.add(tiny, bundle_files(run), branch="wild/branch")
    assert room.fetch_bundle(f"{tiny}@{first}").name == first
    assert room.fetch_bundle(tiny, revision="wild/branch").name == hub.repositories[tiny].heads["wild/branch"]
    for name, revision, words in ((f"{tiny}@a", "b", "'a' and 'b'"), (tiny, "gone", "'gone'")):
        with pytest.raises(UnknownModelError, match=words):
            room.fetch_bundle(name, revision=revision)


def test_a_name_of_the_registry_pins_the_file(tiny: str, run: Path, cards: Path, hub: LoopbackHub) -> None:
    write_card(cards, sha256=hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest())
    assert room.fetch_bundle("tiny-ct").name == hub.repositories[tiny].heads["main"]
    write_card(cards, sha256="a" * 64)  # later: it is checked against what is here
    with pytest.raises(DigestError, match="pins aaaaaaaaaaaa"):
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
    with pytest.raises(DigestError, match="pins aaaa"):
        room.fetch_bundle("tiny-ct")
    write_card(cards, repository="null", file="link/model.safetensors")
    (cards / "link").symlink_to(run)
    with pytest.raises(CheckpointError, match="no such file in the folder of its card"):
        room.fetch_bundle("tiny-ct")


def test_what_was_altered_in_the_cache_is_fetched_again_or_refused(
    tiny: str, closed_port: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = room.fetch_bundle(tiny) / "model.safetensors"
    content = weights.read_bytes()
    altered = content[:-1] + bytes([content[-1] ^ 1])
    weights.resolve().write_bytes(altered)
    assert (room.fetch_bundle(tiny) / "model.safetensors").read_bytes() == content
    weights.resolve().write_bytes(altered)
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    with pytest.raises(DigestError, match=r"the copy here was altered, and .*cannot be reached"):
        room.fetch_bundle(tiny)


def test_what_another_program_put_into_the_cache_is_not_trusted(tiny: str, hub: LoopbackHub, run: Path) -> None:
    """The client itself keeps a corrupted file of the right size; ours finds it and takes the good one."""
    hub.fault("GET /large/", corrupt=True)
    bad = Path(hf_hub_download(tiny, "model.safetensors"))
    good = (run / "model.safetensors").read_bytes()
    assert len(bad.read_bytes()) == len(good)
    assert bad.read_bytes() != good
    assert (room.fetch_bundle(tiny) / "model.safetensors").read_bytes() == good


def test_progress_is_told_by_file_and_nothing_is_drawn(tiny: str, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = {}
    room.fetch_bundle(tiny, progress=lambda file, done, total: told.update({file: (done, total)}))
    assert told == {name: (len(content), len(content)) for name, content in bundle_files(run).items()}
    assert capfd.readouterr() == ("", "")


def test_a_cache_folder_of_ones_own_holds_everything(tiny: str, tmp_path: Path, home: Path) -> None:
    assert tmp_path / "mine" in room.fetch_bundle(tiny, cache=tmp_path / "mine").parents
    assert not home.exists()


def test_offline_mode_opens_no_connection(
    tiny: str, monkeypatch: pytest.MonkeyPatch, no_network: Callable[[], None]
) -> None:
    room.fetch_bundle(tiny)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    no_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert room.fetch_bundle(tiny, refresh=True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE"):
        room.fetch_bundle("clinic/new")


def test_a_repository_of_another_format_names_the_models_that_read_it(
    hub: LoopbackHub, cards: Path, home: Path
) -> None:
    hub.add(TINY, {"Genesis.pt": b"x"})
    with pytest.raises(CheckpointError, match=r"no bundle .*the registry reads it as tiny-ct"):
        room.fetch_bundle(TINY)
    assert cached_files(home) == []


def test_copy_and_verify(tiny: str, run: Path, tmp_path: Path) -> None:
    for use in (room.verify, room.cached_folder):
        with pytest.raises(UnknownModelError, match="modelsgenesis download clinic/tiny"):
            use(tiny)
    folder = room.fetch_bundle(tiny)
    assert room.cached_folder(tiny) == folder
    copy = room.copy_bundle(folder, tmp_path / "out" / "copy")
    assert sorted(path.name for path in copy.iterdir()) == FILES
    assert not any(path.is_symlink() for path in copy.iterdir())
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in bundle_files(run).items()}
    assert room.verify(copy) == room.verify(tiny) == digests
    assert sorted(path.name for path in room.copy_bundle(run, tmp_path / "alone").iterdir()) == FILES
    with pytest.raises(HubError, match="exists already"):
        room.copy_bundle(folder, copy)
    (folder / "README.md").resolve().write_text("altered")
    with pytest.raises(DigestError, match=r"README\.md"):
        room.verify(tiny)
    load_bundle(copy)
