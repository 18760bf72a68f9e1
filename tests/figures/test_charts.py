import sys

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import MissingExtraError
from modelsgenesis.figures import draw_comparison, draw_curve
from simulated_comparison import draw_records, results_of

LOG = "step,learning_rate,loss\n1,0.1,0.5\n2,0.1,0.4\n"
PRETRAINING = "step,restoration_loss,identity_loss,mean_image_loss,output_spread,collapsed\n2,0.4,0.6,0.5,0.01,1.0\n"
NOTHING_DEFORMED = "step,restoration_loss,identity_loss,mean_image_loss\n2,0.4,0.0,0.5\n"


def contrast(path):
    return np.asarray(Image.open(path).convert("L")).std()


@pytest.mark.parametrize("validation", [PRETRAINING, "step,dice,dice liver\n2,0.8,0.8\n", NOTHING_DEFORMED, None])
def test_draws_the_curve_of_a_run(tmp_path, validation):
    (tmp_path / "log.csv").write_text(LOG)
    if validation:
        (tmp_path / "validation.csv").write_text(validation)
    assert contrast(draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "new" / "curve.png")) > 5


@pytest.mark.parametrize(
    ("gains", "counts", "runs"),
    [
        ({"scratch": 0.0, "genesis": 0.2}, (5, 10, 20), 5),
        ({"scratch": 0.0, "a": 0.2, "b": 0.1, "c": -0.1}, (5, 20), 3),
        ({"scratch": 0.0}, (5,), 1),
    ],
)
def test_draws_whatever_was_compared(tmp_path, gains, counts, runs):
    records = draw_records(gains, counts, runs)
    assert contrast(draw_comparison(results_of(records), tmp_path / "comparison.png")) > 10
    for record in records:
        record["test"]["dice"] = 0.5 if record["arm"] == "scratch" else None  # equal, and undefined
    assert contrast(draw_comparison(results_of(records), tmp_path / "comparison.png")) > 10


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelsgenesis\[report\]'"):
        draw_comparison(results_of(draw_records({"scratch": 0.0}, (5,), 1)), tmp_path / "comparison.png")
