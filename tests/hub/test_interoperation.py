"""What was pushed, used without this package, and by torch.hub."""

import re
import subprocess
import sys
from pathlib import Path

import torch

from loopback_hub import LoopbackHub
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import load_bundle

ROOT = Path(__file__).parents[2]


def test_the_documented_lines_load_it_without_this_package(
    hub: LoopbackHub, run: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    room.publish(run, "clinic/genesis")
    page = (ROOT / "docs" / "hub.md").read_text("utf-8")
    found = re.search(r"<!-- test: plain -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found
    assert len(found[1].strip().splitlines()) <= 10
    code = "import sys; sys.modules['modelsgenesis'] = None\n" + found[1].replace("org/name", "clinic/genesis")
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    numbers = sum(tensor.numel() for tensor in load_bundle(run).network.state_dict().values())
    assert ended.stdout == f"genesis_unet ct {numbers}\n", ended.stderr


def test_torch_hub_loads_it(run: Path) -> None:
    network = torch.hub.load(str(ROOT), "genesis", str(run), source="local", verbose=False)
    expected = load_bundle(run).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
