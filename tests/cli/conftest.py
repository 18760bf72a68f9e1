import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelsgenesis.cli import main

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}


@dataclass
class Result:
    status: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


def run_main(*arguments):
    """Run the command line in this process; return its status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["modelsgenesis", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code or 0


@pytest.fixture
def command(capfd):
    """Run the command line in this process."""

    return lambda *arguments: Result(run_main(*arguments), *capfd.readouterr())


@pytest.fixture
def process():
    """Run the command line, or Python, in a process of its own."""

    def run(*arguments, python=False, **environment):
        start = [sys.executable] if python else [sys.executable, "-m", "modelsgenesis"]
        options = {"encoding": environment.get("PYTHONIOENCODING", "utf-8"), "env": {**ENVIRONMENT, **environment}}
        return subprocess.run([*start, *map(str, arguments)], capture_output=True, timeout=120, **options)

    return run


@pytest.fixture
def background():
    """Start the command line in a process of its own, in a session of its own."""

    def start(*arguments):
        command = [sys.executable, "-m", "modelsgenesis", *map(str, arguments)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True)

    return start


@pytest.fixture(scope="session")
def tiny():
    """Options of a training that takes a second."""
    return [
        *("--set", "network.widths=8,16", "--set", "patch_size=16,16,12", "--set", "samples_per_scan=2"),
        *("--set", "batch_size=2", "--set", "validate_every=2", "--set", "workers=0", "--device", "cpu"),
    ]


@pytest.fixture(scope="session")
def tiny_pretraining(tiny):
    """Options of a pretraining that takes a second."""
    return [*tiny, "--set", "validation_samples=2", "--modality", "ct"]


@pytest.fixture(scope="session")
def genesis_run(ct_folder, tiny_pretraining, tmp_path_factory):
    """The folder of a pretraining that ended."""
    folder = tmp_path_factory.mktemp("runs") / "genesis"
    assert run_main("pretrain", ct_folder, "-o", folder, "--steps", 4, *tiny_pretraining, "-q") == 0
    return folder


@pytest.fixture
def refuses(command, ct_folder, tmp_path):
    """Check that a command line ends with a status and one line; {tmp} and {ct} stand for folders."""

    def check(arguments, status, message):
        arguments = [word.replace("{tmp}", str(tmp_path)).replace("{ct}", str(ct_folder)) for word in arguments]
        output = [] if arguments[0] == "predict" or "-o" in arguments else ["-o", str(tmp_path / "run")]
        result = command(*arguments, *output)
        assert result.status == status, result.err
        assert re.search(message, result.err), result.err
        assert "Traceback" not in result.err
        assert result.err.strip().splitlines()[-1].startswith("error: ")

    return check
