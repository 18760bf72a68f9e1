import io
import sys
import time

import pytest
from rich.console import Console

from modelsgenesis.cli.console import make_reporter
from modelsgenesis.cli.reporters import LiveReporter, PlainReporter
from modelsgenesis.reporting import Reporter

BASELINES = {"identity_loss": 0.08, "mean_image_loss": 0.03}
METRICS = {"restoration_loss": 0.015, **BASELINES, "output_spread": 0.5, "collapsed": 0.0}


def run_through(reporter):
    reporter.begin("preparing scans", 2)
    reporter.advance(1)
    reporter.advance(2)
    reporter.end()
    reporter.baselines(BASELINES)
    reporter.begin("training", 20)
    for step in range(1, 21):
        reporter.step(step, 0.02, 12.5, 0.03)
        if step % 10 == 0:
            reporter.validation(step, METRICS | {"restoration_loss": 0.15 / step})
            reporter.best(step, METRICS | {"restoration_loss": 0.15 / step})
    reporter.note("one thing [more]")
    reporter.end()


def test_plain_lines_have_every_loss_beside_the_baselines(capsys):
    run_through(PlainReporter())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "preparing scans: 2 steps"
    assert "losses of maps that learn nothing: identity 0.08, mean image 0.03" in lines
    steps = [line for line in lines if line.startswith("step ") and "validation" not in line]
    assert len(steps) == 10
    assert all("loss 0.02 (identity 0.08, mean image 0.03)" in line for line in steps)
    assert all("12.5 samples/s  waiting for data 3%" in line and line.endswith(" left") for line in steps)
    first, second = [line for line in lines if "validation" in line]
    assert first.endswith("restoration loss 0.015, mean image loss 0.03 (0.50 of it), identity loss 0.08 (0.19 of it)")
    assert second.endswith("; best before: restoration loss 0.015 at step 10")
    assert lines[-1] == "one thing [more]"


@pytest.mark.parametrize("make", [PlainReporter, LiveReporter])
def test_baselines_end_with_their_training(make):
    reporter = make()
    run_through(reporter)
    reporter.begin("training", 2)
    reporter.step(1, 0.9, 12.5, 0.0)
    assert reporter.run.beside() == ""
    reporter.end()


def test_a_long_silence_is_broken(capsys):
    reporter = PlainReporter()
    reporter.begin("training", 1_000_000)
    reporter.step(1, 0.5, 1.0, 0.0)
    reporter.spoke = time.monotonic() - 301
    reporter.step(2, 0.5, 1.0, 0.0)
    assert [line[:6] for line in capsys.readouterr().err.splitlines()] == ["traini", "step 2"]


def test_a_resumed_run_says_from_where_and_metrics_of_other_tasks_are_shown(capsys):
    reporter = PlainReporter()
    reporter.begin("training", 10, 5)
    reporter.validation(10, {"dice": 0.9, "dice liver": 0.8})
    reporter.validation(10, {})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 10 steps, from step 5", "step 10/10  validation: dice 0.9000, dice liver 0.8000"]


def test_the_live_display_shows_loss_baselines_best_speed_and_time_left():
    reporter = LiveReporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=110, height=40)
    reporter.baselines(BASELINES)
    reporter.begin("training", 20)
    reporter.step(1, 0.02, 12.5, 0.03)
    reporter.validation(1, METRICS)
    reporter.best(1, METRICS)
    reporter.step(2, 0.02, 12.5, 0.03)
    shown = Console(file=io.StringIO(), width=110)
    shown.print(reporter._picture())
    text = shown.file.getvalue()
    for words in (
        "training",
        "2/20",
        " left",
        "loss        0.02",
        "identity 0.08, mean image 0.03",
        "step 1: restoration loss 0.015, 0.50 of the mean image, 0.19 of the identity",
        "12.5 samples/s, 3% of the time waiting for data",
    ):
        assert words in text, text
    reporter.end()
    reporter.end()


def test_the_live_display_prints_notes_and_validations_above():
    reporter = LiveReporter()
    reporter.console = Console(file=io.StringIO(), width=110)
    run_through(reporter)
    text = reporter.console.file.getvalue()
    assert "one thing [more]" in text
    assert "step 10  restoration loss 0.015, mean image loss 0.03 (0.50 of it)" in text


@pytest.mark.parametrize(
    ("quiet", "terminal", "kind"), [(True, True, Reporter), (False, True, LiveReporter), (False, False, PlainReporter)]
)
def test_the_display_suits_the_terminal(monkeypatch, quiet, terminal, kind):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert type(make_reporter(quiet=quiet)) is kind
