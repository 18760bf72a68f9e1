import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import MissingExtraError, ShapeError
from modelsgenesis.figures import draw_curve, draw_restorations, middle_slice


def test_draws_a_row_a_sub_volume(tmp_path):
    volumes = np.random.default_rng(0).random((2, 1, 16, 16, 8))
    path = draw_restorations(volumes, volumes, volumes, tmp_path / "new" / "restorations.png")
    picture = np.asarray(Image.open(path).convert("L"))
    assert picture.std() > 20


def test_the_front_of_a_patient_is_up_and_the_right_on_the_left():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 1] = 1  # right, front
    assert middle_slice(volume)[0, 0] == 1
    with pytest.raises(ShapeError, match=r"array of shape \(4,\)"):
        middle_slice(np.zeros(4))


def test_draws_the_curve_of_a_run(tmp_path):
    (tmp_path / "log.csv").write_text("step,learning_rate,loss\n1,0.1,0.5\n2,0.1,0.4\n")
    (tmp_path / "validation.csv").write_text("step,restoration_loss,identity_loss,output_spread\n2,0.4,0.6,0.5\n")
    path = draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "curve.png")
    assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    volumes = np.zeros((1, 1, 8, 8, 8))
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        draw_restorations(volumes, volumes, volumes, tmp_path / "restorations.png")
