"""A programmer in an editor: what it completes and checks, and a model that is saved and loaded again."""

import json
import os
import sys
from pathlib import Path

# The checker keeps its own program in the cache of whoever installed it.
CHECK = f"HOME={os.environ['HOME']} {Path(sys.executable).parent / 'pyright'} --pythonpath $(which python)"
SCRIPT = """\
import torch

import modelsgenesis

model = modelsgenesis.from_pretrained("genesis-chest-xray-2d-small", task="cls", labels=["healthy", "ill"])
reveal_type(model)
reveal_type(model.features)
reveal_type(model.labels)
reveal_type(model.report)
reveal_type(model.config.input.modality)
reveal_type(model.preprocess)
model.save_pretrained("models/chest")
again = modelsgenesis.GenesisModel.from_pretrained("models/chest", dtype="float32", local_files_only=True)
x = torch.rand(1, 1, 64, 64)
assert torch.equal(model(x), again(x))
print(again)
"""


def test_the_editor_knows_every_name_of_a_model(user):
    (user.home / "mine.py").write_text(SCRIPT)
    told = json.loads(user.types(f"{CHECK} --outputjson mine.py").stdout)
    messages = [one["message"] for one in told["generalDiagnostics"]]
    assert told["summary"]["errorCount"] == 0
    assert 'Type of "model" is "GenesisModel"' in messages
    revealed = {one.split('"')[1]: one.split('" is "')[1] for one in messages}
    assert revealed["model.labels"] == 'tuple[str, ...]"'
    assert "list[Tensor]" in revealed["model.features"]
    assert "AdaptationReport" in revealed["model.report"]
    assert "Unknown" not in "".join(messages)


def test_the_script_runs_and_its_model_loads_again(user):
    user.types("sed -i /reveal_type/d mine.py && python mine.py")
    config = json.loads((user.home / "models/chest/config.json").read_text())
    assert config["labels"] == ["healthy", "ill"]
    assert user.types("modelsgenesis info models/chest").stdout
