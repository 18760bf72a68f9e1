"""The pictures that a run keeps for its report."""

import numpy as np
import pytest

from modelsgenesis.errors import DataError
from modelsgenesis.reports.pictures import PICTURES, read_pictures, save_pictures


def test_pictures_come_back_and_damaged_ones_are_refused(tmp_path):
    about, arrays = {"labels": ["<script>", "é"]}, {"0/axial/scan": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)}
    save_pictures(tmp_path, about, arrays)
    known, found = read_pictures(tmp_path)
    assert known == about
    assert found.keys() == arrays.keys()
    assert np.array_equal(found["0/axial/scan"], arrays["0/axial/scan"])
    path = tmp_path / PICTURES
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"report\.npz: cannot be read.*run the command again"):
        read_pictures(tmp_path)
    np.savez(path, about=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):  # nothing is unpickled
        read_pictures(tmp_path)
