"""Voxels of files: as many as asked for, and damage told."""

import bz2
import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from modelsgenesis.data.payload import read_voxels
from modelsgenesis.errors import UnreadableScanError

NUMBERS = np.arange(5000, dtype="<i2")
SHORT = np.dtype("<i2")


@pytest.mark.parametrize(
    ("compression", "content"),
    [
        (None, NUMBERS.tobytes()),
        ("deflate", gzip.compress(NUMBERS.tobytes())),
        ("deflate", zlib.compress(NUMBERS.tobytes())),
        ("deflate", gzip.compress(NUMBERS[:100].tobytes()) + gzip.compress(NUMBERS[100:].tobytes())),
        ("deflate", gzip.compress(NUMBERS.tobytes() + bytes(999))),
        ("bzip2", bz2.compress(NUMBERS.tobytes())),
        ("bzip2", bz2.compress(NUMBERS[:9].tobytes()) + bz2.compress(NUMBERS[9:].tobytes())),
    ],
)
def test_reads_what_was_written(tmp_path: Path, compression: str | None, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"head" + content)
    whole = read_voxels(path, SHORT, 5000, start=4, compression=compression)  # pyright: ignore[reportArgumentType]
    part = read_voxels(path, SHORT, 10, start=4, skip=40, compression=compression)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(whole, NUMBERS)
    np.testing.assert_array_equal(part, NUMBERS[20:30])


def test_large_streams_come_in_pieces(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 9, 12_000_000).astype("<i2")
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(numbers.tobytes(), 1))
    np.testing.assert_array_equal(read_voxels(path, SHORT, len(numbers), compression="deflate"), numbers)


def test_a_short_raw_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(NUMBERS.tobytes()[:-1])
    with pytest.raises(UnreadableScanError, match=r"promises 10000 bytes of voxels, the file can hold 9999"):
        read_voxels(path, SHORT, 5000)


def test_more_than_any_stream_can_hold_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(NUMBERS.tobytes()))
    with pytest.raises(UnreadableScanError, match=r"promises 2000000000000 bytes"):
        read_voxels(path, SHORT, 10**12, compression="deflate")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_damaged_checksum_is_told(tmp_path: Path, compress) -> None:
    content = bytearray(compress(NUMBERS.tobytes()))
    content[-5 if compress is gzip.compress else -1] ^= 1
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UnreadableScanError, match=r"its compressed voxels are damaged: .*; copy it again"):
        read_voxels(path, SHORT, 5000, compression="deflate")


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "deflate"), (bz2.compress, "bzip2")])
def test_a_stream_cut_short_is_told(tmp_path: Path, compress, name) -> None:
    path = tmp_path / "x"
    path.write_bytes(compress(NUMBERS.tobytes())[:-30])
    with pytest.raises(UnreadableScanError, match=r"end before 10000 bytes; it is truncated or damaged"):
        read_voxels(path, SHORT, 5000, compression=name)
