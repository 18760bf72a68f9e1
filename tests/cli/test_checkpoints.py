"""`modelsgenesis convert` and `modelsgenesis export`, as typed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modelsgenesis.cli import main
from reference_files import write_openmind_pth

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Type a command in an empty folder; status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def type_in(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modelsgenesis", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return type_in


def test_convert_then_export_then_convert(run: Run, tmp_path: Path) -> None:
    file = write_openmind_pth(tmp_path / "published" / "checkpoint_final.pth")
    status, out, _ = run("convert", file, "models/brain")
    assert status == 0
    assert out.splitlines()[0].startswith("checkpoint_final.pth (openmind): 66 tensors, 27,126 parameters")
    assert out.splitlines()[-1] == "models/brain"
    assert "# brain" in Path("models/brain/README.md").read_text()

    status, out, _ = run("export", "models/brain", "--to", "nnunet")
    assert (status, out) == (0, "brain.pth\n")
    assert set(torch.load("brain.pth", weights_only=True)) == {"network_weights", "nnssl_adaptation_plan"}

    status, out, _ = run("convert", "brain.pth", "again", "--format", "openmind", "--json")
    assert status == 0
    answer = json.loads(out)
    assert answer["parameters"] == 27_126
    assert answer["network"]["kind"] == "residual_unet"
    first, again = Path("models/brain/model.safetensors"), Path("again/model.safetensors")
    assert first.read_bytes() == again.read_bytes()


def test_export_elsewhere_as_json(run: Run, tmp_path: Path) -> None:
    run("convert", write_openmind_pth(tmp_path / "checkpoint_final.pth"), "bundle")
    status, out, _ = run("export", "bundle", "--to", "torch", "--output", "weights.pt", "--json")
    assert status == 0
    assert json.loads(out) == {"file": "weights.pt", "bytes": Path("weights.pt").stat().st_size}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("convert", "none.pt", "out"), 1, "error: none.pt: there is no such file"),
        (("convert", "page.pt", "out"), 1, "error: page.pt: is a web page, not a checkpoint"),
        (("convert", "page.pt", "out", "--format", "keras"), 2, "'keras' is not one of"),
        (("export", "bundle"), 2, "Missing option"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    Path("page.pt").write_text("<html></html>")
    code, out, err = run(*arguments)
    assert code == status
    assert message in " ".join(err.split())
    assert not out
    assert not Path("out").exists()
