"""Charts of runs and of comparisons, on paper and on a page."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.figures import charts, comparisons
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
    logs = (tmp_path / "log.csv", tmp_path / "validation.csv")
    path = charts.save_chart(charts.curve_chart(*logs), tmp_path / "new" / "curve.png")
    assert pixels(path).std() > 5
    with Image.open(path) as image:
        assert round(image.info["dpi"][0]) == 300
    assert "<text" in path.with_suffix(".svg").read_text()


@pytest.mark.parametrize(
    ("gains", "counts", "runs"),
    [(GAINS, (5, 10, 20), 5), ({**GAINS, "b": 0.1, "c": -0.1}, (5, 20), 3), ({"scratch": 0.0}, (5,), 1)],
)
def test_draws_whatever_was_compared(tmp_path, gains, counts, runs):
    records = draw_records(gains, counts, runs)
    chart = comparisons.comparison_chart(results_of(records))
    assert pixels(charts.save_chart(chart, tmp_path / "comparison.png")).std() > 10
    for record in records:
        record["test"]["dice"] = 0.5 if record["arm"] == "scratch" else None  # equal, and undefined
    undefined = comparisons.comparison_chart(results_of(records))
    assert charts.svg_of(undefined).startswith("<svg")


def test_two_charts_on_a_page_share_no_name_and_have_the_colour_of_its_text():
    results = results_of(draw_records(GAINS))
    results["arms"] = {"$a$": results["arms"]["scratch"], "<script>": results["arms"]["genesis"]}
    for entry in results["labels"].values():
        entry["arms"] = dict(zip(results["arms"], entry["arms"].values(), strict=True))
    texts = [charts.svg_of(comparisons.comparison_chart(results)) for _ in range(2)]
    names = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert names[0]
    assert not names[0] & names[1]
    for text, own in zip(texts, names, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(one, "") for one in own} | {
            ("", one) for one in own
        }
        assert "currentColor" in text
        assert not re.search("#000000|<style|<script", text)
        shown = [one.text for one in ET.fromstring(text).iter() if one.tag.endswith("text")]
        assert {"$a$", "<script>"} <= set(shown)


def test_a_run_that_was_cut_off_has_a_curve_and_the_caption_names_the_step_that_was_kept(tmp_path):
    log, validation = tmp_path / "log.csv", tmp_path / "validation.csv"
    validation.write_text("step,dice,loss\n10,0.5,0.9\n20,0.7,0.8\n30,0.7,0.7\n40,0.6,0.6\n50,0.9")
    log.write_text(LOG + "3,0.1,")
    assert "dotted line is at step 30, whose network was kept, for its Dice of 0.7" in charts.curve_caption(validation)
    assert "validation loss" in charts.curve_caption(validation)
    assert "kept" in charts.svg_of(charts.curve_chart(log, validation))
    validation.write_text("step\n10\n20\n")  # no validation patients
    assert "at step 20, whose network was kept: the last" in charts.curve_caption(validation)
    assert "kept" in charts.svg_of(charts.curve_chart(log, validation))
    validation.write_text("step,dice")
    assert "No validation was completed" in charts.curve_caption(validation)
    assert charts.svg_of(charts.curve_chart(log, validation)).count("<text") > 5


@pytest.mark.parametrize(("gains", "told"), [(GAINS, "scratch by the paired t-test"), ({"scratch": 0.0}, None)])
def test_the_caption_of_a_comparison_says_what_a_point_and_an_interval_are(gains, told):
    caption = comparisons.comparison_caption(results_of(draw_records(gains)))
    assert "39 test patients, 5 runs each" in caption
    assert "95% interval by Student's t" in caption
    assert told in caption if told else "Stars" not in caption


def shown(figure):
    """What is written in a chart."""
    return [one.text for one in ET.fromstring(charts.svg_of(figure)).iter() if one.tag.endswith("text")]


def test_runs_are_drawn_in_pairs_of_their_seeds():
    records = draw_records(GAINS, (5, 10), 4)
    del records[5]["test"]["dice"]  # seed 1 of scratch with 10 labels
    results = results_of(records)
    left, right = comparisons.paired_chart(results, "genesis", "scratch").axes
    by_seed = {(one["arm"], one["seed"]): one["test"].get("dice") for one in records if one["labels"] == 10}
    expected = [by_seed["genesis", seed] - by_seed["scratch", seed] for seed in (0, 2, 3)]
    drawn = [line.get_ydata() for line in right.lines if np.size(line.get_ydata()) == 3]
    assert any(np.allclose(values, expected) for values in drawn)
    assert len([line for line in left.lines if np.array_equal(line.get_xdata(), [0.8, 1.2])]) == 3
    assert "above the line genesis is better" in comparisons.paired_caption(results, "genesis", "scratch")
    for entry in results["labels"].values():  # of an older version, which did not keep the seeds
        for arm in entry["arms"].values():
            del arm["dice"]["seeds"]
    assert len(comparisons.paired_chart(results, "genesis", "scratch").axes[0].lines) < len(left.lines)


def test_label_efficiency_leads_beyond_what_was_run():
    figure = comparisons.efficiency_chart(results_of(draw_records({**GAINS, "b": -0.2}, runs=4)))
    assert {"genesis, against scratch", "b, against scratch", "5", "20"} <= set(shown(figure))
    ends = {str(line.get_marker()) for line in figure.axes[0].lines if np.size(line.get_xdata()) == 1}
    assert {"^", "v"} <= ends


def test_the_budget_is_drawn_by_label_count_and_the_mean_as_far_as_all_runs_go():
    records = draw_records(GAINS, (5, 10), 2)
    for index, record in enumerate(records):
        steps = [10, 20, 30][: 2 + index % 2]  # the first run stopped early
        record["curve"] = {"metric": "dice", "step": steps, "values": [0.5, None, 0.7][: len(steps)]}
    figure = comparisons.budget_chart(results_of(records), records)
    assert {"5 labelled patients", "10 labelled patients", "genesis", "validation Dice"} <= set(shown(figure))
    means = [line for line in figure.axes[0].lines if line.get_label() == "scratch"]
    assert np.array_equal(means[0].get_xdata(), [10, 20])


def test_a_long_name_is_cut_in_a_legend_and_leaves_room_for_the_axes():
    results = results_of(draw_records({"scratch": 0.0, "n" * 200: 0.2}, (5,)))
    figure = comparisons.comparison_chart(results)
    assert any(text and text.endswith("n…") for text in shown(figure))
    assert figure.axes[0].get_position().width > 0.6
