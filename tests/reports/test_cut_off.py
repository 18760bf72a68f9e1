"""A folder of which any file is missing or cut off has a report that opens."""

import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from labelled_files import mask, save
from modelsgenesis.comparison import _write
from modelsgenesis.errors import DataError
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import write_report
from simulated_comparison import draw_records, results_of

READ = (".json", ".csv", ".npz")
VOID = ("meta", "input", "img", "br", "hr", "link")


class Outline(HTMLParser):
    """Counts the elements of a page, and holds that each is closed where it must be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], Counter()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen[tag] += 1
        self.open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag):
        assert tag in VOID or tag == self.open.pop()


def evaluated(folder):
    for index in range(2):
        save(folder / "truth" / f"p{index}.nii.gz", mask(1, 2))
        save(folder / "predicted" / f"p{index}.nii.gz", np.roll(mask(1, 2), index, axis=0))
    return modelsgenesis.evaluate(folder / "predicted", folder / "truth", output=folder / "run", bootstrap=10).folder


def compared(folder):
    records = draw_records({"scratch": 0.0, "ours": 0.1}, counts=(5, 10), runs=3)
    more = {"settings": [], "learning_rate": 1e-3, "validation": {}, "step": 1, "steps": 2, "seconds": 1.0}
    records = [{**record, **more} for record in records]
    return _write(folder, results_of(records), records, Reporter()).folder


@pytest.fixture(params=["pretraining", "finetuning", "evaluation", "comparison", "runs"])
def folder(request, genesis, finetuned, tmp_path):
    if request.param in ("evaluation", "comparison"):
        return (evaluated if request.param == "evaluation" else compared)(tmp_path / "made")
    run = genesis if request.param != "finetuning" else finetuned[0]
    place = tmp_path / "runs" / "run"
    shutil.copytree(run, place, ignore=shutil.ignore_patterns("checkpoints", "figures"))
    return place.parent if request.param == "runs" else place


def test_of_a_folder_with_any_file_missing_or_cut_off_there_is_a_report_that_opens(folder, monkeypatch):
    # Charts are not written, and slices are all the same: that takes most of the time, and knows nothing of files.
    monkeypatch.setattr("modelsgenesis.figures.charts._svg", lambda *_, **__: "<svg viewBox='0 0 1 1'></svg>")
    monkeypatch.setattr("modelsgenesis.reports.results.outlines", lambda *_, **__: Image.new("RGB", (8, 8)))
    whole = Outline(write_report(folder).read_text()).seen
    assert (whole["h1"], whole["main"]) == (1, 1)
    assert whole["h2"] >= 1
    refused = []
    for path in [path for path in sorted(folder.rglob("*")) if path.suffix in READ]:
        content = path.read_bytes()
        for cut in (None, content[: len(content) // 2]):
            path.unlink() if cut is None else path.write_bytes(cut)
            (folder / "report.html").unlink(missing_ok=True)
            try:
                seen = Outline(write_report(folder).read_text()).seen
                assert (seen["h1"], seen["main"]) == (1, 1), path
            except DataError:
                refused.append((path.name, cut is None))
        path.write_bytes(content)
    # Without the file that tells what a folder is, it is none of ours.
    assert set(refused) <= {(name, True) for name in ("run.json", "results.json", "comparison.json")}
