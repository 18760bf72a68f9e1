import numpy as np
from PIL import Image

from modelsgenesis.figures import draw_curve


def test_draws_the_curve_of_a_run(tmp_path):
    (tmp_path / "log.csv").write_text("step,learning_rate,loss\n1,0.1,0.5\n2,0.1,0.4\n")
    (tmp_path / "validation.csv").write_text("step,restoration_loss,identity_loss,output_spread\n2,0.4,0.6,0.5\n")
    path = draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "curve.png")
    assert np.asarray(Image.open(path).convert("L")).std() > 5
