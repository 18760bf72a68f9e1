"""Prepared volumes on disk, memory-mapped, 2 bytes a voxel, shared by runs and by processes.

    <folder>/volumes/ab/abcd….npy      the voxels, named by the content of the scan and its preparation
    <folder>/seen/cd/cdef….json        what a file was when it was prepared, so that it is not read again
    <folder>/sets/0123…/entries.jsonl  the volumes of one build, a line each
    <folder>/sets/0123…/contract.json  how they were prepared

Every file is written atomically, so a build can be cut short and started again, and several can run at once; a file
that is damaged all the same is made again by the next build. The `.jsonl` holds names of scans: the folder is local
and never published.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data.preparation import prepare
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.files import parsing, read_json, replacing, write_atomically, write_json

LEVELS = 65535  # a voxel is stored as its value in [0, 1] times this, rounded: an error of at most half of 1/65535

_FORMAT = 2  # rises when a volume is read or prepared otherwise, so that what was prepared before is not used
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
        bounds: Values of the scan that became 0 and 1.
    """

    key: str
    name: str
    group: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    bounds: tuple[float, float]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return an entry from what JSON made of it: lists are tuples again."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("shape", "spacing", "bounds")}})


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
        self._map = lru_cache(_OPEN_MAPS)(_map_volume)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.name)

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, index: int) -> CacheEntry:
        """Return what is known of a volume.

        Raises:
            IndexError: There is no such volume.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"volume {index} of {len(self)}")
        return CacheEntry.from_json(json.loads(self._lines[index]))

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what is known of every volume, in order."""
        return (self.entry(index) for index in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a volume, uint16 [*spatial], memory-mapped and read-only: the value in [0, 1] times 65535.

        Raises:
            IndexError: There is no such volume.
            DataError: Its file is gone or damaged.
        """
        entry = self.entry(index)
        path = volume_path(self.folder, entry.key)
        array = self._map(path)
        if array.shape != entry.shape or array.dtype != np.uint16:
            raise DataError(f"{path}: holds {array.shape} {array.dtype}, expected {entry.shape} uint16; delete it")
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
        if contract.intensity not in ("window", "percentiles"):
            raise ConfigurationError(
                f"intensity {contract.intensity!r} does not map to [0, 1]; choose window or percentiles"
            )
        folder = Path(folder)
        entries: list[CacheEntry] = []
        skipped: list[SkippedScan] = []
        results = _prepare_all(references, contract, folder, workers or os.cpu_count() or 1)
        for done, (reference, result) in enumerate(zip(references, results, strict=True), start=1):
            if isinstance(result, CacheEntry):
                entries.append(result)
            elif strict:
                raise result
            else:
                skipped.append(SkippedScan.because(reference.source, result))
            if progress:
                progress(done, len(references))
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


def _prepare_all(
    references: Sequence[ScanReference], contract: InputContract, folder: Path, workers: int
) -> Iterator[CacheEntry | ScanError]:
    """Yield the results in order; only a few scans are ahead of the one that is waited for.

    Threads, since decompression and arithmetic release the interpreter: no start-up, nothing to pickle. Twice as many
    scans as threads are under way, so that none idles while the results wait for a slow one.
    """
    waiting = iter(references)
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_prepare_scan, scan, contract, folder) for scan in islice(waiting, 2 * workers)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(_prepare_scan, scan, contract, folder) for scan in islice(waiting, 1)]
        finally:
            for future in running:
                future.cancel()


def _prepare_scan(reference: ScanReference, contract: InputContract, folder: Path) -> CacheEntry | ScanError:
    """Prepare one scan unless the cache has it; a scan that cannot be used is returned as its error."""
    try:
        seen = _seen_path(reference, contract, folder)
        if entry := _recall(seen, reference, folder):
            return entry
        key = _content_key(reference, contract)
        prepared = prepare(read_volume(reference), contract)
    except ScanError as error:
        return error
    entry = CacheEntry(
        key=key,
        name=reference.source,
        group=reference.group,
        shape=prepared.array.shape,
        spacing=prepared.spacing,
        bounds=prepared.bounds,
    )
    with replacing(volume_path(folder, key), DataError) as temporary, temporary.open("wb") as file:
        np.save(file, quantize(prepared.array))
        size = file.tell()
    write_json(seen, {**asdict(entry), "bytes": size}, DataError)
    return entry


def _recall(seen: Path, reference: ScanReference, folder: Path) -> CacheEntry | None:
    """Return the entry of an unchanged file whose volume is there and whole; name and group are today's."""
    try:
        with parsing(seen, DataError):
            values = read_json(seen, DataError)
            size = values.pop("bytes")
            entry = CacheEntry.from_json(values | {"name": reference.source, "group": reference.group})
            return entry if volume_path(folder, entry.key).stat().st_size == size else None
    except DataError:  # not seen yet, or damaged: prepare it
        return None


def quantize(array: np.ndarray) -> np.ndarray:
    """Turn [0, 1] into uint16 levels. The array is used up.

    Example:
        >>> quantize(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
        [0, 32768, 65535]
    """
    array *= LEVELS
    array += 0.5
    return array.astype(np.uint16)


def _seen_path(reference: ScanReference, contract: InputContract, folder: Path) -> Path:
    """Return the record of a file as it is now, which is told without reading it: place, size and times of change.

    The time of change of the inode tells what a tool did that sets the other time back, as `rsync -t` does.
    """
    digest = _recipe_digest(reference, contract)
    for path in reference.files:
        with parsing(reference.source, ScanError):
            status = path.stat()
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
            digest.update(f"{path.resolve()}\0{status.st_size}\0{times}\0".encode(errors="surrogateescape"))
    name = digest.hexdigest()
    return folder / "seen" / name[:2] / f"{name}.json"  # folders stay small


def _content_key(reference: ScanReference, contract: InputContract) -> str:
    """Return a digest of the bytes of the scan and of its preparation."""
    digest = _recipe_digest(reference, contract)
    for path in reference.files:
        with parsing(reference.source, ScanError), path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _recipe_digest(reference: ScanReference, contract: InputContract) -> Any:
    recipe = json.dumps([_FORMAT, contract.to_dict(), reference.index])
    return hashlib.blake2b(recipe.encode(), digest_size=20)


def volume_path(folder: Path, key: str) -> Path:
    """Return where the volume of a key lies."""
    return folder / "volumes" / key[:2] / f"{key}.npy"


def _map_volume(path: Path) -> np.ndarray:
    with parsing(path, DataError, what="as a prepared volume", remedy=_AGAIN):
        return np.load(path, mmap_mode="r")
