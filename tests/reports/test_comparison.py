"""The page of a comparison, whatever is left of its folder."""

import json
import re

import pytest

from modelsgenesis.reports import report
from simulated_comparison import draw_records, results_of

GAINS = {"scratch": 0.0, "<script>alert(1)</script>": 0.2}


@pytest.fixture
def folder(tmp_path):
    """A comparison of four runs of each initialisation, as `compare` writes it."""
    records = draw_records(GAINS, (5, 10), 4)
    results = results_of(records) | {"device": "cpu", "precision": "float32", "remarks": ["one remark"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "comparison.json").write_text("{}")
    for number, record in enumerate(records):
        record["curve"] = {"metric": "dice", "step": [10, 20], "values": [0.5, 0.6]}
        path = tmp_path / "runs" / f"arm-{number}" / f"labels-{record['labels']}" / f"seed-{record['seed']}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    return tmp_path


def read(folder):
    return report(folder).read_text()


def test_the_page_says_who_is_better_in_pairs_by_labels_and_over_the_budget(folder):
    text = read(folder)
    assert re.search(r'class="verdict"[^<]*>\s*In Dice, &lt;script&gt;.* is better than scratch with 5', text)
    assert "<script>alert" not in text
    assert text.count("<svg") >= 4
    assert "could not be drawn" not in text
    for part in ("one remark", "Runs in pairs", "What this does not show", "seeds, on one split", "more than 10"):
        assert part in text


def test_runs_of_an_older_version_have_no_curve_over_the_budget(folder):
    for path in folder.glob("runs/*/*/*.json"):
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "curve"})
        )
    assert "The runs kept no validation curve" in read(folder)


@pytest.mark.parametrize("gains", [{"scratch": 0.0}, {**GAINS, "b": 0.1}])
def test_one_initialisation_and_several_have_a_page(folder, gains):
    results = results_of(draw_records(gains, (5,), 1)) | {"device": "cpu", "precision": "float32"}
    (folder / "results.json").write_text(json.dumps(results))
    text = read(folder)
    assert "No verdict: 1 run of each initialisation" in text
    assert "could not be drawn" not in text
    assert ("there are no differences" in text) == (len(gains) == 1)


@pytest.mark.parametrize("left", [0, 100, None])
def test_a_comparison_that_was_cut_off_says_how_far_it_came(folder, left):
    path = folder / "results.json"
    path.unlink() if left is None else path.write_text(path.read_text()[:left])
    damaged = folder / "runs" / "arm-0" / "labels-5" / "seed-0.json"
    damaged.write_text(damaged.read_text()[:50])
    text = read(folder)
    assert "Not finished: 15 runs so far; the same command resumes" in text
    assert ("results.json" in text) == (left is not None)  # a remark names it


def test_an_extended_comparison_that_was_cut_off_says_that_there_is_more(folder):
    assert "more than" not in read(folder).split("Runs in pairs")[0]
    record = json.loads((folder / "runs" / "arm-0" / "labels-5" / "seed-0.json").read_text())
    (folder / "runs" / "arm-0" / "labels-5" / "seed-9.json").write_text(json.dumps({**record, "seed": 9}))
    assert "17 runs are finished, more than the 16 of this page; the same command resumes" in read(folder)
