import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.comparison.payload import read_payload, write_payload


def test_arrays_come_back_aligned_and_a_change_stays_private(tmp_path):
    arrays = [np.arange(7, dtype=np.uint8), np.arange(24, dtype=np.float32).reshape(2, 3, 4)]
    write_payload(tmp_path / "cases", {"arrays": arrays, "name": "a"})
    found = read_payload(tmp_path / "cases")["arrays"]
    for before, after in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.flags.aligned
        assert after.flags.writeable  # torch warns of arrays that are not
    found[1][:] = 0
    np.testing.assert_array_equal(read_payload(tmp_path / "cases")["arrays"][1], arrays[1])


@given(st.lists(st.integers(0, 300), max_size=6))
def test_any_sizes(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("payload") / "cases"
    arrays = [np.random.default_rng(size).random(size) for size in sizes]
    write_payload(path, arrays)
    for before, after in zip(arrays, read_payload(path), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_array_that_is_no_block_of_memory(tmp_path):
    array = np.arange(12).reshape(3, 4)[:, ::2]
    write_payload(tmp_path / "cases", [array])
    assert read_payload(tmp_path / "cases")[0] == pytest.approx(array)
