"""The voxels of a file, raw or compressed, with the damage that libraries overlook told."""

import bz2
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from modelsgenesis.data.volume import check_size
from modelsgenesis.errors import UnreadableScanError

Compression = Literal["deflate", "bzip2"] | None

_CHUNK = 2**20
_TAIL = 2**24  # bytes after the voxels that are still read to reach the checksum
_PIECE = 2**22  # decompressed at once
_ZLIB_OR_GZIP = 47  # zlib's window bits for either header, whichever is there


def read_voxels(
    path: Path,
    dtype: np.dtype,
    count: int,
    *,
    start: int = 0,
    compression: Compression = None,
    skip: int = 0,
) -> np.ndarray:
    """Read numbers from a file, never more than asked for.

    Compressed data is read to its end, so that its checksum is compared: readers that stop at the last voxel,
    or pass over a broken stream, return noise.

    Args:
        path: The file.
        dtype: Of the numbers, byte order included.
        count: How many.
        start: Where the data, or its compressed stream, starts in the file.
        compression: Of the data.
        skip: Bytes of the data, decompressed, before the numbers.

    Returns:
        [count], in the file's byte order.

    Raises:
        UnreadableScanError: The file is too short, or its compressed data is damaged.
    """
    size = skip + count * dtype.itemsize
    stored = path.stat().st_size - start
    if compression != "bzip2":  # which can shrink a constant volume without a bound worth checking
        check_size(size, stored, str(path), compressed=compression is not None)
    if compression is None:
        return np.fromfile(path, dtype, count, offset=start + skip)
    buffer = np.empty(size, np.uint8)
    try:
        with path.open("rb") as file:
            file.seek(start)
            complete = _decompress(file, compression, buffer)
    except (zlib.error, OSError, ValueError) as error:
        reason = f"its compressed voxels are damaged: {error}"
        raise UnreadableScanError(f"{path}: {reason}; copy it again") from error
    if not complete:
        reason = f"its compressed voxels end before {size} bytes"
        raise UnreadableScanError(f"{path}: {reason}; it is truncated or damaged, copy it again")
    return np.frombuffer(buffer, dtype, count, skip)


def _decompress(file: BinaryIO, compression: Compression, into: np.ndarray) -> bool:
    """Fill `into`, then read on to the checksum; return False when the file ends before."""
    stream, filled, tail = _stream(compression), 0, 0
    while not stream.eof or filled < len(into):
        data = b""
        if stream.eof:  # files may be written in pieces
            data, stream = stream.unused_data, _stream(compression)
        elif stream.needs_input:
            data = file.read(_CHUNK)
            if not data:
                return False
        part = stream.decompress(data, _PIECE)
        used = min(len(part), len(into) - filled)
        into[filled : filled + used] = np.frombuffer(part, np.uint8, used)
        filled += used
        tail += len(part) - used
        if tail > _TAIL:  # all voxels are there, and what follows is too long to be read for its checksum
            break
    return True


class _Inflater:
    """A zlib or gzip stream with the interface of `bz2.BZ2Decompressor`."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_ZLIB_OR_GZIP)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail or data, max_length)


def _stream(compression: Compression) -> "_Inflater | bz2.BZ2Decompressor":
    return bz2.BZ2Decompressor() if compression == "bzip2" else _Inflater()
