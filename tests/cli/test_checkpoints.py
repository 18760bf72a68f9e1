"""`modelsgenesis convert` and `modelsgenesis export`, as typed."""

from pathlib import Path

import torch

from reference_files import write_openmind_pth


def test_convert_then_export_then_convert(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    converted = command("convert", write_openmind_pth(tmp_path / "published" / "checkpoint_final.pth"), "models/brain")
    assert converted.status == 0
    summary, bundle = converted.out.splitlines()
    assert summary.startswith("checkpoint_final.pth (openmind): 66 tensors, 27,126 parameters")
    assert bundle == "models/brain"
    assert "# brain" in Path("models/brain/README.md").read_text()

    assert command("export", "models/brain", "--to", "nnunet").out == "brain.pth\n"
    assert set(torch.load("brain.pth", weights_only=True)) == {"network_weights", "nnssl_adaptation_plan"}

    told = command("convert", "brain.pth", "again", "--format", "openmind", "--json").json()
    assert (told["parameters"], told["network"]["kind"]) == (27_126, "residual_unet")
    first, again = Path("models/brain/model.safetensors"), Path("again/model.safetensors")
    assert first.read_bytes() == again.read_bytes()

    told = command("export", "models/brain", "--to", "torch", "--output", "weights.pt", "--json").json()
    assert told == {"file": "weights.pt", "bytes": Path("weights.pt").stat().st_size}
