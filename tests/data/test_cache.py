"""The cache: exact to half a level, shared, resumable, and as quick to open however large."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data import CacheEntry, SkippedScan, VolumeCache, cache, find_scans, prepare, read_volume
from modelsgenesis.data.cache import LEVELS, VOLUME, write_set
from modelsgenesis.errors import ConfigurationError, DataError, ScanError

CT = CONTRACTS["ct"]
Build = Callable[..., tuple[VolumeCache, list[SkippedScan]]]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three small CT-like scans."""
    random = np.random.default_rng(0)
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, shape in enumerate([(12, 10, 8), (9, 9, 9), (16, 8, 4)]):
        array = random.integers(-1024, 1200, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / f"p{number}.nii")
    return folder


@pytest.fixture
def build(scans: Path, tmp_path: Path) -> Build:
    """Build the cache of the scans that are there."""
    return lambda contract=CT, **options: VolumeCache.build(
        find_scans(scans)[0], contract, tmp_path / "cache", **options
    )


def keys(store: VolumeCache) -> list[str]:
    return [store.entry(index).key for index in range(len(store))]


def test_volumes_are_within_half_a_level_of_what_was_prepared(scans: Path, build: Build) -> None:
    store, skipped = build()
    assert (skipped, len(store)) == ([], 3)
    for index in range(3):
        volume, prepared = store[index], prepare(read_volume(scans / f"p{index}.nii"), CT)
        assert (volume.dtype, isinstance(volume, np.memmap)) == (np.uint16, True)
        assert np.abs(volume / LEVELS - prepared.array).max() <= 0.5 / 65535 + 1e-7
        entry = store.entry(index)
        assert (entry.shape, entry.spacing, entry.group) == (prepared.array.shape, (1, 1, 2), f"p{index}")


def test_a_build_cut_short_goes_on_and_another_prepares_nothing(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if (done, total) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(workers=1, progress=stop)
    read: list[str] = []
    monkeypatch.setattr(cache, "read_volume", lambda scan: read.append(scan.source) or read_volume(scan))
    store, _ = build()
    assert (len(store), len(read) <= 1) == (3, True)
    again, _ = build()
    assert (store.name, keys(store), len(read) <= 1) == (again.name, keys(again), True)
    assert not [path for path in (tmp_path / "cache").rglob(".*") if path.is_file()]


def test_the_key_is_content_and_preparation_whatever_size_and_time_say(scans: Path, build: Build) -> None:
    path = scans / "p0.nii"
    (scans / "copy.nii").write_bytes(path.read_bytes())
    before = keys(build()[0])
    assert (before[0], len(set(before))) == (before[1], 3)
    assert not set(before) & set(keys(build(CT.override(window=(-200, 200)))[0]))
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [one == other for one, other in zip(before, keys(build()[0]), strict=True)] == [True, False, True, True]


@pytest.mark.parametrize("what", ["volumes/*/*.npy", "seen/*/*.json"])
def test_what_is_damaged_in_the_cache_is_prepared_again(build: Build, tmp_path: Path, what: str) -> None:
    whole, _ = build()
    expected = [np.array(whole[index]) for index in range(3)]
    for damage in (lambda whole: b"", lambda whole: whole[:-1], lambda _: b"{}"):
        for path in tmp_path.glob(f"cache/{what}"):
            path.write_bytes(damage(path.read_bytes()))
        again, skipped = build()
        assert skipped == []
        for index, array in enumerate(expected):
            np.testing.assert_array_equal(again[index], array)


def test_one_bad_scan_is_skipped_and_strict_raises(scans: Path, build: Build) -> None:
    bad = scans / "bad.nii"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)), bad)
    store, (skipped,) = build()
    assert (len(store), skipped.source, skipped.reason.startswith("every voxel is 7")) == (3, str(bad), True)
    with pytest.raises(ScanError, match=r"bad.nii: every voxel is 7"):
        build(strict=True)
    for path in scans.glob("p*"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of 1 scans can be used; the first, .*bad.nii: every voxel"):
        build()


def test_what_cannot_be_opened_or_built_says_so(build: Build, tmp_path: Path) -> None:
    store, _ = build()
    with pytest.raises(DataError, match="0123"):
        VolumeCache(tmp_path / "cache", "0123")
    path = store.folder / VOLUME.format(store.entry(1).key)
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match=r"as a prepared volume: .*; the same command prepares it again"):
        VolumeCache(store.folder, store.name)[1]
    np.save(path, np.zeros((2, 2), np.uint16))
    with pytest.raises(DataError, match=r"holds \(2, 2\) uint16, expected \(9, 9, 9\)"):
        VolumeCache(store.folder, store.name)[1]
    with pytest.raises(ConfigurationError, match=r"'zscore' does not map to"):
        build(InputContract(modality="ct", intensity="zscore"))


def test_a_set_is_read_line_by_line_and_goes_to_workers_by_its_name(tmp_path: Path) -> None:
    common = {"spacing": (0.7, 0.7, 1.0)}
    entries = [CacheEntry(key=f"{n:040x}", name=f"/{n}.nii", group="", shape=(9, 9, n), **common) for n in range(1000)]
    name = write_set(tmp_path, entries, CT)
    listed = tmp_path / "sets" / name / "entries.jsonl"
    listed.write_bytes(listed.read_bytes().replace(b"/0.nii", b'"'))  # what is damaged there is not looked at
    store = VolumeCache(tmp_path, name)
    assert (len(store), store.entry(999), len(pickle.dumps(store)) < 1000) == (1000, entries[-1], True)
