"""Prepared volumes on disk, memory-mapped, 2 bytes a voxel, shared by runs and by processes.

    <folder>/volumes/ab/abcd….npy      the voxels, named by the content of the scan and its preparation
    <folder>/seen/cd/cdef….json        what a file was when it was prepared, so that it is not read again
    <folder>/sets/0123…/entries.jsonl  the volumes of one build, a line each
    <folder>/sets/0123…/offsets.npy    where each line starts

Every file is written atomically, so a build can be cut short and started again, and several can run at once; a file
that is damaged all the same is made again by the next build. Opening maps two files and reads neither. The `.jsonl`
holds names of scans: the folder is local and never published.
"""

import hashlib
import json
import mmap
import os
import shutil
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
from modelsgenesis.data.resampling import resampled_shape
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import ConfigurationError, DataError, GenesisError, ScanError
from modelsgenesis.files import parsing, read_json, replacing, write_atomically, write_json

LEVELS = 65535
"""A voxel is stored as its value in [0, 1] times this, rounded: an error of at most half of 1/65535."""

_FORMAT = 2  # rises when a volume is read or prepared otherwise, so that what was prepared before is not used
_OPEN_MAPS = 256
_MARGIN = 2**28  # bytes that stay free
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
            self._offsets = np.load(place / "offsets.npy", mmap_mode="r")
            with (place / "entries.jsonl").open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map = lru_cache(_OPEN_MAPS)(_map_volume)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.name)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def entry(self, index: int) -> CacheEntry:
        """Return what is known of a volume.

        Raises:
            IndexError: There is no such volume.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"volume {index} of {len(self)}")
        return _entry(json.loads(self._lines[int(self._offsets[index]) : int(self._offsets[index + 1])]))

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
            strict: Raise on the first scan that cannot be used, instead of refusing it.
            progress: Called with the scans done and their number after each.

        Returns:
            The cache, in the order of `references` without the refused ones, and the refusals.

        Raises:
            ConfigurationError: The contract's intensities do not become [0, 1].
            DataError: No scan can be used, or the disk is too full for them.
            ScanError: A scan cannot be used and `strict` is set.

        Example:
            scans, _ = find_scans("scans")
            cache, refused = VolumeCache.build(scans, CONTRACTS["ct"], "cache")
            cache[0].shape, cache[0].dtype  # (512, 512, 133), uint16
        """
        if contract.intensity not in ("window", "percentiles"):
            raise ConfigurationError(
                f"intensity {contract.intensity!r} does not map to [0, 1]; choose window or percentiles"
            )
        folder = Path(folder)
        _check_space(references, contract, folder)
        entries: list[CacheEntry] = []
        refused: list[SkippedScan] = []
        results = _prepare_all(references, contract, folder, workers or os.cpu_count() or 1)
        for done, (reference, result) in enumerate(zip(references, results, strict=True), start=1):
            if isinstance(result, CacheEntry):
                entries.append(result)
            elif strict:
                raise result
            else:
                source = reference.source
                refused.append(SkippedScan(source=source, reason=str(result).removeprefix(f"{source}: ")))
            if progress:
                progress(done, len(references))
        if not entries:
            first = f"; the first, {refused[0].source}: {refused[0].reason}" if refused else ""
            raise DataError(f"none of {len(references)} scans can be used{first}")
        return cls(folder, write_set(folder, entries, contract)), refused


def write_set(folder: Path, entries: Sequence[CacheEntry], contract: InputContract) -> str:
    """Write the manifest of a set and return its name."""
    lines = [json.dumps(asdict(entry)).encode() + b"\n" for entry in entries]
    recipe = json.dumps(contract.to_dict()).encode()
    name = hashlib.blake2b(b"".join([recipe, *lines]), digest_size=12).hexdigest()
    place = folder / "sets" / name
    _save_array(place / "offsets.npy", np.cumsum([0, *map(len, lines)], dtype=np.int64))
    write_atomically(place / "entries.jsonl", b"".join(lines), DataError)
    write_atomically(place / "contract.json", recipe, DataError)
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
        entry = _recall(seen, reference, folder)
        if entry is None:
            entry, size = _store(reference, contract, folder)
            write_json(seen, {**asdict(entry), "bytes": size}, DataError)
    except ScanError as error:
        return error
    return entry


def _recall(seen: Path, reference: ScanReference, folder: Path) -> CacheEntry | None:
    """Return the entry of an unchanged file whose volume is there and whole; name and group are today's."""
    try:
        with parsing(seen, DataError):
            values = read_json(seen, DataError)
            size = values.pop("bytes")
            entry = _entry(values | {"name": reference.source, "group": reference.group})
            return entry if volume_path(folder, entry.key).stat().st_size == size else None
    except DataError:  # not seen yet, or damaged: prepare it
        return None


def _store(reference: ScanReference, contract: InputContract, folder: Path) -> tuple[CacheEntry, int]:
    """Prepare a scan and return its entry and the bytes of its file."""
    key = _content_key(reference, contract)
    prepared = prepare(read_volume(reference), contract)
    entry = CacheEntry(
        key=key,
        name=reference.source,
        group=reference.group,
        shape=prepared.array.shape,
        spacing=prepared.spacing,
        bounds=prepared.bounds,
    )
    path = volume_path(folder, key)
    return entry, _save_array(path, quantize(prepared.array))


def quantize(array: np.ndarray) -> np.ndarray:
    """Turn [0, 1] into uint16 levels, an error of at most half of 1/65535. The array is used up.

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
    for path in reference.parts:
        with parsing(reference.source, ScanError):
            status = path.stat()
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
            digest.update(f"{path.resolve()}\0{status.st_size}\0{times}\0".encode(errors="surrogateescape"))
    name = digest.hexdigest()
    return folder / "seen" / name[:2] / f"{name}.json"  # folders stay small


def _content_key(reference: ScanReference, contract: InputContract) -> str:
    """Digest of the bytes of the scan and of its preparation."""
    digest = _recipe_digest(reference, contract)
    for path in reference.parts:
        with parsing(reference.source, ScanError), path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _recipe_digest(reference: ScanReference, contract: InputContract) -> Any:
    recipe = json.dumps([_FORMAT, contract.to_dict(), reference.index])
    return hashlib.blake2b(recipe.encode(), digest_size=20)


def _entry(values: dict[str, Any]) -> CacheEntry:
    """Build an entry from what JSON made of it."""
    return CacheEntry(**{**values, **{name: tuple(values[name]) for name in ("shape", "spacing", "bounds")}})


def volume_path(folder: Path, key: str) -> Path:
    """Return where the volume of a key lies."""
    return folder / "volumes" / key[:2] / f"{key}.npy"


def _save_array(path: Path, array: np.ndarray) -> int:
    """Write an array atomically and return the bytes of the file."""
    with replacing(path, DataError) as temporary, temporary.open("wb") as file:
        np.save(file, array)
        return file.tell()


def _map_volume(path: Path) -> np.ndarray:
    """Map a volume, read-only; the last ones stay mapped."""
    with parsing(path, DataError, what="as a prepared volume", remedy=_AGAIN):
        return np.load(path, mmap_mode="r")


def _check_space(references: Sequence[ScanReference], contract: InputContract, folder: Path) -> None:
    """Refuse to start what the disk cannot hold, as far as the headers tell.

    Raises:
        DataError: The disk is too full, or the folder cannot be made.
    """
    with parsing(folder, DataError, what="as a cache", remedy="choose another folder with --cache"):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    needed = sum(_prepared_bytes(scan, contract) for scan in references if not _is_seen(scan, contract, folder))
    if needed + _MARGIN > free and needed:
        raise DataError(
            f"{folder}: {needed / 2**30:.1f} GiB of prepared volumes, {free / 2**30:.1f} GiB are free; "
            "choose another folder with --cache"
        )


def _is_seen(reference: ScanReference, contract: InputContract, folder: Path) -> bool:
    try:
        return _seen_path(reference, contract, folder).is_file()
    except GenesisError:  # it will be refused by its name when its turn comes
        return True


def _prepared_bytes(reference: ScanReference, contract: InputContract) -> int:
    shape = reference.shape
    if contract.spacing is not None and reference.spacing is not None and len(shape) == len(contract.spacing):
        shape = resampled_shape(shape, reference.spacing, contract.spacing)
    return 2 * int(np.prod(shape, dtype=np.int64))
