"""`modelsgenesis convert` and `modelsgenesis export`, as typed."""

from pathlib import Path

import pytest
import torch

from reference_files import write_openmind_pth


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command


def test_convert_then_export_then_convert(run, tmp_path):
    converted = run("convert", write_openmind_pth(tmp_path / "published" / "checkpoint_final.pth"), "models/brain")
    assert converted.status == 0
    summary, bundle = converted.out.splitlines()
    assert summary.startswith("checkpoint_final.pth (openmind): 66 tensors, 27,126 parameters")
    assert bundle == "models/brain"
    assert "# brain" in Path("models/brain/README.md").read_text()

    assert run("export", "models/brain", "--to", "nnunet").out == "brain.pth\n"
    assert set(torch.load("brain.pth", weights_only=True)) == {"network_weights", "nnssl_adaptation_plan"}

    told = run("convert", "brain.pth", "again", "--format", "openmind", "--json").json()
    assert (told["parameters"], told["network"]["kind"]) == (27_126, "residual_unet")
    first, again = Path("models/brain/model.safetensors"), Path("again/model.safetensors")
    assert first.read_bytes() == again.read_bytes()

    told = run("export", "models/brain", "--to", "torch", "--output", "weights.pt", "--json").json()
    assert told == {"file": "weights.pt", "bytes": Path("weights.pt").stat().st_size}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("convert", "page.pt", "out"), 1, "error: page.pt: is a web page, not a checkpoint"),
        (("convert", "page.pt", "out", "--format", "keras"), 1, "known are genesis-keras"),
        (("export", "bundle"), 2, "Missing option"),
    ],
)
def test_mistakes(run, arguments, status, message):
    Path("page.pt").write_text("<html></html>")
    ended = run(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert not Path("out").exists()
