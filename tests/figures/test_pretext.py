import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.figures import draw_restorations


@pytest.mark.parametrize("patch", [(16, 16, 8), (20, 12)])
def test_draws_a_row_a_sub_volume_and_no_optional_library_is_needed(tmp_path, patch, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    volumes = np.random.default_rng(0).random((2, 1, *patch))
    path = draw_restorations(volumes, volumes, volumes, tmp_path / "new" / "r.png", title="step 2: loss 0.1")
    picture = np.asarray(Image.open(path))
    assert picture.std() > 20
    three = draw_restorations(*[np.zeros((9, 1, *patch))] * 3, tmp_path / "three.png", shown=3)
    assert np.asarray(Image.open(three)).shape[0] > picture.shape[0]


def test_the_error_is_the_last_column(tmp_path):
    original, restored = np.zeros((1, 1, 16, 16)), np.ones((1, 1, 16, 16))
    path = draw_restorations(original, original, restored, tmp_path / "r.png")
    row = np.asarray(Image.open(path))[-80]
    assert [row[part] for part in (80, 250, 420, 580)] == [0, 0, 255, 255]
