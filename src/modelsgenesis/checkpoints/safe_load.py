"""Reading weight files of others without running anything that is in them and without building what they claim.

`torch.load(weights_only=True)` runs no code either, but builds sparse, nested and meta tensors, copies arguments as
often as a pickle says, and lets a pickle set attributes. Here a pickle makes dictionaries, lists, plain values, and
tensors that are views of the mapped file, each once its place in the file was checked.
"""

import io
import mmap
import pickle
import re
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.errors import CheckpointError, MissingExtraError
from modelsgenesis.files import check_plain, open_regular, parsing

# Of a pickle of names and shapes, or of a directory of entries, which have some hundred kB. An instruction of a pickle
# may have one byte, and make 150 in memory.
_MOST_BYTES = 4 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # how the format from before torch 1.6 begins
_LARGEST_NDIM = 8
_DATASETS, _DEPTH = 10_000, 8  # a network of Keras has some hundred tensors, three groups deep
_NOT_WEIGHTS = (
    (rb"$", "is empty; download it again"),
    (rb"\s*<(!doctype|html|\?xml|head|body)", "is a web page, not a checkpoint; the download failed, do it again"),
    (b"version https://git-lfs", "is a git-lfs pointer, not the checkpoint itself; run git lfs pull"),
)

# Kinds of numbers by their names in a pickle, which are those of storages as well: `FloatStorage`.
_DTYPES: dict[str, torch.dtype] = {
    **{name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    "char": torch.int8,
    "byte": torch.uint8,
    "untyped": torch.uint8,
    "complexfloat": torch.complex64,
    "complexdouble": torch.complex128,
}

# Globals beside weights, as of losses that NumPy pickled: nothing is run for them, and None takes their place.
_FORGOTTEN = re.compile(
    r"builtins\.(bytearray|complex|set)|_codecs\.encode|collections\.Counter|torch\.(Size|device)"
    r"|numpy\.(dtype|ndarray|_?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer))"
)


def read_weights(path: Path) -> Any:
    """Return what a file of weights holds: of PyTorch whatever was saved, of Keras tensors by name.

    Raises:
        CheckpointError: Reading it would mean running it or reading other files, or it is a bomb; or it is not there,
            no regular file, damaged, or of another kind.
        MissingExtraError: A Keras file without h5py.
    """
    with open_regular(path, CheckpointError) as file, parsing(path, CheckpointError):
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_keras(path)
    found = next((said for pattern, said in _NOT_WEIGHTS if re.match(pattern, head, re.IGNORECASE)), "")
    expected = f"begins with {head[:8]!r}, expected a PyTorch (zip or pickle) or Keras (HDF5) checkpoint"
    raise CheckpointError(f"{path}: {found or expected}")


def mappings(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Go through the mappings in a checkpoint with the keys that lead to them, the outermost first."""
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    while waiting:
        place, item = waiting.popleft()
        if isinstance(item, Mapping):
            yield place, item
            waiting.extend(((*place, str(key)), value) for key, value in item.items())


# --- PyTorch -------------------------------------------------------------------------------------------------


_Place = tuple[int, int]  # first byte of a storage in the file, and its number of bytes


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the one in C sizes its memo as a file says
    """Python's own unpickler, which here can call nothing but the functions below and set no attribute.

    Args:
        content: The pickle.
        path: The file, for messages.
        mapped: The file, of which tensors are views.
        places: Where the storages lie; None where that is not known yet, and then there are no tensors.
    """

    def __init__(self, content: io.BytesIO, path: Path, mapped: mmap.mmap, places: Mapping[Any, _Place] | None) -> None:
        super().__init__(content, encoding="latin1")
        self.content, self.path, self.mapped, self.places = content, path, mapped, places
        self.storages, self.stack = dict[Any, torch.dtype](), list[Any]()

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of the pickle."""
        full = f"{module}.{name}".replace("__builtin__", "builtins")
        dtype = _DTYPES.get(name.removesuffix("Storage").lower())
        if dtype and module in ("torch", "torch.cuda", "torch.storage"):
            return dtype
        if full == "collections.OrderedDict":
            return lambda *_: {}  # not `dict`: a pickle could have arguments copied again and again
        if re.fullmatch(r"torch\._utils\._rebuild_tensor(_v[23])?", full):
            return self._rebuild
        if re.fullmatch(r"torch\._utils\._rebuild_parameter(_with_state)?", full):
            return lambda data, *_: data
        if _FORGOTTEN.fullmatch(full):
            return lambda *_: None
        if not self.content.read(1):
            raise EOFError("it ends within a name")
        expected = "dense tensors" if full.startswith("torch._utils._rebuild_") else "tensors and plain values"
        raise CheckpointError(
            f"{self.path}: needs {full} to be run, expected {expected} alone; nothing was run, ask its authors for a"
            " state dict"
        )

    def persistent_load(self, pid: Any) -> tuple[Any, torch.dtype]:
        """Note a storage: `("storage", type, key, device, elements)`, and a view of it that is always None."""
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or any(view) or not isinstance(dtype, torch.dtype):
            raise ValueError("it refers to something that is not a storage")
        self.storages[key] = dtype
        return key, dtype

    def _rebuild(self, storage: tuple[Any, torch.dtype], offset: int, size: Any, stride: Any, *more: Any) -> Any:
        """Return a view of the file, once it is certain that the elements lie in it."""
        if self.places is None:
            return None
        key, dtype = storage
        dtype = next((item for item in more if isinstance(item, torch.dtype)), dtype)  # of an untyped storage
        start, length = self.places.get(key, (0, 0))
        size, needed = tuple(size), prod(size) * dtype.itemsize
        if needed > length or len(size) > _LARGEST_NDIM or min(size, default=0) < 0:
            claim = f"a tensor of shape {size[:_LARGEST_NDIM]} needs {needed:,} bytes"
            raise CheckpointError(f"{self.path}: {claim}, but its data has {length:,}; save contiguous tensors")
        if not needed:
            return torch.empty(size, dtype=dtype)
        elements = torch.frombuffer(self.mapped, dtype=dtype, offset=start, count=length // dtype.itemsize)
        return elements.as_strided(size, tuple(stride), offset)

    def _forget_state(self) -> None:
        self.stack.pop()

    # A set is a byte of a pickle and 200 of memory, a byte array as large as it says.
    dispatch: ClassVar[dict[int, Any]] = {
        **{code: load for code, load in pickle._Unpickler.dispatch.items() if chr(code) not in "\x8f\x96"},  # noqa: SLF001
        pickle.BUILD[0]: _forget_state,
    }


def _read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote: dictionaries, lists, plain values, and dense tensors mapped from the file."""
    remedy = "truncated or damaged, or not a PyTorch checkpoint; download it again"
    with open_regular(path, CheckpointError) as file, parsing(path, CheckpointError, remedy=remedy):
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # what is written to stays in memory
        content = (_read_zip if mapped[:2] == b"PK" else _read_legacy)(file, mapped, path)
        check_plain(content, path, CheckpointError)
        return content


class _Limited(io.BufferedReader):
    """A file whose directory, which `zipfile` reads at once, has to be one of weights."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes."""
        if size and size > _MOST_BYTES:
            raise ValueError("its directory is larger than that of any state dict")
        return super().read(size)


def _read_zip(file: BinaryIO, mapped: mmap.mmap, path: Path) -> Any:
    entries = zipfile.ZipFile(_Limited(io.FileIO(file.fileno(), closefd=False))).infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > len(mapped) or any(entry.compress_type or entry.flag_bits & 1 for entry in entries):
        raise CheckpointError(
            f"{path}: {len(mapped):,} bytes that would unpack to {unpacked:,}, expected entries stored as they"
            " are; it was not unpacked, as it may be a zip bomb"
        )
    places = {entry.filename: _find_entry(mapped, entry) for entry in entries}
    name = next((name for name in places if name.endswith("/data.pkl")), "")
    root = name.removesuffix("data.pkl")
    start, length = places.get(f"{root}byteorder", (0, 0))
    if not name or len(places) < len(entries) or mapped[start : start + length] == b"big":
        raise ValueError("it has no data.pkl, an entry twice, or bytes in big-endian order")
    start, length = places[name]
    if length > _MOST_BYTES:
        raise ValueError("its pickle is larger than that of any state dict")
    data = f"{root}data/"
    storages = {name.removeprefix(data): place for name, place in places.items() if name.startswith(data)}
    return _Unpickler(io.BytesIO(mapped[start : start + length]), path, mapped, storages).load()


def _find_entry(mapped: mmap.mmap, entry: zipfile.ZipInfo) -> _Place:
    """Return where the bytes of a stored entry lie, after comparing them with their checksum."""
    header = mapped[entry.header_offset : entry.header_offset + 30]
    start = entry.header_offset + len(header) + sum(struct.unpack("<HH", header[26:]))
    with memoryview(mapped) as view, view[start : start + entry.file_size] as content:
        whole = len(content) == entry.file_size and (not entry.CRC or zlib.crc32(content) == entry.CRC)  # 0: not taken
    if not whole or header[:4] != b"PK\x03\x04":
        raise ValueError(f"the bytes of {entry.filename} are not those that were written")
    return start, entry.file_size


def _read_legacy(file: BinaryIO, mapped: mmap.mmap, path: Path) -> Any:
    """Read five pickles, then the storages, each after its number of elements."""
    places: dict[Any, _Place] | None = None
    while True:  # twice: where the tensors lie is known only behind the pickles that describe them
        pickles = io.BytesIO(mapped[:_MOST_BYTES])
        unpicklers = [_Unpickler(pickles, path, mapped, places) for _ in range(5)]
        magic, _, system, content, keys = (unpickler.load() for unpickler in unpicklers)
        if magic != _LEGACY_MAGIC or not system["little_endian"]:
            raise ValueError("it does not begin as such a file, or its bytes are in big-endian order")
        if places is not None:
            return content
        places, position = {}, pickles.tell()
        for key in keys:
            (elements,) = struct.unpack_from("<q", mapped, position)
            places[key] = (position + 8, elements * unpicklers[3].storages[key].itemsize)
            position = sum(places[key])
            if elements < 0 or position > len(mapped):
                raise EOFError("it ends within its tensors")


# --- Keras ---------------------------------------------------------------------------------------------------


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return the weights of a Keras file as `layer/weight`, kernels as PyTorch's: [out, in, *spatial].

    Attributes are not read, links are not followed, and every array has to lie in the file as it is: libhdf5 would
    otherwise read other files, wait for a FIFO, or fill the memory from a few bytes.

    Raises:
        CheckpointError: An array is outside of the file, compressed, virtual, or not of numbers; there are too many or
            too deep groups; or the file is damaged.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading a Keras checkpoint", "keras") from error
    open_regular(path, CheckpointError).close()
    found = dict[str, Any]()

    def note(name: str, item: Any) -> None:
        if len(found) == _DATASETS or name.count("/") > _DEPTH:
            raise CheckpointError(f"{path}: holds more or deeper groups than any network; it was not read")
        if isinstance(item, h5py.Group):
            return
        plain = isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual or item.chunks)
        if not plain or item.dtype.kind not in "fiu" or item.id.get_storage_size() != item.nbytes:
            raise CheckpointError(f"{path}: {name}: is not an array of numbers that lies in the file uncompressed")
        found[name] = item

    with parsing(path, CheckpointError, remedy="truncated or damaged; download it again"), h5py.File(path) as file:
        file.visititems(note)  # each object once, and no link to elsewhere
        if sum(item.nbytes for item in found.values()) > path.stat().st_size:
            raise CheckpointError(f"{path}: its arrays are larger than the file; they were not read")
        found = {name: item for name, item in found.items() if name.startswith("model_weights/")} or found
        weights = dict[str, Tensor]()
        for name, item in found.items():  # `model_weights/depth_0_conv/depth_0_conv/kernel:0`
            parts = name.removeprefix("model_weights/").split("/")
            array = np.asarray(item[()])
            if array.ndim > 2:
                array = rearrange(array, "... inputs outputs -> outputs inputs ...")
            native = np.array(array, array.dtype.newbyteorder("="), order="C")
            weights[f"{parts[0]}/{parts[-1].partition(':')[0]}"] = torch.from_numpy(native)
        return weights
