import numpy as np
import pytest

from modelsgenesis.errors import ShapeError
from modelsgenesis.figures import middle_slice


def test_the_front_of_a_patient_is_up_and_the_right_on_the_left():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 1] = 1  # right, front
    assert middle_slice(volume)[0, 0] == 1
    with pytest.raises(ShapeError, match=r"array of shape \(4,\)"):
        middle_slice(np.zeros(4))
