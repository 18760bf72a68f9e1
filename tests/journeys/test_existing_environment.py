"""Somebody whose environment exists: the wheel beside the oldest client of the Hub that it takes, and no extras."""

import json
import re
import sys
from pathlib import Path

FLOORS = (Path(__file__).parents[2] / ".ci" / "floors.txt").read_text()


def test_an_old_client_of_the_hub_publishes_and_downloads(user, hub):
    old = re.search(r"huggingface-hub==(\S+)", FLOORS)[1]
    user.types(f"{sys.executable} -m pip install -q --target old huggingface-hub=={old}")
    found = {"PYTHONPATH": str(user.home / "old"), "HF_TOKEN": "hf_alice"}
    version = 'python -c "import huggingface_hub; print(huggingface_hub.__version__)"'
    assert user.types(version, **found).stdout == f"{old}\n"
    folder = user.types("modelsgenesis download genesis-hippocampus-mri-3d-small", **found).stdout.strip()
    pushed = user.types(f"modelsgenesis push {folder} --hub-model-id alice/hippocampus", **found)
    assert "alice/hippocampus" in pushed.stdout
    assert hub.repositories["alice/hippocampus"].private
    there = Path(user.types("modelsgenesis download alice/hippocampus", **found).stdout.strip())
    assert json.loads((there / "config.json").read_text())["task"] == "restoration"
