"""How commands end: one line on stderr and a status, whatever happens inside."""

import errno
import signal

import pytest
import typer

from modelsgenesis import inspection
from modelsgenesis.cli.errors import one_line
from modelsgenesis.errors import GenesisError, Interrupted

BUG = "please report it with the output of the same command with --debug"


@pytest.fixture
def scan_raises(command, monkeypatch):
    """Run `scan` with an exception in its middle."""

    def run(problem, *arguments):
        def fails(*_, **__):
            raise problem

        monkeypatch.setattr(inspection, "inspect_scans", fails)
        return command("scan", "x", *arguments)

    return run


@pytest.mark.parametrize(
    ("problem", "status", "words"),
    [
        (KeyError("spacing"), 1, "error: unexpected KeyError: 'spacing'; "),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "error: unexpected BrokenPipeError: Broken pipe; "),
        (RuntimeError("first\nTraceback\n\x1b[31mred[/]"), 1, r"error: unexpected RuntimeError: \x1b[31mred[/]; "),
        (OSError(errno.ENOSPC, "No space left on device", "a\nb"), 1, r"error: a\nb: No space left on device; check"),
        (MemoryError(), 1, "error: out of memory; "),
        (RuntimeError("a trial: Traceback\n  File x\nMemoryError"), 1, "error: out of memory; "),
        (GenesisError("p\x1b[2J.nii: [red]"), 1, r"error: p\x1b[2J.nii: [red]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(15, "resume it"), 143, "resume it"),
        (typer.BadParameter("no\x1bsuch"), 2, r"error: Invalid value: no\x1bsuch; see modelsgenesis scan --help"),
    ],
)
def test_whatever_happens_is_one_line(scan_raises, problem, status, words):
    ended = scan_raises(problem)
    assert (ended.status, ended.out) == (status, "")
    assert ended.err.startswith(words)
    assert ended.err.count("\n") == 1
    assert (BUG in ended.err) == ("unexpected" in ended.err)


def test_debug_shows_the_traceback_before_the_line(scan_raises, monkeypatch):
    lines = scan_raises(KeyError("spacing"), "-q", "--debug").err.splitlines()
    assert (lines[0], lines[-2]) == ("Traceback (most recent call last):", "KeyError: 'spacing'")
    assert lines[-1].startswith("error: unexpected KeyError")
    monkeypatch.setenv("MODELSGENESIS_DEBUG", "1")
    assert "Traceback" in scan_raises(GenesisError("known too")).err


@pytest.mark.parametrize(
    ("rank", "error", "note", "words"),
    [
        ("1", GenesisError("full disk"), "process 1", "process 1: error: full disk\n"),
        ("1", Interrupted(2, "resume it"), "process 1", ""),
        ("2", KeyError("x"), None, f"process 2: error: unexpected KeyError: 'x'; this is a bug: {BUG}\n"),
    ],
)
def test_of_several_processes_rank_0_speaks_or_the_one_that_failed(monkeypatch, capsys, rank, error, note, words):
    monkeypatch.setenv("RANK", rank)
    if note:
        error.add_note(note)
    with pytest.raises(SystemExit), one_line():
        raise error
    assert capsys.readouterr().err == words


def test_a_second_signal_and_one_while_a_module_is_imported_end_the_process_at_once(process, tmp_path):
    start = "import signal, sys\nfrom modelsgenesis.cli.errors import interruptible\nwith interruptible():\n"
    twice = f"{start}    try: signal.raise_signal(15)\n    finally: signal.raise_signal(15)\n"
    done = process("-c", twice, python=True)
    assert (done.returncode, done.stderr) == (-15, "")
    (tmp_path / "slow.py").write_text("import signal\ntry: signal.raise_signal(2)\nfinally: print('torn')\n")
    done = process("-c", f"{start}    sys.path.append({str(tmp_path)!r})\n    import slow\n", python=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("interrupted by SIGINT: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_a_command_is_one_line_and_the_handlers_are_put_back(command, monkeypatch, number):
    before = signal.getsignal(number)
    monkeypatch.setattr(inspection, "inspect_scans", lambda *_, **__: signal.raise_signal(number))
    ended = command("scan", "x")
    assert (ended.status, ended.err.count("\n"), signal.getsignal(number)) == (128 + number, 1, before)
    assert ended.err.startswith(f"interrupted by {number.name}: what was finished is kept; ")
