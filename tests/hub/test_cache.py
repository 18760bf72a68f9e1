"""Records and converted bundles on this machine."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis import hub as room
from modelsgenesis.hub.cache import Record, hub_digest, key_of, open_cache, sha256_of


@pytest.fixture
def record() -> Record:
    return Record(
        repository="clinic/tiny",
        revision="main",
        commit="0" * 40,
        sources={"a.pt": "1" * 64},
        root="bundles",
        folder="tiny-1",
        files={"config.json": "2" * 64},
    )


def test_the_environment_says_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert open_cache().root == tmp_path / "hf" / "modelsgenesis"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_cache().root == tmp_path / "xdg" / "modelsgenesis"
    monkeypatch.setenv("MODELSGENESIS_CACHE", str(tmp_path / "own"))
    assert open_cache().root == tmp_path / "own"


def test_a_record_is_read_back_until_it_is_forgotten_or_damaged(record: Record) -> None:
    cache = open_cache()
    assert cache.read("k") is None
    cache.write("k", record)
    cache.forget("clinic/other")
    assert cache.read("k") == record
    cache.forget("clinic/tiny")
    assert cache.read("k") is None
    for content in ("{", "[" * 100_000, "[]", "null", '{"repository": 3}', "\0", ""):
        (cache.records / "k.json").write_text(content)
        assert cache.read("k") is None


def test_bundles_that_nothing_leads_to_are_pruned(record: Record) -> None:
    cache = open_cache()
    for name in ("tiny-1", "tiny-0"):
        (cache.bundles / name).mkdir(parents=True)
        (cache.bundles / name / "model.safetensors").write_bytes(b"x" * 1000)
    cache.write("k", record)
    assert [(b.name, b.size, b.used) for b in room.cached_bundles()] == [
        ("tiny-0", 1000, False),
        ("tiny-1", 1000, True),
    ]
    assert [bundle.name for bundle in room.prune()] == ["tiny-0"]
    assert [bundle.name for bundle in room.cached_bundles()] == ["tiny-1"]
    assert [bundle.name for bundle in room.prune(everything=True)] == ["tiny-1"]
    assert room.cached_bundles() == []


def test_digests_are_gits_and_sha256(tmp_path: Path) -> None:
    """Golden values of `git hash-object` and `sha256sum` for the same content."""
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    assert hub_digest(path, "0" * 40) == hub_digest(b"hello\n", "0" * 40) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert hub_digest(path, "0" * 64) == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=3),
    st.lists(st.text(max_size=30), min_size=1, max_size=3),
)
def test_keys_are_file_names_and_tell_requests_apart(first: list[str], second: list[str]) -> None:
    key = key_of(*first)
    assert "/" not in key
    assert "\\" not in key
    assert len(key) < 100
    assert (key == key_of(*second)) == (first == second)


def test_untouched_files_are_taken_as_they_are_and_touched_ones_read(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tmp_path)
    file = cache.bundles / "b" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    digest = sha256_of(file)
    values = {**record.to_dict(), "root": "bundles", "folder": "b", "files": {"config.json": digest}}
    cache.write("k", Record.from_dict(values))
    kept = cache.read("k")
    assert kept is not None
    read: list[Path] = []

    def hashed(path: Path) -> str:
        read.append(path)
        return digest if path.read_text() == "{}" else "other"

    monkeypatch.setattr("modelsgenesis.hub.cache.sha256_of", hashed)
    assert cache.intact(kept)
    assert not read
    os.utime(file, ns=(1, 1))
    assert cache.intact(kept)
    assert read == [file]
    file.write_text("[]")
    assert not cache.intact(kept)
    file.unlink()
    assert not cache.intact(kept)
