"""Pictures of patches and of label maps."""

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import ShapeError
from modelsgenesis.figures import pictures
from modelsgenesis.figures.colours import colours


def pixels(path):
    return np.asarray(Image.open(path).convert("L"))


def test_the_front_of_a_patient_is_up_and_the_right_on_the_left():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 1] = 1  # right, front
    assert pictures.middle_slice(volume)[0, 0] == 1
    with pytest.raises(ShapeError, match=r"array of shape \(4,\)"):
        pictures.middle_slice(np.zeros(4))


@pytest.mark.parametrize("patch", [(16, 16, 8), (16, 16)])
def test_draws_a_row_per_patch_with_the_error_last(tmp_path, patch):
    original, restored = np.zeros((1, 1, *patch)), np.ones((1, 1, *patch))
    drawn = pictures.draw_restorations(original, original, restored, tmp_path / "new" / "r.png", title="loss 0.1")
    picture = pixels(drawn)
    assert [picture[-80, column] for column in (80, 250, 420, 580)] == [0, 0, 255, 255]
    six = pixels(pictures.draw_restorations(*[np.zeros((9, 1, *patch))] * 3, tmp_path / "six.png"))
    assert six.shape[0] < 6.2 * picture.shape[0]


def test_a_whole_scan_is_shrunk_beside_its_patch_in_its_own_proportions(tmp_path):
    rows = [[np.zeros((600, 300)), np.zeros((32, 32))]]
    picture = pixels(pictures.draw_pictures(rows, ("scan", "patch"), tmp_path / "p.png", labels=["scan 1\n2 mm"]))
    assert (picture[-100] == 0).sum() == 160 / 2 + 160
    assert (picture[:, :140] < 128).any()  # the label


def test_no_letter_becomes_an_empty_box(tmp_path):
    def drawn(title, label):
        rows, path = [[np.zeros((16, 16))]], tmp_path / "p.png"
        return pixels(pictures.draw_pictures(rows, ["x"], path, title=title, labels=[label]))

    assert (drawn("0.41× − é", "3×3\nß") == drawn("0.41x - e", "3x3\n?")).all()


def test_the_planes_are_as_radiologists_see_them():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 2] = 1  # right, front, head
    assert pictures.take_slice(volume, 1, 4)[0, 0] == 1  # coronal: head up, right on the left
    assert pictures.take_slice(volume, 0, 3)[0, 0] == 1  # sagittal: head up, front on the left


def test_truth_and_prediction_are_told_apart_without_colour():
    truth, prediction = np.zeros((2, 16, 16), dtype=np.uint8)
    truth[4:12, 4:12], prediction[4:12, 6:14] = 1, 1
    solid = np.asarray(pictures.outlines(np.zeros((16, 16)), truth, side=160))
    dashed = np.asarray(pictures.outlines(np.zeros((16, 16)), None, prediction, side=160))
    assert (solid[40, 40:120] == colours(1)[0]).all()
    assert not solid[50:110, 50:110].any()
    left = dashed[50:110, 60].any(axis=-1)  # along x and along y there are dashes and gaps
    assert 0.3 < left.mean() < 0.7
    assert 0.3 < dashed[40, 70:130].any(axis=-1).mean() < 0.7
    both = np.asarray(pictures.outlines(np.zeros((16, 16)), truth, truth, side=160))
    assert {tuple(one) for one in both[40, 50:110]} == {colours(1)[0], (128, 184, 216)}
    with pytest.raises(ShapeError, match=r"label map of shape \(2, 2\): expected \(16, 16\)"):
        pictures.outlines(np.zeros((16, 16)), truth[:2, :2])


def test_two_hundred_structures_have_as_many_colours_and_the_first_are_always_the_same():
    assert len(set(colours(200))) == 200
    assert colours(200)[:7] == colours(7)
    assert colours(0) == []
