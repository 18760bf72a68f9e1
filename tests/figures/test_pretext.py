import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_restorations


def test_draws_a_row_a_sub_volume(tmp_path):
    volumes = np.random.default_rng(0).random((2, 1, 16, 16, 8))
    path = draw_restorations(volumes, volumes, volumes, tmp_path / "new" / "restorations.png")
    picture = np.asarray(Image.open(path).convert("L"))
    assert picture.std() > 20


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    volumes = np.zeros((1, 1, 8, 8, 8))
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        draw_restorations(volumes, volumes, volumes, tmp_path / "restorations.png")
