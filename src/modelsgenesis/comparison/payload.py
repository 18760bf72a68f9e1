"""Prepared cases that several processes read from one file: mapped into memory, not copied for each of them."""

import mmap
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelsgenesis.files import replacing

_HEAD = struct.Struct("<Q")
_ALIGNMENT = 64  # bytes; arrays that start elsewhere are slow to compute with, if they are taken at all


def write_payload(path: Path, content: Any) -> None:
    """Write any picklable value; the arrays in it lie apart, so that a reader can map them.

    Only the process that wrote such a file, and the workers that it starts, ever read it: it is a pickle.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [len(body), *(view.nbytes for view in views)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_HEAD.pack(len(sizes)) + b"".join(_HEAD.pack(size) for size in sizes))
        for part, start in zip((body, *views), _starts(sizes), strict=True):
            file.seek(start)
            file.write(part)


def read_payload(path: Path) -> Any:
    """Return what `write_payload` wrote; its arrays are mapped from the file, and a change to them stays private."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    view = memoryview(mapped)
    count = _HEAD.unpack_from(view)[0]
    sizes = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    parts = [view[start : start + size] for start, size in zip(_starts(sizes), sizes, strict=True)]
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - of our own making, see write_payload


def _starts(sizes: Sequence[int]) -> list[int]:
    """Return where in the file each part begins."""
    starts: list[int] = []
    position = _HEAD.size * (1 + len(sizes))
    for size in sizes:
        position = -(-position // _ALIGNMENT) * _ALIGNMENT
        starts.append(position)
        position += size
    return starts
