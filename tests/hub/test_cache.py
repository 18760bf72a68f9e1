"""Records of verified models and converted bundles on this machine."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.files import sha256_of, write_json
from modelsgenesis.hub import download
from modelsgenesis.hub.download import (
    Record,
    Target,
    cache_folder,
    cached_bundles,
    forget,
    is_intact,
    prune,
    read_record,
)


@pytest.fixture
def record():
    """The file of a record that leads to one of two converted bundles."""
    for name in ("tiny-1", "tiny-0"):
        (cache_folder("bundles") / name).mkdir(parents=True)
        (cache_folder("bundles") / name / "config.json").write_bytes(b"x" * 1000)
    files = {"config.json": sha256_of(cache_folder("bundles") / "tiny-1" / "config.json")}
    what = {"repository": "clinic/tiny", "commit": "0" * 40, "fingerprint": "", "folder": "../bundles/tiny-1"}
    return write_json(cache_folder("records") / "k.json", {**what, "files": files})


def test_the_environment_says_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HOME")
    for variable, place in (
        ("XDG_CACHE_HOME", "modelsgenesis/records"),
        ("HF_HOME", "modelsgenesis/records"),
        ("MODELSGENESIS_CACHE", "records"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert cache_folder("records") == tmp_path / variable / place


def test_a_record_is_read_back_until_it_is_forgotten_or_damaged(record):
    forget("clinic/other")
    assert isinstance(read_record(record), Record)
    forget("clinic/tiny")
    assert read_record(record) is None
    for content in ("{", "[" * 100_000, "[]", "null", '{"repository": 3}', "\0", ""):
        record.write_text(content)
        assert read_record(record) is None


def test_bundles_that_nothing_leads_to_are_pruned(record):
    listed = [(bundle.folder.name, bundle.size, bundle.used) for bundle in cached_bundles()]
    assert listed == [("tiny-0", 1000, False), ("tiny-1", 1000, True)]
    assert [bundle.folder.name for bundle in prune()] == ["tiny-0"]
    assert [bundle.folder.name for bundle in prune(everything=True)] == ["tiny-1"]
    assert cached_bundles() == []


def test_untouched_files_are_taken_as_they_are_and_touched_ones_read(record, monkeypatch):
    read = []
    monkeypatch.setattr(download, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    known = read_record(record)
    assert known is not None
    file, later = Path(known.folder, "config.json"), record.stat().st_mtime_ns + 10**9

    def intact_when_recorded_at(time):
        os.utime(record, ns=(time, time))
        return is_intact(record, known)

    assert intact_when_recorded_at(later)
    assert not read
    assert intact_when_recorded_at(later - 2 * 10**9)
    assert read == [file]
    file.write_bytes(b"y" * 1000)
    assert not intact_when_recorded_at(later - 2 * 10**9)
    file.unlink()
    assert not intact_when_recorded_at(later)


ASKED = st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30))


@given(ASKED, ASKED)
def test_names_of_records_are_file_names_and_tell_requests_apart(first, second):
    one, other = Target(*first).record, Target(*second).record
    assert one.parent == cache_folder("records")
    assert len(one.name.encode()) < 110
    assert (one == other) == (first == second)
