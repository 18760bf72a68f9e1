"""Prepared volumes on disk, memory-mapped, 2 bytes a voxel, shared by runs and by processes.

    <folder>/volumes/ab/abcd….npy      the voxels, named by the content of the scan and its preparation
    <folder>/seen/cd/cdef….json        what a file was when it was prepared, so that it is not read again
    <folder>/sets/0123…/entries.jsonl  the volumes of one build, one per line
    <folder>/sets/0123…/contract.json  how they were prepared

Every file is written atomically, so a build can be cut short and started again, and several can run at once; a file
that is damaged all the same is made again by the next build. The `.jsonl` holds names of scans: the folder is local
and never published.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from nibabel.affines import voxel_sizes

from modelsgenesis.configs import InputContract
from modelsgenesis.data.preparation import prepare
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, require
from modelsgenesis.files import parsing, read_json, replacing, write_atomically, write_json

VOLUME = "volumes/{0:.2}/{0}.npy"  # by its key, whose first two letters keep the folders small
LEVELS = 65535  # a voxel is stored as its value in [0, 1] times this, rounded: an error of at most half of 1/65535

_FORMAT = 3  # rises when a volume is read or prepared otherwise, so that what was prepared before is not used
_OPEN_MAPS = 256
_AGAIN = "the same command prepares it again"


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """A prepared volume as the cache knows it.

    Attributes:
        key: Name of its file: a digest of the scan's content and its preparation.
        name: What a message calls the scan; local, not to be published.
        group: The patient, as in `ScanReference`.
        shape: [*spatial] as prepared.
        spacing: mm along each axis.
    """

    key: str
    name: str
    group: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]


class VolumeCache:
    """Prepared volumes by index; see `build`.

    It can be given to worker processes: each maps the files for itself.

    Attributes:
        folder: The cache's folder.
        name: The set's name in it.
        contract: How the volumes were prepared.

    Raises:
        DataError: The folder holds no such set.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        place = folder / "sets" / name
        with parsing(place, DataError, what="as a set of the cache", remedy=_AGAIN):
            self.contract = InputContract.from_dict(read_json(place / "contract.json", DataError))
            # Lines, which are parsed when they are asked for: a set may list 100,000 volumes.
            self._lines = (place / "entries.jsonl").read_bytes().splitlines()
        self._map = lru_cache(_OPEN_MAPS)(partial(np.load, mmap_mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.name)

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, index: int) -> CacheEntry:
        """Return what is known of a volume."""
        values = json.loads(self._lines[index])
        values |= {name: tuple(values[name]) for name in ("shape", "spacing")}  # JSON has lists alone
        return CacheEntry(**values)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a volume, uint16 [*spatial], memory-mapped and read-only: the value in [0, 1] times 65535.

        Raises:
            DataError: Its file is gone or damaged.
        """
        entry = self.entry(index)
        path = self.folder / VOLUME.format(entry.key)
        with parsing(path, DataError, what="as a prepared volume", remedy=_AGAIN):
            array = self._map(path)
            if array.shape != entry.shape or array.dtype != np.uint16:
                raise ValueError(f"holds {array.shape} {array.dtype}, expected {entry.shape} uint16")
        return array

    @classmethod
    def build(
        cls,
        references: Sequence[ScanReference],
        contract: InputContract,
        folder: str | Path,
        *,
        workers: int | None = None,
        strict: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Self, list[SkippedScan]]:
        """Prepare the scans that are not in the cache yet, and open the set of them all.

        Args:
            references: The scans.
            contract: How to prepare them; the intensities must become [0, 1].
            folder: The cache's folder, made if it is not there; runs may share it.
            workers: Scans at once; by default one per core.
            strict: Raise on the first scan that cannot be used, instead of skipping it.
            progress: Called with the scans done and their number after each.

        Returns:
            The cache, in the order of `references` without the skipped ones, and these.

        Raises:
            ConfigurationError: The contract's intensities do not become [0, 1].
            DataError: No scan can be used, or the folder cannot be written or is full.
            ScanError: A scan cannot be used and `strict` is set.

        Example:
            scans, _ = find_scans("scans")
            cache, skipped = VolumeCache.build(scans, CONTRACTS["ct"], "cache")
            cache[0].shape, cache[0].dtype  # (512, 512, 133), uint16
        """
        unbounded = f"intensity {contract.intensity!r} does not map to [0, 1]; choose window or percentiles"
        require(contract.intensity in ("window", "percentiles"), ConfigurationError, unbounded)
        folder = Path(folder)
        entries: list[CacheEntry] = []
        skipped: list[SkippedScan] = []
        # Threads, since decompression and arithmetic release the interpreter: no start-up, nothing to pickle.
        pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
        try:
            results = pool.map(partial(_prepare_scan, contract=contract, folder=folder), references)
            for done, (reference, result) in enumerate(zip(references, results, strict=True), start=1):
                if isinstance(result, CacheEntry):
                    entries.append(result)
                elif strict:
                    raise result
                else:
                    skipped.append(SkippedScan.because(reference.source, result))
                if progress:
                    progress(done, len(references))
        finally:  # a build that is interrupted ends with the scans that are under way
            pool.shutdown(cancel_futures=True)
        if not entries:
            first = f"; the first, {skipped[0].source}: {skipped[0].reason}" if skipped else ""
            raise DataError(f"none of {len(references)} scans can be used{first}")
        return cls(folder, write_set(folder, entries, contract)), skipped


def write_set(folder: Path, entries: Sequence[CacheEntry], contract: InputContract) -> str:
    """Write the list of a set and return its name."""
    lines = b"".join(json.dumps(asdict(entry)).encode() + b"\n" for entry in entries)
    recipe = json.dumps(contract.to_dict()).encode()
    name = hashlib.blake2b(recipe + lines, digest_size=12).hexdigest()
    write_atomically(folder / "sets" / name / "entries.jsonl", lines, DataError)
    write_atomically(folder / "sets" / name / "contract.json", recipe, DataError)
    return name


def _prepare_scan(reference: ScanReference, contract: InputContract, folder: Path) -> CacheEntry | ScanError:
    """Prepare one scan unless the cache has it; a scan that cannot be used is returned as its error.

    A file is the one that was seen if its place, size and times of change are; that of the inode tells what a tool did
    that sets the other back, as `rsync -t` does.
    """
    known: dict[str, Any] = {"name": reference.source, "group": reference.group}  # as they are called today
    recipe = json.dumps([_FORMAT, contract.to_dict(), reference.index]).encode()
    state, content = (hashlib.blake2b(recipe, digest_size=20) for _ in range(2))
    try:
        with parsing(reference.source, ScanError):
            for path in reference.files:
                status = path.stat()
                told = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0"
                state.update(told.encode(errors="surrogateescape"))
            seen = folder / "seen/{0:.2}/{0}.json".format(state.hexdigest())
            with suppress(DataError), parsing(seen, DataError):  # not seen yet, or damaged: prepare it
                values = read_json(seen, DataError)
                size = values.pop("bytes")
                entry = CacheEntry(**(values | known))  # with lists for tuples, which a set's line holds alike
                if (folder / VOLUME.format(entry.key)).stat().st_size == size:
                    return entry
            for path in reference.files:
                with path.open("rb") as file:
                    hashlib.file_digest(file, lambda: content)  # goes on with the same one
        prepared = prepare(read_volume(reference), contract)
    except ScanError as error:
        return error
    array, spacing = prepared.array, tuple(voxel_sizes(prepared.affine)[: prepared.array.ndim].tolist())
    entry = CacheEntry(key=content.hexdigest(), shape=array.shape, spacing=spacing, **known)
    array *= LEVELS  # in place: a volume may fill a good part of the memory
    array += 0.5
    with replacing(folder / VOLUME.format(entry.key), DataError) as temporary, temporary.open("wb") as file:
        np.save(file, array.astype(np.uint16))
        size = file.tell()
    write_json(seen, {**asdict(entry), "bytes": size}, DataError)
    return entry
