"""The cache: exact to half a level, shared, resumable, and as quick to open however large."""

import gzip
import json
import os
import pickle
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data import CacheEntry, SkippedScan, VolumeCache, find_scans, prepare, read_volume
from modelsgenesis.data import cache as room
from modelsgenesis.data.cache import LEVELS, volume_path, write_set
from modelsgenesis.errors import ConfigurationError, DataError, ScanError

CT = CONTRACTS["ct"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three small CT-like scans."""
    random = np.random.default_rng(0)
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, shape in enumerate([(12, 10, 8), (9, 9, 9), (16, 8, 4)]):
        array = random.integers(-1024, 1200, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / f"p{number}.nii.gz")
    return folder


def test_volumes_are_within_half_a_level_of_what_was_prepared(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    cache, refused = VolumeCache.build(references, CT, tmp_path / "cache")
    assert refused == []
    assert len(cache) == 3
    for index, reference in enumerate(references):
        volume, prepared = cache[index], prepare(read_volume(reference), CT)
        assert volume.dtype == np.uint16
        assert isinstance(volume, np.memmap)
        assert np.abs(volume / LEVELS - prepared.array).max() <= 0.5 / 65535 + 1e-7
        entry = cache.entry(index)
        assert (entry.shape, entry.spacing, entry.group) == (prepared.array.shape, (1, 1, 2), f"p{index}")
        assert entry.bounds == (-1000, 1000)
        assert volume.nbytes == 2 * prepared.array.size


def test_a_second_build_prepares_nothing(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references, _ = find_scans(scans)
    first, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    monkeypatch.setattr(room, "read_volume", lambda _: pytest.fail("a scan was read again"))
    second, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    assert first.name == second.name
    assert [entry.key for entry in first.entries()] == [entry.key for entry in second.entries()]


def test_a_build_cut_short_goes_on_where_it_was(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references, _ = find_scans(scans)

    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VolumeCache.build(references, CT, tmp_path / "cache", workers=1, progress=stop)
    read: list[str] = []
    original = room.read_volume
    monkeypatch.setattr(room, "read_volume", lambda scan: read.append(scan.source) or original(scan))
    cache, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    assert len(cache) == 3
    assert len(read) <= 1
    assert not [path for path in (tmp_path / "cache").rglob(".*") if path.is_file()]


def test_the_key_is_content_and_preparation(scans: Path, tmp_path: Path) -> None:
    copy = scans / "copy.nii.gz"
    copy.write_bytes((scans / "p0.nii.gz").read_bytes())
    references, _ = find_scans(scans)
    cache, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    keys = [entry.key for entry in cache.entries()]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    other, _ = VolumeCache.build(references, CT.override(window=(-200, 200)), tmp_path / "cache")
    assert not set(keys) & {entry.key for entry in other.entries()}


def test_a_changed_file_is_prepared_again_whatever_its_size_and_time_say(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    before, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    status, content = references[0].path.stat(), bytearray(gzip.decompress(references[0].path.read_bytes()))
    for level in range(10):  # another voxel in a file of the same size, and the time of change is set back
        content[-2] ^= 1
        references[0].path.write_bytes(gzip.compress(content, level))
        if references[0].path.stat().st_size == status.st_size:
            break
    os.utime(references[0].path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    assert before.entry(0).key != after.entry(0).key
    assert before.entry(1).key == after.entry(1).key


@pytest.mark.parametrize("damage", ["empty", "cut", "gone", "record {}", "record cut", "record NULs"])
def test_what_is_damaged_in_the_cache_is_prepared_again(scans: Path, tmp_path: Path, damage: str) -> None:
    references, _ = find_scans(scans)
    folder = tmp_path / "cache"
    whole, _ = VolumeCache.build(references, CT, folder)
    expected = [np.array(whole[index]) for index in range(3)]
    for path in [*folder.glob("volumes/*/*.npy"), *folder.glob("seen/*/*.json")]:
        content = path.read_bytes()
        if damage == "gone" and path.suffix == ".npy":
            path.unlink()
        elif damage.startswith("record") is (path.suffix == ".json"):
            changed = {"empty": b"", "cut": content[:-1], "{}": b"{}", "NULs": b"\0" * len(content)}
            path.write_bytes(changed.get(damage.split()[-1], content))
    again, refused = VolumeCache.build(references, CT, folder)
    assert refused == []
    for index, array in enumerate(expected):
        np.testing.assert_array_equal(again[index], array)


def test_one_bad_scan_is_refused_and_strict_raises(scans: Path, tmp_path: Path) -> None:
    bad = scans / "bad.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)), bad)
    references, _ = find_scans(scans)
    cache, refused = VolumeCache.build(references, CT, tmp_path / "cache")
    assert len(cache) == 3
    reason = "every voxel is 7; there is nothing to learn from a constant scan"
    assert refused == [SkippedScan(source=str(bad), reason=reason)]
    with pytest.raises(ScanError, match=r"bad.nii.gz: every voxel is 7"):
        VolumeCache.build(references, CT, tmp_path / "cache", strict=True)
    with pytest.raises(DataError, match=r"none of 1 scans can be used; the first, .*bad.nii.gz: every voxel"):
        VolumeCache.build(references[:1], CT, tmp_path / "cache")


def test_opens_by_name_and_pickles(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    built, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    opened = pickle.loads(pickle.dumps(VolumeCache(tmp_path / "cache", built.name)))
    assert opened.contract == CT
    assert len(opened) == 3
    np.testing.assert_array_equal(opened[2], built[2])
    with pytest.raises(IndexError, match=r"volume 3 of 3"):
        opened[3]


def test_what_cannot_be_opened_says_so(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    cache, _ = VolumeCache.build(references, CT, tmp_path / "cache")
    with pytest.raises(DataError, match="0123"):
        VolumeCache(tmp_path / "cache", "0123")
    for content in (b"no array", b"", np.zeros(3).tobytes()):
        volume_path(cache.folder, cache.entry(1).key).write_bytes(content)
        with pytest.raises(DataError, match=r"as a prepared volume: .*; the same command prepares it again"):
            VolumeCache(cache.folder, cache.name)[1]
    np.save(volume_path(cache.folder, cache.entry(1).key), np.zeros((2, 2), np.uint16))
    with pytest.raises(DataError, match=r"holds \(2, 2\) uint16, expected \(9, 9, 9\)"):
        VolumeCache(cache.folder, cache.name)[1]


def test_a_cache_of_standardized_volumes_is_refused(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    contract = InputContract(modality="ct", intensity="zscore")
    with pytest.raises(ConfigurationError, match=r"'zscore' does not map to"):
        VolumeCache.build(references, contract, tmp_path / "cache")


def test_a_folder_that_cannot_be_made(scans: Path, tmp_path: Path) -> None:
    references, _ = find_scans(scans)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        VolumeCache.build(references, CT, tmp_path / "file" / "cache")


def test_a_cache_of_100_000_volumes_opens_at_once(tmp_path: Path) -> None:
    """A synthetic manifest: its size on disk grows, what opening reads and keeps does not."""
    entries = [
        CacheEntry(
            key=f"{number:040x}",
            name=f"/scans/{number}.nii.gz",
            group=str(number),
            shape=(512, 512, number % 300 + 1),
            spacing=(0.7, 0.7, 1.0),
            bounds=(-1000.0, 1000.0),
        )
        for number in range(100_000)
    ]
    name = write_set(tmp_path, entries, CT)
    start = time.perf_counter()
    cache = VolumeCache(tmp_path, name)
    assert time.perf_counter() - start < 2
    assert len(cache) == 100_000
    assert cache.entry(99_999) == entries[-1]
    assert len(pickle.dumps(cache)) < 1000
    assert json.loads((tmp_path / "sets" / name / "contract.json").read_text()) == CT.to_dict()
