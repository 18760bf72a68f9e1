"""Prepared volumes on disk, memory-mapped, 2 bytes a voxel, shared by runs and by processes.

    <folder>/volumes/ab/abcd….npy      the voxels, named by the content of the scan and its preparation
    <folder>/seen/cd/cdef….json        what a file was when it was prepared, so that it is not read again
    <folder>/sets/0123…/entries.jsonl  the volumes of one build, a line each
    <folder>/sets/0123…/offsets.npy    where each line starts

Every file is written aside and renamed, so a build can be cut short and started again, and several can run
at once. Opening maps two files and reads neither. The `.jsonl` holds names of scans: the folder is local and
never published.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data.store import (
    CacheEntry,
    check_space,
    entry_of,
    make_folder,
    map_volume,
    store_scan,
    volume_path,
    write_aside,
)
from modelsgenesis.data.volume import Refusal, ScanReference
from modelsgenesis.errors import ConfigurationError, DataError, ScanError


class VolumeCache:
    """Prepared volumes by index; see `build` and `open`.

    It can be given to worker processes: each maps the files for itself.

    Attributes:
        folder: The cache's folder.
        name: The set's name in it.
        contract: How the volumes were prepared.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        place = folder / "sets" / name
        try:
            self.contract = InputContract.from_dict(json.loads((place / "contract.json").read_text()))
            self._offsets = np.load(place / "offsets.npy", mmap_mode="r")
            with (place / "entries.jsonl").open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: no set of this cache: {error}; build it again") from error

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
        values = json.loads(self._lines[int(self._offsets[index]) : int(self._offsets[index + 1])])
        return entry_of(values)

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what is known of every volume, in order."""
        return (self.entry(index) for index in range(len(self)))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a volume, uint16 [*spatial], memory-mapped and read-only: the value in [0, 1] times 65535.

        Raises:
            IndexError: There is no such volume.
            DataError: Its file is gone or damaged.
        """
        entry = self.entry(index)
        array = map_volume(volume_path(self.folder, entry.key))
        if array.shape != entry.shape or array.dtype != np.uint16:
            raise DataError(
                f"{volume_path(self.folder, entry.key)}: holds {array.shape} {array.dtype}; "
                f"expected {entry.shape} uint16, delete it and build again"
            )
        return array

    @classmethod
    def open(cls, folder: str | Path, name: str | None = None) -> Self:
        """Open what was built.

        Args:
            folder: The cache's folder.
            name: Which set; by default the one built last.

        Raises:
            DataError: The folder holds no such set.
        """
        folder = Path(folder)
        if name is None:
            try:
                name = (folder / "last").read_text().strip()
            except OSError as error:
                raise DataError(f"{folder}: holds no cache of prepared volumes; build one first") from error
        return cls(folder, name)

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
    ) -> tuple[Self, list[Refusal]]:
        """Prepare the scans that are not in the cache yet, and open the set of them all.

        Args:
            references: The scans.
            contract: How to prepare them; the intensities must become [0, 1].
            folder: The cache's folder, made if it is not there; runs may share it.
            workers: Scans at once; by default one a core.
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
        make_folder(folder)
        check_space(references, contract, folder)
        entries: list[CacheEntry] = []
        refused: list[Refusal] = []
        results = _prepare_all(references, contract, folder, workers or os.cpu_count() or 1)
        for done, result in enumerate(results, start=1):
            if isinstance(result, CacheEntry):
                entries.append(result)
            elif strict:
                raise result
            else:
                source = references[done - 1].source
                refused.append(Refusal(source=source, reason=str(result).removeprefix(f"{source}: ")))
            if progress:
                progress(done, len(references))
        if not entries:
            first = f"; the first, {refused[0].source}: {refused[0].reason}" if refused else ""
            raise DataError(f"none of {len(references)} scans can be used{first}")
        return cls(folder, write_set(folder, entries, contract)), refused


def write_set(folder: Path, entries: Sequence[CacheEntry], contract: InputContract) -> str:
    """Write the manifest of a set, make it the last one, and return its name."""
    lines = [json.dumps(asdict(entry)).encode() + b"\n" for entry in entries]
    recipe = json.dumps(contract.to_dict()).encode()
    name = hashlib.blake2b(b"".join([recipe, *lines]), digest_size=12).hexdigest()
    offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
    place = folder / "sets" / name
    write_aside(place / "offsets.npy", lambda file: np.save(file, offsets))
    write_aside(place / "entries.jsonl", lambda file: file.writelines(lines))
    write_aside(place / "contract.json", lambda file: file.write(recipe))
    write_aside(folder / "last", lambda file: file.write(name.encode()))
    return name


def _prepare_all(
    references: Sequence[ScanReference], contract: InputContract, folder: Path, workers: int
) -> Iterator[CacheEntry | ScanError]:
    """Yield the results in order; only a few scans are ahead of the one that is waited for.

    Threads, since decompression and arithmetic release the interpreter: no start-up, nothing to pickle.
    """
    waiting = iter(references)
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(store_scan, scan, contract, folder) for scan in islice(waiting, 2 * workers)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(store_scan, scan, contract, folder) for scan in islice(waiting, 1)]
        finally:
            for future in running:
                future.cancel()
