"""Records and converted bundles on this machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.files import sha256_of
from modelsgenesis.hub.cache import Record, cached_bundles, key_of, open_cache, prune

RECORD = Record(repository="clinic/tiny", commit="0" * 40, fingerprint="", root="bundles", folder="tiny-1", files={})


@pytest.fixture
def cache():
    """A cache with two converted bundles, to one of which a record leads."""
    cache = open_cache()
    for name in ("tiny-1", "tiny-0"):
        (cache.bundles / name).mkdir(parents=True)
        (cache.bundles / name / "config.json").write_bytes(b"x" * 1000)
    cache.write("k", RECORD.override(files={"config.json": sha256_of(cache.bundles / "tiny-1" / "config.json")}))
    return cache


def test_the_environment_says_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HOME")
    for variable, place in (
        ("XDG_CACHE_HOME", "modelsgenesis"),
        ("HF_HOME", "modelsgenesis"),
        ("MODELSGENESIS_CACHE", ""),
    ):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert open_cache().root == tmp_path / variable / place


def test_a_record_is_read_back_until_it_is_forgotten_or_damaged(cache):
    cache.forget("clinic/other")
    assert cache.read("k") is not None
    cache.forget("clinic/tiny")
    assert cache.read("k") is None
    for content in ("{", "[" * 100_000, "[]", "null", '{"repository": 3}', "\0", ""):
        (cache.records / "k.json").write_text(content)
        assert cache.read("k") is None


def test_bundles_that_nothing_leads_to_are_pruned(cache):
    listed = [(bundle.name, bundle.size, bundle.used) for bundle in cached_bundles()]
    assert listed == [("tiny-0", 1000, False), ("tiny-1", 1000, True)]
    assert [bundle.name for bundle in prune()] == ["tiny-0"]
    assert [bundle.name for bundle in cached_bundles()] == ["tiny-1"]
    assert [bundle.name for bundle in prune(everything=True)] == ["tiny-1"]
    assert cached_bundles() == []


def test_untouched_files_are_taken_as_they_are_and_touched_ones_read(cache, monkeypatch):
    read: list[Path] = []

    def digest(path):
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr("modelsgenesis.hub.cache.sha256_of", digest)
    record, file = cache.read("k"), cache.bundles / "tiny-1" / "config.json"
    assert record is not None
    later = (cache.records / "k.json").stat().st_mtime_ns + 10**9

    def is_intact(recorded_at):
        import os

        os.utime(cache.records / "k.json", ns=(recorded_at, recorded_at))
        return cache.is_intact("k", record)

    assert is_intact(later)
    assert not read
    assert is_intact(later - 2 * 10**9)
    assert read == [file]
    file.write_bytes(b"y" * 1000)
    assert not is_intact(later - 2 * 10**9)
    file.unlink()
    assert not is_intact(later)


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=3),
    st.lists(st.text(max_size=30), min_size=1, max_size=3),
)
def test_keys_are_file_names_and_tell_requests_apart(first, second):
    key = key_of(*first)
    assert not set("/\\") & set(key)
    assert len(key) < 100
    assert (key == key_of(*second)) == (first == second)
