"""A user with the wheel installed, an empty home and a shell; every test of this folder carries the marker `journey`.

    pytest -m journey tests/journeys/test_student.py

`user.types("modelsgenesis scan scans")` is a line as typed, in the user's home; what it imports is the installed wheel.
No line reaches the network; with the fixture `hub` they speak to a Hub of this machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from loopback_hub import served

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # nobody listens: a journey without a Hub meets a network that is down


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("journey")


@dataclass(frozen=True)
class Output:
    """What a line printed."""

    stdout: str
    stderr: str


@dataclass(frozen=True)
class User:
    """Somebody with a shell: `home` is where the lines run, `environment` what they see; both may be changed."""

    home: Path
    environment: dict[str, str]

    def types(self, line: str, *, expect: int = 0, timeout: float = 240, **variables: str) -> Output:
        """Run a line of bash, up to its first failure, and check its status; `variables` join the environment."""
        process = self.starts(line, **variables)
        try:
            output = Output(*process.communicate(timeout=timeout))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        said = f"$ {line}\nstatus {process.returncode}, expected {expect}\n{output.stdout}\n{output.stderr}"
        assert process.returncode == expect, said
        assert "Traceback" not in output.stderr, said
        return output

    def starts(self, line: str, **variables: str) -> subprocess.Popen[str]:
        """Start a line as a process group of its own, for a test that interrupts or kills it (`os.killpg`)."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        place = {"cwd": self.home, "env": {**self.environment, **variables}, "start_new_session": True}
        return subprocess.Popen(["bash", "-ec", line], **pipes, **place)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with the wheel, over the libraries of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    bin_, libraries = folder / "bin", sysconfig.get_path("purelib")
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "libraries.pth").write_text(f"{libraries}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(bin_ / "python")]
    install = [*pip, "install", "-q", "--no-deps", "--no-index", "--ignore-installed", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    for name in ("hf", "torchrun"):  # commands of libraries, in this environment's Python
        _, _, script = (Path(sys.executable).parent / name).read_text().partition("\n")
        (bin_ / name).write_text(f"#!{bin_ / 'python'}\n{script}")
        shutil.copymode(bin_ / "modelsgenesis", bin_ / name)
    return bin_


@pytest.fixture(scope="module")
def user(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """The user of a file of tests, whose home lasts from its first test to its last."""
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "PATH": f"{installed}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    network = {"HF_ENDPOINT": NOWHERE, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1,localhost"}
    return User(home, {**environment, **network, "OMP_NUM_THREADS": "2"})


@pytest.fixture
def hub(user: User, monkeypatch: pytest.MonkeyPatch):
    """A Hub on the loopback interface, empty at first; `hf_alice` is a token with write access, `hub.add` fills it."""
    with served() as hub:
        monkeypatch.setitem(user.environment, "HF_ENDPOINT", hub.url)
        yield hub
