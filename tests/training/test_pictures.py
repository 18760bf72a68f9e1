import sys
from argparse import Namespace

import torch

from modelsgenesis.reporting import Reporter
from modelsgenesis.training.pictures import Pictures

METRICS = {"restoration_loss": 0.1, "mean_image_loss": 0.2, "identity_loss": 0.4}


class Heard(Reporter):
    def __init__(self):
        self.notes, self.figures = [], []

    def note(self, text):
        self.notes.append(text)

    def figure(self, step, name, path):
        self.figures.append((step, name, path.name))


def pictures(folder, reporter):
    batch = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    objective = Namespace(restored=batch, validation=Namespace(original=batch, deformed=batch))
    return Pictures(folder, objective, reporter)


def test_draws_each_validation_and_puts_the_best_on_the_card(tmp_path):
    heard = Heard()
    drawn = pictures(tmp_path, heard)
    drawn.validation(200, METRICS)
    drawn.best(200, METRICS)
    best = (tmp_path / "figures" / "restorations.png").read_bytes()
    drawn.validation(400, METRICS)
    assert (tmp_path / "figures" / "restorations" / "step_000400.png").exists()
    assert (tmp_path / "figures" / "restorations.png").read_bytes() == best
    assert list(drawn.on_card().values()) == ["figures/restorations.png"]
    assert heard.figures == [(200, "restorations", "step_000200.png"), (400, "restorations", "step_000400.png")]
    assert heard.notes == []


def test_draws_the_curve(tmp_path):
    heard = Heard()
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n2,0.4\n")
    drawn = pictures(tmp_path, heard)
    drawn.finish(2)
    assert heard.figures == [(2, "curve", "curve.png")]
    assert list(drawn.on_card().values()) == ["figures/curve.png"]


def test_what_cannot_be_drawn_is_said_once_and_ends_nothing(tmp_path, monkeypatch):
    heard = Heard()
    drawn = pictures(tmp_path / "run", heard)
    (tmp_path / "run").write_text("a file where the folder should be")
    drawn.validation(1, METRICS)
    drawn.best(1, METRICS)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    drawn.finish(1)
    assert len(heard.notes) == 1
    assert heard.notes[0].startswith("a figure is missing: ")
    assert drawn.on_card() == {}


def test_a_missing_extra_leaves_out_the_curve(tmp_path, monkeypatch):
    heard = Heard()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pictures(tmp_path, heard).finish(1)
    assert heard.notes == [
        "a figure is missing: drawing a figure needs an optional dependency: pip install 'modelsgenesis[report]'"
    ]
