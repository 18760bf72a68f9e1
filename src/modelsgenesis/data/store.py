"""The files of the cache: written aside and renamed, named by content, recalled without reading the scan."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data.preparation import prepare
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.resampling import resampled_shape
from modelsgenesis.data.volume import ScanReference
from modelsgenesis.errors import DataError, ScanError

LEVELS = 65535
"""A voxel is stored as its value in [0, 1] times this, rounded: an error of at most half of 1/65535."""

_FORMAT = 1  # rises when a prepared volume would come out differently
_OPEN_MAPS = 256
_MARGIN = 2**28  # bytes that stay free


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


def store_scan(reference: ScanReference, contract: InputContract, folder: Path) -> CacheEntry | ScanError:
    """Prepare one scan unless the cache has it; a scan that cannot be used is returned as its error."""
    try:
        seen = folder / "seen" / _spread(_identity(reference, contract), ".json")
        entry = _recall(seen, reference, folder)
        if entry is None:
            entry = _store(reference, contract, folder)
            write_aside(seen, lambda file: file.write(json.dumps(asdict(entry)).encode()))
    except ScanError as error:
        return error
    return entry


def _recall(seen: Path, reference: ScanReference, folder: Path) -> CacheEntry | None:
    """Return the entry of an unchanged file whose volume is there; name and group are today's."""
    try:
        values = json.loads(seen.read_text())
    except (OSError, ValueError):  # not seen yet, or cut short: prepare it
        return None
    entry = entry_of(values | {"name": reference.source, "group": reference.group})
    return entry if volume_path(folder, entry.key).is_file() else None


def _store(reference: ScanReference, contract: InputContract, folder: Path) -> CacheEntry:
    key = _content_key(reference, contract)
    prepared = prepare(read_volume(reference), contract)
    path = volume_path(folder, key)
    if not path.is_file():
        levels = quantize(prepared.array)
        write_aside(path, lambda file: np.save(file, levels))
    return CacheEntry(
        key=key,
        name=reference.source,
        group=reference.group,
        shape=prepared.array.shape,
        spacing=prepared.spacing,
        bounds=prepared.bounds,
    )


def quantize(array: np.ndarray) -> np.ndarray:
    """Turn [0, 1] into uint16 levels, an error of at most half of 1/65535. The array is used up.

    Example:
        >>> quantize(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
        [0, 32768, 65535]
    """
    array *= LEVELS
    array += 0.5
    return array.astype(np.uint16)


def _identity(reference: ScanReference, contract: InputContract) -> str:
    """Digest of what tells an unchanged file without reading it: place, size and time of change."""
    digest = _digest(reference, contract)
    for path in reference.parts:
        try:
            status = path.stat()
        except OSError as error:
            raise ScanError(f"{reference.source}: cannot be read: {error.strerror}") from error
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _content_key(reference: ScanReference, contract: InputContract) -> str:
    """Digest of the bytes of the scan and of its preparation."""
    digest = _digest(reference, contract)
    for path in reference.parts:
        try:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise ScanError(f"{reference.source}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _digest(reference: ScanReference, contract: InputContract) -> Any:
    recipe = json.dumps([_FORMAT, contract.to_dict(), reference.index])
    return hashlib.blake2b(recipe.encode(), digest_size=20)


def entry_of(values: dict[str, Any]) -> CacheEntry:
    """Build an entry from what JSON made of it."""
    tuples: dict[str, Any] = {name: tuple(values[name]) for name in ("shape", "spacing", "bounds")}
    return CacheEntry(**{**values, **tuples})


def _spread(key: str, suffix: str) -> str:
    """Return a path that keeps folders small."""
    return f"{key[:2]}/{key}{suffix}"


def volume_path(folder: Path, key: str) -> Path:
    """Return where the volume of a key lies."""
    return folder / "volumes" / _spread(key, ".npy")


@lru_cache(_OPEN_MAPS)
def map_volume(path: Path) -> np.ndarray:
    """Map a volume, read-only; the last ones stay mapped.

    Raises:
        DataError: The file is gone or damaged.
    """
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: a prepared volume is gone or damaged: {error}; build again") from error


def check_space(references: Sequence[ScanReference], contract: InputContract, folder: Path) -> None:
    """Refuse to start what the disk cannot hold, as far as the headers tell.

    Raises:
        DataError: The disk is too full.
    """
    needed = sum(_prepared_bytes(scan, contract) for scan in references if not _is_stored(scan, contract, folder))
    free = shutil.disk_usage(folder).free
    if needed + _MARGIN > free and needed:
        raise DataError(
            f"{folder}: {needed / 2**30:.1f} GiB of prepared volumes, {free / 2**30:.1f} GiB are free; "
            "choose another folder with --cache"
        )


def _is_stored(reference: ScanReference, contract: InputContract, folder: Path) -> bool:
    try:
        return (folder / "seen" / _spread(_identity(reference, contract), ".json")).is_file()
    except ScanError:  # it will be refused by its name when its turn comes
        return True


def _prepared_bytes(reference: ScanReference, contract: InputContract) -> int:
    shape = reference.shape
    if contract.spacing is not None and reference.spacing is not None and len(shape) == len(contract.spacing):
        shape = resampled_shape(shape, reference.spacing, contract.spacing)
    return 2 * int(np.prod(shape, dtype=np.int64))


def make_folder(folder: Path) -> None:
    """Make a folder.

    Raises:
        DataError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error


def write_aside(path: Path, write: Callable[[Any], Any]) -> None:
    """Write a file aside and rename it, so that no process ever sees a part of it.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error
