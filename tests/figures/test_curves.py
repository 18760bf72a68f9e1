import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_curve

LOG = "step,learning_rate,loss\n1,0.1,0.5\n2,0.1,0.4\n"
PRETRAINING = "step,restoration_loss,identity_loss,mean_image_loss,output_spread,collapsed\n2,0.4,0.6,0.5,0.01,1.0\n"

NOTHING_DEFORMED = "step,restoration_loss,identity_loss,mean_image_loss\n2,0.4,0.0,0.5\n"


@pytest.mark.parametrize("validation", [PRETRAINING, "step,dice,dice liver\n2,0.8,0.8\n", NOTHING_DEFORMED, None])
def test_draws_the_curve_of_a_run(tmp_path, validation):
    (tmp_path / "log.csv").write_text(LOG)
    if validation:
        (tmp_path / "validation.csv").write_text(validation)
    path = draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "new" / "curve.png")
    assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "curve.png")
