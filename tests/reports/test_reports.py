"""Which page a folder gets, when it is renewed, and what happens when it cannot be."""

import json

import pytest

from modelsgenesis import report, reports
from modelsgenesis.errors import DataError
from modelsgenesis.reports import Renewals, page_of, write_report
from recorded_notes import Notes

PRETRAINING = {"config": {"steps": 10, "batch_size": 2}, "kind": "pretraining", "finished": True}


def write_run(folder, loss=0.5, **changes):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(PRETRAINING | changes))
    (folder / "refused.csv").write_text("source,reason\n")
    (folder / "validation.csv").write_text(f"step,restoration_loss,mean_image_loss\n10,{loss},1.0\n")
    return folder


def test_a_folder_of_runs_lists_them_with_links(tmp_path):
    first = write_run(tmp_path / "runs" / "a <b> c")
    write_run(tmp_path / "runs" / "deep" / "er", loss=0.25, finished=False)
    report(first)
    (tmp_path / "runs" / "prediction.nii.gz").touch()
    page = report(tmp_path / "runs").read_text()
    assert '<a href="a%20%3Cb%3E%20c/report.html">a &lt;b&gt; c</a>' in page
    assert "restoration loss 0.25" in page
    assert "deep/er" in page
    assert "2 runs, 1 finished." in page
    assert 'href="prediction.nii.gz"' in page


@pytest.mark.parametrize(
    "results",
    [{"arms": {}, "seeds": [0, 1, 2]}, {"test": {"dice": {"value": "much"}}}, {"metrics": {"dice": 3}}, {"test": []}],
)
def test_a_record_that_cannot_be_read_costs_its_own_row_alone(tmp_path, results):
    write_run(tmp_path / "good", loss=0.25)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text(json.dumps(results))
    table = page_of(tmp_path).sections[0].blocks[0]
    bad, good = table.rows
    assert good[3] == "restoration loss 0.25"
    assert bad[0] == "bad"
    assert bad[3] == "" or "results cannot be read" in bad[3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.touch(), "is a file; name the folder of a run"),
        (lambda path: path.mkdir(), "holds none; expected a run, an evaluation, a comparison, or a folder of them"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        report(tmp_path / "x")


def test_a_page_elsewhere_links_to_the_run_and_replaces_nothing_else(tmp_path):
    run = write_run(tmp_path / "my runs" / "a")
    report(run)
    page = report(tmp_path / "my runs", tmp_path / "pages" / "all.html").read_text()
    assert 'href="../my%20runs/a/report.html"' in page
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    with pytest.raises(DataError, match=r"model\.safetensors: a report is HTML; name a \.html"):
        report(run, weights)
    assert weights.read_bytes() == b"weights"


def test_no_report_ends_a_run(tmp_path, monkeypatch):
    run, notes = write_run(tmp_path / "run"), Notes()
    monkeypatch.setattr(reports, "page_of", lambda folder: 1 / 0)
    assert write_report(run, reporter=notes) == run / "report.html"
    assert "there is no new report: division by zero" in notes.notes[0]
    with pytest.raises(ZeroDivisionError):
        write_report(run)


def test_renewals_cost_less_than_two_percent(tmp_path, monkeypatch):
    now, renewed = [0.0], []

    def renew(folder, reporter):
        renewed.append(now[0])
        now[0] += 3.0  # seconds that it takes

    monkeypatch.setattr(reports.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(reports, "write_report", renew)
    renewals = Renewals(tmp_path, Notes())
    while now[0] < 1000:
        renewals.renew()
        now[0] += 10
    assert renewed[0] == 210  # the first may cost two seconds, and so may the last
    assert 3 * (len(renewed) + 1) <= 0.02 * now[0]
    assert len(renewed) == 5


def test_a_damaged_record_is_a_remark(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "run.json").write_text('{"kind": "pretr')
    assert "run.json: cannot be read as JSON" in page_of(run).remarks[-1]
