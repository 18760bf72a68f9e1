"""What the package depends on: the lowest versions are those that the checks install, and it fits beside others."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BESIDE = ("transformers", "datasets", "gradio", "timm", "nnunetv2", "torchio", "TotalSegmentator")


def dependencies():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def test_the_lowest_versions_are_those_that_are_tested():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [*dependencies(), *extras["keras"], *extras["tensorboard"]]  # that of the viewer needs NumPy 2
    tested = dict(line.split("==") for line in (ROOT / ".ci" / "floors.txt").read_text().splitlines())
    lowest = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines)
    assert {"torch", *tested} == lowest.keys()
    for name, version in tested.items():
        assert re.fullmatch(rf"{re.escape(lowest[name])}(\.0)*", version), name


@pytest.mark.slow
@pytest.mark.timeout(1200)  # pip looks at many versions
def test_it_installs_beside_what_its_users_have(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q"]
    subprocess.run([*pip, *dependencies(), *BESIDE], check=True, cwd=tmp_path)
