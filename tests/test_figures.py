"""Pictures, charts, and the report of a comparison."""

import re

import numpy as np
import pytest
from PIL import Image

from modelsgenesis import figures
from modelsgenesis.errors import ShapeError
from simulated_comparison import draw_records, results_of

LOG = "step,learning_rate,loss\n1,0.1,0.5\n2,0.1,0.4\n"
PRETRAINING = "step,restoration_loss,identity_loss,mean_image_loss,output_spread,collapsed\n2,0.4,0.6,0.5,0.01,1.0\n"
NOTHING_DEFORMED = "step,restoration_loss,identity_loss,mean_image_loss\n2,0.4,0.0,0.5\n"
GAINS = {"scratch": 0.0, "genesis": 0.2}


def pixels(path):
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("validation", [PRETRAINING, 'step,dice,"dice a,b"\n2,0.8,0.8\n', NOTHING_DEFORMED, None])
def test_draws_the_curve_of_a_run(tmp_path, validation):
    (tmp_path / "log.csv").write_text(LOG)
    if validation:
        (tmp_path / "validation.csv").write_text(validation)
    path = figures.draw_curve(tmp_path / "log.csv", tmp_path / "validation.csv", tmp_path / "new" / "curve.png")
    assert pixels(path).std() > 5


@pytest.mark.parametrize(
    ("gains", "counts", "runs"),
    [(GAINS, (5, 10, 20), 5), ({**GAINS, "b": 0.1, "c": -0.1}, (5, 20), 3), ({"scratch": 0.0}, (5,), 1)],
)
def test_draws_whatever_was_compared(tmp_path, gains, counts, runs):
    records = draw_records(gains, counts, runs)
    assert pixels(figures.draw_comparison(results_of(records), tmp_path / "comparison.png")).std() > 10
    for record in records:
        record["test"]["dice"] = 0.5 if record["arm"] == "scratch" else None  # equal, and undefined
    assert pixels(figures.draw_comparison(results_of(records), tmp_path / "comparison.png")).std() > 10


def test_the_front_of_a_patient_is_up_and_the_right_on_the_left():
    volume = np.zeros((4, 5, 3))
    volume[3, 4, 1] = 1  # right, front
    assert figures.middle_slice(volume)[0, 0] == 1
    with pytest.raises(ShapeError, match=r"array of shape \(4,\)"):
        figures.middle_slice(np.zeros(4))


@pytest.mark.parametrize("patch", [(16, 16, 8), (16, 16)])
def test_draws_a_row_per_patch_with_the_error_last(tmp_path, patch):
    original, restored = np.zeros((1, 1, *patch)), np.ones((1, 1, *patch))
    drawn = figures.draw_restorations(original, original, restored, tmp_path / "new" / "r.png", title="loss 0.1")
    picture = pixels(drawn)
    assert [picture[-80, column] for column in (80, 250, 420, 580)] == [0, 0, 255, 255]
    six = pixels(figures.draw_restorations(*[np.zeros((9, 1, *patch))] * 3, tmp_path / "six.png"))
    assert six.shape[0] < 6.2 * picture.shape[0]


def test_a_whole_scan_is_shrunk_beside_its_patch_in_its_own_proportions(tmp_path):
    rows = [[np.zeros((600, 300)), np.zeros((32, 32))]]
    picture = pixels(figures.draw_pictures(rows, ("scan", "patch"), tmp_path / "p.png", labels=["scan 1\n2 mm"]))
    assert (picture[-100] == 0).sum() == 160 / 2 + 160
    assert (picture[:, :140] < 128).any()  # the label


def test_no_letter_becomes_an_empty_box(tmp_path):
    def drawn(title, label):
        rows, path = [[np.zeros((16, 16))]], tmp_path / "p.png"
        return pixels(figures.draw_pictures(rows, ["x"], path, title=title, labels=[label]))

    assert (drawn("0.41× − é", "3×3\nß") == drawn("0.41x - e", "3x3\n?")).all()


def report(gains=GAINS, counts=(5, 10, 20), runs=5, **options):
    text = figures.comparison_report(results_of(draw_records(gains, counts, runs), **options))
    return re.sub(" +", " ", text)  # tables are aligned


@pytest.mark.parametrize("resample", [True, False])
def test_a_report_says_what_it_rests_on_and_what_it_does_not_show(resample):
    text = report(resample=resample)
    assert text.startswith("# Hippocampus: Dice by initialisation\n")
    assert "140 training, 16 validation and 39 test patients" in text
    assert "| 5 | genesis − scratch | +0.0" in text
    assert "genesis with 20 labels equals scratch with more than 20 (95% over the runs" in text
    assert ("drawn anew" in text, "the same in all runs of a label count" in text) == (resample, not resample)
    assert "400 steps of 4 samples" in text
    assert "## What this does not show" in text


def test_two_runs_get_no_p_value_several_arms_the_correction_and_one_alone_no_differences():
    few = report(counts=(5,), runs=2)
    assert "(none) |" in few
    assert "| none | none | none |" in few
    assert "Label efficiency" not in few
    several = report({**GAINS, "a|b": 0.1})
    assert "| labels | scratch | genesis | a\\|b |" in several
    assert "Holm's correction over the 2 comparisons" in several
    assert " / " in several.split("## Differences")[1].splitlines()[4]
    assert "## Differences" not in report({"scratch": 0.0})
    assert figures.metric_title("average_precision") == "average precision"


def test_what_was_tuned_is_shown():
    means = {"1e-3": 0.5, "1e-2": None}
    candidates = [{"settings": [f"learning_rate={rate}"], "mean": mean} for rate, mean in means.items()]
    choice = {"arm": "genesis", "labels": 5, "chosen": ["learning_rate=1e-3"], "candidates": candidates}
    text = report(tuning=[choice])
    assert "genesis, 5 labels: learning_rate=1e-3 was chosen from learning_rate=1e-3 0.5000; " in text
    assert "learning_rate=1e-2 diverged" in text
    assert "no test patient was measured before the choice" in text
