"""Reading weight files of others without running anything that is in them."""

import re
import warnings
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from modelsgenesis.errors import CheckpointError, MissingExtraError, UnsafeCheckpointError
from modelsgenesis.networks.transfer import some

Container = Literal["zip", "pickle", "hdf5"]

_MAGIC: dict[bytes, Container] = {b"PK\x03\x04": "zip", b"\x80": "pickle", b"\x89HDF\r\n\x1a\n": "hdf5"}
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)
_NEEDED = re.compile(r"GLOBAL (\S+)")


class _Forgotten:
    """Stands for what NumPy pickled beside the weights, such as losses; no code of NumPy's runs for it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_FORGOTTEN: list[Any] = [
    (_Forgotten, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
    )
]


def container(path: Path) -> Container:
    """Say what kind of file this is by its first bytes.

    Raises:
        CheckpointError: It is not there, empty, a web page, a pointer of git-lfs, or nothing known.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if not head:
        raise CheckpointError(f"{path}: is empty; download it again")
    if _WEB_PAGE.match(head):
        raise CheckpointError(f"{path}: is a web page, not a checkpoint; the download failed, do it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a git-lfs pointer, not the checkpoint itself; run git lfs pull")
    raise CheckpointError(
        f"{path}: begins with {head[:8]!r}, expected a PyTorch (zip or pickle) or Keras (HDF5) checkpoint"
    )


def read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote, tensors mapped from the file where its format allows it.

    Nothing but tensors and plain Python values is ever built (`weights_only=True`), and the entries of a zip
    file may not unpack to more than the file holds.

    Raises:
        UnsafeCheckpointError: The file would have to run code, or it is a zip bomb.
        CheckpointError: It is truncated or damaged.
    """
    zipped = container(path) == "zip"
    if zipped:
        _check_zip(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_FORGOTTEN):
            warnings.simplefilter("ignore")  # about other protocols of pickle, which are of no interest
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # damaged bytes make the unpickler fail in any way whatever
        needed = _NEEDED.search(str(error))
        if needed and not _cut_within(path, needed[1].rpartition(".")[2]):
            raise UnsafeCheckpointError(
                f"{path}: needs {needed[1]} to be run, expected tensors and plain values alone;"
                " nothing was run, ask its authors for a state dict"
            ) from error
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: truncated or damaged, or no PyTorch checkpoint"
            f" ({type(error).__name__}: {reason[-1] if reason else 'no reason given'}); download it again"
        ) from error


def _cut_within(path: Path, name: str) -> bool:
    """Whether the file ends within this name, of which the unpickler drops one more letter."""
    with path.open("rb") as file:
        file.seek(-min(len(name) + 1, path.stat().st_size), 2)
        return file.read().startswith(name.encode())


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); download it again") from error
    size = path.stat().st_size
    if unpacked > size:
        raise UnsafeCheckpointError(
            f"{path}: {size:,} bytes that would unpack to {unpacked:,}, expected entries stored as they"
            " are; it was not unpacked, as it may be a zip bomb"
        )


def mappings(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Go through the mappings in a checkpoint with the keys that lead to them, the outermost first.

    Each is given once, however often it occurs: a pickle may hold a mapping that holds itself.
    """
    seen: set[int] = set()
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    while waiting:
        place, item = waiting.popleft()
        if isinstance(item, Mapping) and id(item) not in seen:
            seen.add(id(item))
            yield place, item
            waiting.extend(((*place, str(key)), value) for key, value in item.items())


def tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name."""
    return {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return the weights of a Keras file as `layer/weight`, kernels as PyTorch's: [out, in, *spatial].

    Raises:
        MissingExtraError: h5py is not installed.
        CheckpointError: The file is damaged or its weights are larger than itself.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading a Keras checkpoint", "keras") from error
    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if isinstance(file.get("model_weights"), h5py.Group) else file
            found: dict[str, h5py.Dataset] = {}
            cast("h5py.Group", root).visititems(  # follows neither soft nor external links
                lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None
            )
            outside = [name for name, item in found.items() if item.external or item.is_virtual]
            if outside or sum(item.nbytes for item in found.values()) > size:
                raise UnsafeCheckpointError(
                    f"{path}: {size:,} bytes with larger or outside data ({some(outside or list(found))}),"
                    " expected all of its weights in it, uncompressed; they were not read"
                )
            return {_keras_name(name): _keras_tensor(name, item[()]) for name, item in found.items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); download it again") from error


def _keras_name(name: str) -> str:
    """`depth_0_conv/depth_0_conv/kernel:0` becomes `depth_0_conv/kernel`."""
    parts = name.split("/")
    return f"{parts[0]}/{parts[-1].partition(':')[0]}"


def _keras_tensor(name: str, value: Any) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise CheckpointError(f"{name}: holds {array.dtype}, expected numbers")
    if array.ndim > 2:  # a kernel (*spatial, in, out) becomes (out, in, *spatial)
        array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return torch.from_numpy(np.ascontiguousarray(array))
