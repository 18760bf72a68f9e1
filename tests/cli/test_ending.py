import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelsgenesis.cli.ending import end_with_error, end_with_signal, interruptible
from modelsgenesis.errors import GenesisError, Interrupted, PeerError

SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_raises_and_the_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"interrupted by {number.name}: what was finished is kept"), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import signal\nfrom modelsgenesis.cli.ending import interruptible\n"
        "with interruptible():\n"
        "    try:\n        signal.raise_signal(15)\n"
        "    finally:\n        signal.raise_signal(15)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True)
    assert (done.returncode, done.stderr) == (-15, b"")


@pytest.mark.parametrize(
    ("rank", "error", "note", "words"),
    [
        ("0", GenesisError("full disk"), None, "error: full disk\n"),
        ("1", GenesisError("full disk"), None, ""),
        ("1", GenesisError("full disk"), "process 1", "process 1: error: full disk\n"),
        ("1", PeerError("full disk"), "process 1", ""),
    ],
)
def test_of_several_processes_one_speaks(monkeypatch, capsys, rank, error, note, words):
    monkeypatch.setenv("RANK", rank)
    if note:
        error.add_note(note)
    with pytest.raises(SystemExit) as stop:
        end_with_error(error)
    assert stop.value.code == 1
    assert capsys.readouterr().err == words


@pytest.mark.parametrize(("rank", "words"), [("0", "go on\n"), ("2", "")])
def test_a_signal_ends_with_its_status(monkeypatch, capsys, rank, words):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as stop:
        end_with_signal(Interrupted(15, "go on"))
    assert stop.value.code == 143
    assert capsys.readouterr().err == words


def test_a_signal_while_a_module_is_imported_ends_at_once(tmp_path):
    (tmp_path / "slow.py").write_text("import signal\ntry:\n    signal.raise_signal(2)\nfinally:\n    print('torn')\n")
    code = "from modelsgenesis.cli.ending import interruptible\nwith interruptible():\n    import slow\n"
    paths = {"PYTHONPATH": f"{SOURCE}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **paths}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("interrupted by SIGINT: ")


def test_a_signal_while_scans_are_looked_for_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "scans.txt")  # reading this list of files waits for ever
    process = subprocess.Popen(
        [sys.executable, "-m", "modelsgenesis", "pretrain", str(tmp_path / "scans.txt"), "-o", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while "torch/lib" not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)  # not before the command runs
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.strip().splitlines()[-1].startswith("interrupted by SIGTERM: what was finished is kept")
    assert "Traceback" not in err
