"""A programmer in an editor: it knows every name of a model; what is saved is the model that is loaded again."""

import json
import subprocess
import sys

from safetensors.torch import load_file

WORK = """
import modelsgenesis
import torch

model = modelsgenesis.from_pretrained(
    "genesis-hippocampus-mri-3d-small", task="seg", labels=["background", "hippocampus"], dtype="float32"
)
batch = torch.rand(1, 1, 16, 16, 16)
outputs, features = model(batch), model.features(batch)
report, labels = model.report, model.labels
folder = model.save_pretrained("models/mine")
again = modelsgenesis.GenesisModel.from_pretrained(folder, device="cpu", local_files_only=True)
"""
KNOWN = {
    "model": "GenesisModel",
    "features": "list[Tensor]",
    "report": "AdaptationReport | None",
    "labels": "tuple[str, ...]",
    "folder": "Path",
    "again": "GenesisModel",
    "model.config.input.channels": "tuple[str, ...]",
}
WRONG = """
import modelsgenesis

for options in {}:
    try:
        eval(f"modelsgenesis.from_pretrained('genesis-hippocampus-mri-3d-small', {{options}})")
    except modelsgenesis.GenesisError as error:
        print(error)
"""
SHOW = "print(model)\nprint(report)\nprint(labels, again.labels)\nprint(torch.equal(outputs, again(batch)))\n"


def test_the_editor_knows_the_model_and_its_methods(user):
    python = user.types("which python").stdout.strip()
    shown = "".join(f"reveal_type({name})\n" for name in KNOWN)
    (user.home / "typed.py").write_text(WORK + shown)
    command = [sys.executable, "-m", "pyright", "--pythonpath", python, str(user.home / "typed.py")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=user.home).stdout
    for name, kind in KNOWN.items():
        assert f'Type of "{name}" is "' in said, said
        assert said.partition(f'Type of "{name}" is "')[2].startswith(f'{kind}"'), said
    assert "0 errors" in said


def test_a_model_is_adapted_saved_and_loaded_again(user):
    (user.home / "work.py").write_text(WORK + SHOW)
    lines = user.types("python work.py").stdout.splitlines()
    assert lines[0].startswith("GenesisModel('genesis-hippocampus-mri-3d-small': segmentation, 3D mri, ")
    assert "new: head.weight, head.bias" in lines[1]
    assert lines[2:] == ["('background', 'hippocampus') ('background', 'hippocampus')", "True"]
    saved = user.home / "models" / "mine"
    config, weights = json.loads((saved / "config.json").read_text()), load_file(saved / "model.safetensors")
    assert (config["task"], config["labels"]) == ("segmentation", ["background", "hippocampus"])
    assert len(weights["head.weight"]) == 2
    assert "license: cc-by-sa-4.0" in (saved / "README.md").read_text()


def test_what_is_misspelt_is_told_in_a_line(user):
    wrong = {
        "task='segm', num_classes=2": "task: received 'segm'; did you mean seg",
        "num_classes=2": "num_classes=2 without a task: add task='seg' or task='cls'",
        "device='gpu'": "device: received 'gpu', expected auto",
    }
    (user.home / "wrong.py").write_text(WRONG.format(list(wrong)))
    lines = user.types("python wrong.py").stdout.splitlines()
    assert len(lines) == len(wrong)
    assert all(said in told for said, told in zip(wrong.values(), lines, strict=True))
