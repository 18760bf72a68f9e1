import sys

import numpy as np
import pytest
from PIL import Image

from comparison_results import make_records, make_results
from modelsgenesis.comparison.figures import colours, draw_bars, draw_label_efficiency
from modelsgenesis.errors import MissingExtraError


@pytest.mark.parametrize(
    ("gains", "counts", "runs"),
    [
        ({"scratch": 0.0, "genesis": 0.2}, (5, 10, 20), 5),
        ({"scratch": 0.0, "a": 0.2, "b": 0.1, "c": -0.1}, (5, 20), 3),
        ({"scratch": 0.0, "genesis": 0.2}, (5,), 1),
        ({"scratch": 0.0}, (5, 10), 2),
    ],
)
def test_draws_whatever_was_run(tmp_path, gains, counts, runs):
    records = make_records(gains, counts, runs)
    results = make_results(records)
    for path in (
        draw_bars(results, records, tmp_path / "bars.png"),
        draw_label_efficiency(results, tmp_path / "curve.png"),
    ):
        picture = np.asarray(Image.open(path).convert("L"))
        assert picture.std() > 10


def test_equal_values_can_be_drawn(tmp_path):
    records = make_records({"scratch": 0.0, "genesis": 0.0}, (5,), 3)
    for record in records:
        record["test"]["dice"] = 0.0
    draw_bars(make_results(records), records, tmp_path / "bars.png")


def test_random_weights_are_grey_and_no_two_arms_alike():
    results = make_results(make_records({"scratch": 0.0, **{f"g{i}": 0.1 for i in range(6)}}, (5,), 1))
    found = colours(results)
    assert len(set(found.values())) == len(found)
    assert found["scratch"] == "#9aa0a6"


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    records = make_records({"scratch": 0.0}, (5,), 1)
    with pytest.raises(MissingExtraError, match=r"modelsgenesis\[report\]"):
        draw_bars(make_results(records), records, tmp_path / "bars.png")
