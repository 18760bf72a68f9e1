import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelsgenesis.cli import main


@dataclass
class Result:
    status: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def command(capfd, monkeypatch):
    """Run the command line in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["modelsgenesis", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def process():
    """Run the command line, or Python, in a process of its own."""

    def run(*arguments, python=False, **environment):
        source = str(Path(__file__).parents[2] / "src")
        start = [sys.executable] if python else [sys.executable, "-m", "modelsgenesis"]
        return subprocess.run(
            [*start, *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding=environment.get("PYTHONIOENCODING", "utf-8"),
            timeout=120,
            env={**os.environ, "PYTHONPATH": source, **environment},
        )

    return run


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
    arguments = [
        "modelsgenesis",
        "pretrain",
        str(ct_folder),
        "-o",
        str(folder),
        "--steps",
        "4",
        *tiny_pretraining,
        "-q",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


@pytest.fixture
def refuses(command, ct_folder, tmp_path):
    """Check that a command line ends with a status and one line; {tmp} and {ct} stand for folders."""

    def check(arguments, status, message):
        places = {"{tmp}": str(tmp_path), "{ct}": str(ct_folder)}
        for place, path in places.items():
            arguments = [argument.replace(place, path) for argument in arguments]
        if arguments[0] != "predict" and "-o" not in arguments:
            arguments = [*arguments, "-o", str(tmp_path / "run")]
        result = command(*arguments)
        assert result.status == status, result.err
        assert re.search(message, result.err), result.err
        assert "Traceback" not in result.err
        assert result.err.strip().splitlines()[-1].startswith("error: ")

    return check
