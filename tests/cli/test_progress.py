import io
import re
import sys
import time

import pytest

from modelsgenesis.cli.console import make_reporter
from modelsgenesis.cli.errors import one_line
from modelsgenesis.cli.progress import Display
from modelsgenesis.errors import GenesisError
from modelsgenesis.reporting import Reporter

BASELINES = {"identity_loss": 0.08, "mean_image_loss": 0.03}
METRICS = {"restoration_loss": 0.015, **BASELINES, "output_spread": 0.5, "collapsed": 0.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch, term="xterm"):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_plain_lines_have_every_loss_beside_the_baselines(capsys):
    display = Display()
    display.begin("preparing scans", 2)
    display.advance(1)
    display.advance(2)
    display.end()
    display.baselines(BASELINES)
    display.begin("training", 20)
    for step in range(1, 21):
        display.step(step, 0.02, 12.5, 0.03)
        if step % 10 == 0:
            display.validation(step, METRICS | {"restoration_loss": 0.15 / step}, True)
    display.note("one thing [more]\x1b[31m")
    display.end()
    lines = capsys.readouterr().err.splitlines()
    baselines = "baselines: mean image 0.0300, identity 0.0800"
    assert lines[:4] == [*(f"preparing scans: {done}/2" for done in range(3)), baselines]
    steps = [line for line in lines if line.startswith("step ") and "validation" not in line]
    assert len(steps) == 10
    assert all(f"loss 0.0200 ({baselines})" in line for line in steps)
    assert all(re.search(r"  12.5 samples/s, 3% waiting for data  0:00:\d\d left$", line) for line in steps)
    first, second = [line for line in lines if "  validation" in line]
    assert lines[-1].startswith("best validation: step 20: restoration loss 0.0075")
    assert "0.50× the mean-image baseline (0.0300), 0.19× the identity baseline (0.0800)" in first
    assert "; best before: step 10: restoration loss 0.0150" in second
    assert lines[-2] == r"one thing [more]\x1b[31m"
    display.begin("training", 2)
    display.step(1, 0.9, 12.5, 0.0)
    assert "baselines" not in capsys.readouterr().err  # which were those of the training before


def test_a_resumed_run_says_from_where_and_a_long_silence_is_broken(capsys):
    display = Display()
    display.begin("training", 1_000_000, 5)
    display.step(6, 0.5, 1.0, 0.0)
    display.spoke = time.monotonic() - 301
    display.step(7, 0.5, 1.0, 0.0)
    display.validation(8, {"dice": 0.9, "dice liver": 0.8}, True)
    display.validation(9, {}, False)
    begin, step, validation = capsys.readouterr().err.splitlines()
    assert begin == "training: 5/1000000"
    assert step.startswith("step 7/1000000  loss 0.5000  1.0 samples/s")
    assert validation == "step 8/1000000  validation: dice 0.9000, dice liver 0.8000"


def test_a_resumed_run_knows_its_best_validation_and_the_end_says_it(capsys, monkeypatch):
    display = Display()
    display.begin("training", 30, 10)
    display.best(10, {"dice": 0.8, "dice liver": 0.8})
    display.validating()
    display.validation(20, {"dice": 0.7, "dice liver": 0.7}, False)
    display.end()
    display.end()
    _, best, worse, kept = capsys.readouterr().err.splitlines()
    assert best == "best so far: step 10: dice 0.8000"
    assert worse.endswith("dice 0.7000, dice liver 0.7000; best before: step 10: dice 0.8000")
    assert kept == "best validation: step 10: dice 0.8000"
    terminal = open_terminal(monkeypatch)
    display = Display()
    display.begin("training", 30)
    display.validating()
    display.live.refresh()
    assert "validating" in terminal.getvalue()
    display.end()


def test_a_terminal_shows_a_bar_with_rows_and_notes_above_it(monkeypatch):
    terminal = open_terminal(monkeypatch)
    display = Display()
    display.baselines(BASELINES)
    display.begin("training [/]", 20)
    display.step(1, 0.02, 12.5, 0.03)
    display.validation(1, METRICS, True)
    display.note("a [/name] with \x1b[2J")
    display.step(2, 0.02, 12.5, 0.03)
    display.end()
    display.end()
    shown = terminal.getvalue()
    assert "step 1: restoration loss 0.0150 = 0.50× mean image, 0.19× identity" in shown
    baselines, escaped = "mean image 0.0300, identity 0.0800", r"a [/name] with \x1b[2J"
    assert all(words in shown for words in ("training [/]", "2/20", baselines, "3% waiting", escaped)), shown


def test_an_error_stops_the_bar_first(monkeypatch):
    terminal = open_terminal(monkeypatch)
    make_reporter().begin("training", 20)
    with pytest.raises(SystemExit), one_line():
        raise GenesisError("a full disk")
    shown = terminal.getvalue()
    assert shown.endswith("error: a full disk\n")
    assert shown.index("\x1b[?25h") < shown.index("error: ")  # the cursor is there again


def test_a_dumb_terminal_gets_plain_lines_and_quiet_says_nothing(monkeypatch):
    terminal = open_terminal(monkeypatch, "dumb")
    make_reporter().begin("training", 20)
    assert terminal.getvalue() == "training: 0/20\n"
    assert type(make_reporter(quiet=True)) is Reporter
