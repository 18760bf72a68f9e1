import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import ShapeError
from modelsgenesis.figures import draw_deformations, draw_pictures, draw_restorations, middle_slice


def test_the_front_of_a_patient_is_up_and_the_right_on_the_left():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 1] = 1  # right, front
    assert middle_slice(volume)[0, 0] == 1
    with pytest.raises(ShapeError, match=r"array of shape \(4,\)"):
        middle_slice(np.zeros(4))


@pytest.mark.parametrize("patch", [(16, 16, 8), (20, 12)])
def test_draws_a_row_per_patch_and_no_optional_library_is_needed(tmp_path, patch, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    volumes = np.random.default_rng(0).random((2, 1, *patch))
    path = draw_restorations(volumes, volumes, volumes, tmp_path / "new" / "r.png", title="step 2: loss 0.1")
    picture = np.asarray(Image.open(path))
    assert picture.std() > 20
    three = draw_restorations(*[np.zeros((9, 1, *patch))] * 3, tmp_path / "three.png", shown=3)
    assert np.asarray(Image.open(three)).shape[0] > picture.shape[0]
    wide = draw_deformations(volumes, [volumes] * 6, ["all"] * 6, tmp_path / "d.png", title="Deformations")
    assert np.asarray(Image.open(wide)).shape[1] > picture.shape[1]


def test_the_error_is_the_last_column(tmp_path):
    original, restored = np.zeros((1, 1, 16, 16)), np.ones((1, 1, 16, 16))
    path = draw_restorations(original, original, restored, tmp_path / "r.png")
    row = np.asarray(Image.open(path))[-80]
    assert [row[part] for part in (80, 250, 420, 580)] == [0, 0, 255, 255]


def test_a_whole_scan_is_shrunk_beside_its_patch_in_its_own_proportions(tmp_path):
    rows = [[np.zeros((600, 300)), np.zeros((32, 32))]]
    picture = np.asarray(
        Image.open(draw_pictures(rows, ("scan", "patch"), tmp_path / "p.png", labels=["scan 1\n2 mm"]))
    )
    dark = (picture[-100] == 0).sum()
    assert dark == 160 / 2 + 160
    assert (picture[:, :140] < 128).any()  # the label


def test_no_letter_becomes_an_empty_box(tmp_path):
    def drawn(title, label):
        path = draw_pictures([[np.zeros((16, 16))]], ["column"], tmp_path / "p.png", title=title, labels=[label])
        return Image.open(path).tobytes()

    assert drawn("0.41× − é", "3×3\nß") == drawn("0.41x - e", "3x3\n?")
