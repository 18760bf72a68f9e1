import json
import os
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
            timeout=120,
            env={**os.environ, "PYTHONPATH": source, **environment},
        )

    return run
