"""`report` on the command line."""

import json
import webbrowser

import pytest


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"kind": "pretraining", "config": {"steps": 2}}))
    return tmp_path / "run"


def test_report_prints_the_page_and_opens_it(command, run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)  # which says that there is no browser
    shown = command("report", run, "--open", "-o", tmp_path / "page.html")
    assert (shown.status, shown.out) == (0, f"{tmp_path / 'page.html'}\n")
    assert opened == [(tmp_path / "page.html").as_uri()]
    assert "no browser could be opened: open" in shown.err
    assert command("report", run, "--json").json() == {"report": str(run / "report.html")}


def test_report_of_what_is_no_run_is_one_line(command, tmp_path):
    shown = command("report", tmp_path)
    assert shown.status == 1
    assert "holds none; expected a run, an evaluation, a comparison, or a folder of them" in shown.err
    assert len(shown.err.splitlines()) == 1
