"""Reading weight files of others without running anything that is in them."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from modelsgenesis.checkpoints.torch_files import read_torch
from modelsgenesis.errors import CheckpointError, MissingExtraError, UnsafeCheckpointError
from modelsgenesis.files import check_regular, open_regular, parsing

_MAGIC: dict[bytes, Literal["torch", "hdf5"]] = {b"PK\x03\x04": "torch", b"\x80": "torch", b"\x89HDF\r\n\x1a\n": "hdf5"}
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)
_DATASETS, _DEPTH = 10_000, 8  # a network of Keras has some hundred tensors, three groups deep


def read_weights(path: Path) -> Any:
    """Return what a file of weights holds: of PyTorch whatever was saved, of Keras tensors by name.

    Raises:
        UnsafeCheckpointError: Reading it would mean running it, reading other files, or it is a bomb.
        CheckpointError: It is not there, no regular file, damaged, or of another kind.
        MissingExtraError: A Keras file without h5py.
    """
    with open_regular(path, CheckpointError) as file, parsing(path, CheckpointError):
        head = file.read(512)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is not None:
        return read_torch(path) if kind == "torch" else read_keras(path)
    if not head:
        raise CheckpointError(f"{path}: is empty; download it again")
    if _WEB_PAGE.match(head):
        raise CheckpointError(f"{path}: is a web page, not a checkpoint; the download failed, do it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a git-lfs pointer, not the checkpoint itself; run git lfs pull")
    raise CheckpointError(
        f"{path}: begins with {head[:8]!r}, expected a PyTorch (zip or pickle) or Keras (HDF5) checkpoint"
    )


def mappings(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Go through the mappings in a checkpoint with the keys that lead to them, the outermost first."""
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    while waiting:
        place, item = waiting.popleft()
        if isinstance(item, Mapping):
            yield place, item
            waiting.extend(((*place, str(key)), value) for key, value in item.items())


def tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name."""
    return {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return the weights of a Keras file as `layer/weight`, kernels as PyTorch's: [out, in, *spatial].

    Attributes are not read, links are not followed, and every array has to lie in the file as it is: libhdf5 would
    otherwise read other files, wait for a FIFO, or fill the memory from a few bytes.

    Raises:
        MissingExtraError: h5py is not installed.
        UnsafeCheckpointError: A link, or an array that is outside of the file, compressed, virtual, or not numbers.
        CheckpointError: The file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading a Keras checkpoint", "keras") from error
    check_regular(path, CheckpointError)
    with parsing(path, CheckpointError, remedy="truncated or damaged; download it again"), h5py.File(path) as file:
        found, waiting = dict[str, Any](), deque[tuple[str, Any, int]]([("", file, 0)])
        while waiting:
            place, group, depth = waiting.popleft()
            if len(group) + len(found) + len(waiting) > _DATASETS or depth > _DEPTH:
                raise UnsafeCheckpointError(f"{path}: holds more or deeper groups than any network; it was not read")
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UnsafeCheckpointError(f"{path}: {place}{name} is a link, expected the weights themselves")
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append((f"{place}{name}/", item, depth + 1))
                else:
                    found[f"{place}{name}"] = _check_array(item, f"{path}: {place}{name}")
        if sum(item.nbytes for item in found.values()) > path.stat().st_size:
            raise UnsafeCheckpointError(f"{path}: its arrays are larger than the file; they were not read")
        weights = {name: item for name, item in found.items() if name.startswith("model_weights/")} or found
        return {_keras_name(name): _keras_tensor(item) for name, item in weights.items()}


def _check_array(item: Any, where: str) -> Any:
    import h5py

    plain = isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual or item.chunks)
    if not plain or item.dtype.kind not in "fiu" or item.id.get_storage_size() != item.nbytes:
        raise UnsafeCheckpointError(f"{where}: is not an array of numbers that lies in the file uncompressed")
    return item


def _keras_name(name: str) -> str:
    """`model_weights/depth_0_conv/depth_0_conv/kernel:0` becomes `depth_0_conv/kernel`."""
    parts = name.removeprefix("model_weights/").split("/")
    return f"{parts[0]}/{parts[-1].partition(':')[0]}"


def _keras_tensor(item: Any) -> Tensor:
    array = np.asarray(item[()])
    if array.ndim > 2:  # a kernel (*spatial, in, out) becomes (out, in, *spatial)
        array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
