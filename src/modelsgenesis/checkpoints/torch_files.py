"""Reading what `torch.save` wrote, without running anything that is in it and without building what it claims.

`torch.load(weights_only=True)` runs no code either, but builds sparse, nested and meta tensors, copies arguments as
often as a pickle says, and lets a pickle set attributes. Here a pickle makes dictionaries, lists, plain values, and
notes of where tensors lie in the file; these become views of the mapped file once everything about them was checked.
"""

import mmap
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from modelsgenesis.errors import CheckpointError, UnsafeCheckpointError
from modelsgenesis.files import check_plain, open_regular, parsing

_PICKLE_BYTES, _PICKLE_READS = 16 << 20, 2_000_000
"""A pickle of names and shapes has some hundred kB; each of its instructions is read on its own."""

_DIRECTORY_BYTES = 16 << 20
_MAGIC = 0x1950A86A20F9469CFC6C  # how the format from before torch 1.6 begins
_LARGEST_NDIM = 8

_DTYPES: dict[str, torch.dtype] = {
    **{name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    "char": torch.int8,
    "byte": torch.uint8,
    "untyped": torch.uint8,
    "complexfloat": torch.complex64,
    "complexdouble": torch.complex128,
}
"""Kinds of numbers by their names in a pickle, which are those of storages as well: `FloatStorage`."""

Places = Mapping[Any, tuple[int, int]]
"""First byte and number of bytes of each storage by its key."""


@dataclass(frozen=True)
class _Stored:
    """A tensor of a file that was not built yet: elements of a storage."""

    key: Any
    dtype: torch.dtype
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


def _rebuild(storage: _Stored, offset: int, size: Any, stride: Any, *more: Any) -> _Stored:
    dtype = next((item for item in more if isinstance(item, torch.dtype)), storage.dtype)  # of an untyped storage
    return _Stored(storage.key, dtype, offset, tuple(size), tuple(stride))


def _mapping() -> dict[Any, Any]:
    return {}  # not dict: a pickle could have arguments copied again and again


_REBUILT: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}
_FORGOTTEN = re.compile(
    r"builtins\.(bytearray|complex|set)|_codecs\.encode|collections\.Counter|torch\.(Size|device)"
    r"|numpy\.(dtype|ndarray|_?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer))"
)
"""What lies beside weights, such as losses that NumPy pickled: nothing is run for it, and None takes its place."""


class _Reader:
    """The part of a file in which a pickle or a directory lies, read within limits."""

    def __init__(self, mapped: mmap.mmap, start: int = 0, limit: int = _PICKLE_BYTES) -> None:
        self.seek, self.tell, self._mapped = mapped.seek, mapped.tell, mapped
        self._bytes, self._reads = limit, _PICKLE_READS
        self.seek(start)

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, by default all that is left."""
        left = len(self._mapped) - self.tell()
        size = left if size < 0 else size
        self._bytes, self._reads = self._bytes - size, self._reads - 1
        if self._bytes < 0 or self._reads < 0:
            raise ValueError("its pickle or directory is larger than that of any state dict")
        if size > left:
            raise EOFError("it ends too early")
        return self._mapped.read(size)

    def readline(self) -> bytes:
        """Read up to the end of a line, which has to be there."""
        length = self._mapped.find(b"\n", self.tell(), self.tell() + 1000) + 1 - self.tell()
        if length <= 0:
            raise EOFError("it ends too early, or within a name")
        return self.read(length)


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the one in C sizes its memo as a file says
    """Python's own unpickler, which here can call nothing but the functions above and set no attribute."""

    def __init__(self, reader: _Reader, path: Path) -> None:
        super().__init__(reader, encoding="latin1")
        self.path, self.storages, self.stack = path, dict[Any, torch.dtype](), list[Any]()

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of the pickle."""
        full = f"{module}.{name}".replace("__builtin__", "builtins")
        dtype = _DTYPES.get(name.removesuffix("Storage").lower())
        if dtype and module in ("torch", "torch.cuda", "torch.storage"):
            return dtype
        if full in _REBUILT:
            return _REBUILT[full]
        if _FORGOTTEN.fullmatch(full):
            return lambda *_: None
        if full.startswith("torch._utils._rebuild_"):
            raise CheckpointError(f"{self.path}: holds a tensor made by {name}, expected dense ones alone; save those")
        raise UnsafeCheckpointError(
            f"{self.path}: needs {full} to be run, expected tensors and plain values alone;"
            " nothing was run, ask its authors for a state dict"
        )

    def persistent_load(self, pid: Any) -> _Stored:
        """Note a storage: `("storage", type, key, device, elements)`, and a view of it that is always None."""
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or any(view) or not isinstance(dtype, torch.dtype):
            raise ValueError("it refers to something that is not a storage")
        self.storages[key] = dtype
        return _Stored(key, dtype)

    def _forget_state(self) -> None:
        self.stack.pop()

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _forget_state}  # noqa: SLF001
    del dispatch[pickle.EMPTY_SET[0]]  # a byte of a pickle, 200 of memory


def read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote: dictionaries, lists, plain values, and dense tensors mapped from the file.

    Raises:
        UnsafeCheckpointError: The file would have to run code, or is compressed and may be a zip bomb.
        CheckpointError: It is truncated or damaged, or holds other tensors, more values or deeper ones than any state
            dict.
    """
    remedy = "truncated or damaged, or no PyTorch checkpoint; download it again"
    with open_regular(path, CheckpointError) as file, parsing(path, CheckpointError, remedy=remedy):
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # what is written to stays in memory
        content, places = (_read_zip if mapped[:2] == b"PK" else _read_legacy)(mapped, path)
        check_plain(content, path, CheckpointError)
        return _resolve(content, mapped, places, path)


def _read_zip(mapped: mmap.mmap, path: Path) -> tuple[Any, Places]:
    entries = zipfile.ZipFile(_Reader(mapped, limit=_DIRECTORY_BYTES)).infolist()  # pyright: ignore[reportCallIssue, reportArgumentType]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > len(mapped) or any(entry.compress_type or entry.flag_bits & 1 for entry in entries):
        raise UnsafeCheckpointError(
            f"{path}: {len(mapped):,} bytes that would unpack to {unpacked:,}, expected entries stored as they"
            " are; it was not unpacked, as it may be a zip bomb"
        )
    places = {entry.filename: _find_entry(mapped, entry) for entry in entries}
    name = next((name for name in places if name.endswith("/data.pkl")), "")
    root = name.removesuffix("data.pkl")
    start, length = places.get(f"{root}byteorder", (0, 0))
    if not name or len(places) < len(entries) or mapped[start : start + length] == b"big":
        raise ValueError("it has no data.pkl, an entry twice, or bytes in big-endian order")
    content = _Unpickler(_Reader(mapped, places[name][0], min(places[name][1], _PICKLE_BYTES)), path).load()
    data = f"{root}data/"
    return content, {name.removeprefix(data): place for name, place in places.items() if name.startswith(data)}


def _find_entry(mapped: mmap.mmap, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the bytes of a stored entry lie, after comparing them with their checksum."""
    header = mapped[entry.header_offset : entry.header_offset + 30]
    start = entry.header_offset + len(header) + sum(struct.unpack("<HH", header[26:]))
    end = start + entry.file_size
    with memoryview(mapped) as view, view[start:end] as content:
        whole = len(content) == entry.file_size and (not entry.CRC or zlib.crc32(content) == entry.CRC)  # 0: not taken
    if not whole or header[:4] != b"PK\x03\x04":
        raise ValueError(f"the bytes of {entry.filename} are not those that were written")
    return start, entry.file_size


def _read_legacy(mapped: mmap.mmap, path: Path) -> tuple[Any, Places]:
    """Read five pickles, then the storages, each after its number of elements."""
    unpicklers = [_Unpickler(reader, path) for reader in [_Reader(mapped)] * 5]
    magic, _, system, content, keys = (unpickler.load() for unpickler in unpicklers)
    if magic != _MAGIC or not system["little_endian"]:
        raise ValueError("it does not begin as such a file, or its bytes are in big-endian order")
    places, position = {}, mapped.tell()
    for key in keys:
        (elements,) = struct.unpack_from("<q", mapped, position)
        places[key] = (position + 8, elements * unpicklers[3].storages[key].itemsize)
        position = sum(places[key])
    if position > len(mapped) or any(elements < 0 for _, elements in places.values()):
        raise EOFError("it ends within its tensors")
    return content, places


def _resolve(value: Any, mapped: mmap.mmap, places: Places, path: Path) -> Any:
    """Return content in which every tensor is a view of the file; it is not nested deeply, see `check_plain`."""
    if isinstance(value, dict):
        return {key: _resolve(item, mapped, places, path) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, mapped, places, path) for item in value]
    return _tensor(value, mapped, places, path) if isinstance(value, _Stored) else value


def _tensor(stored: _Stored, mapped: mmap.mmap, places: Places, path: Path) -> Tensor:
    start, length = places.get(stored.key, (0, 0))
    needed = prod(stored.size) * stored.dtype.itemsize
    if needed > length or len(stored.size) > _LARGEST_NDIM or min(stored.size, default=0) < 0:
        raise CheckpointError(
            f"{path}: a tensor of shape {stored.size[:_LARGEST_NDIM]} needs {needed:,} bytes, but its data has "
            f"{length:,}; save contiguous tensors"
        )
    if not needed:
        return torch.empty(stored.size, dtype=stored.dtype)
    elements = torch.frombuffer(mapped, dtype=stored.dtype, offset=start, count=length // stored.dtype.itemsize)
    return elements.as_strided(stored.size, stored.stride, stored.offset)
