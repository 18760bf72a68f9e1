"""The bundle on disk; what is wrong with one is in `test_hostile.py`."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from modelsgenesis.checkpoints import load_bundle, save_bundle
from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, PlainUNetConfig, Provenance, ResidualUNetConfig
from modelsgenesis.errors import CheckpointError
from tiny_bundles import make_bundle

from . import hostile_files as make  # pyright: ignore[reportAttributeAccessIssue]

SMALL = GenesisUNetConfig(widths=(4, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "bundle", make_bundle(SMALL))


@pytest.mark.parametrize(
    "network",
    [
        SMALL,
        PlainUNetConfig(widths=(4, 8), norm="group", norm_groups=2),
        ClassifierConfig(encoder=ResidualUNetConfig(widths=(4, 8)), num_classes=2, hidden=4),
    ],
)
def test_what_is_saved_is_loaded(tmp_path: Path, network: Any) -> None:
    saved = make_bundle(network, card="# Card\n")
    loaded = load_bundle(save_bundle(tmp_path / "bundle", saved))
    assert (loaded.config, loaded.card, loaded.network.training) == (saved.config, saved.card, False)
    x = torch.rand(1, 1, 16, 16, 8)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(x), saved.network(x), atol=1e-6, rtol=0)
    trained, again = ([p.requires_grad for p in bundle.network.parameters()] for bundle in (saved, loaded))
    assert trained == again


def test_a_loaded_network_does_not_hold_its_file(folder: Path) -> None:
    """It may be trained and saved over the file it came from."""
    loaded = load_bundle(folder)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.add_(1)
    again = load_bundle(save_bundle(folder, loaded)).network.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in loaded.network.state_dict().items())


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float64"])
def test_numbers_that_float32_holds_exactly_become_float32(tmp_path: Path, name: str) -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["head.weight"] = weights["head.weight"].to(getattr(torch, name))

    folder = make.tensors(tmp_path, change)
    written = load_file(folder / "model.safetensors")["head.weight"]
    loaded = load_bundle(folder).network.state_dict()["head.weight"]
    assert (loaded.dtype, loaded.any()) == (torch.float32, True)
    assert torch.equal(loaded, written.float())


def test_numbers_of_a_record_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    results = {"dice": {"liver": math.nan, "spleen": (0.9, math.inf)}}
    record = Provenance(origin="finetuned", library_version="0", results=results)
    folder = save_bundle(tmp_path, make_bundle(SMALL, provenance=record))
    text = (folder / "config.json").read_text()
    assert json.loads(text)["provenance"]["results"] == {"dice": {"liver": None, "spleen": [0.9, None]}}
    (folder / "config.json").write_text(text.replace("0.9", "NaN"))  # as version 0.1.0 wrote it
    assert load_bundle(folder).config.provenance.results["dice"]["spleen"] == [None, None]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file(folder: Path, missing: str) -> None:
    (folder / "README.md").unlink()
    assert load_bundle(folder).card == ""
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"no (such|{missing})"):
        load_bundle(folder)


def test_a_failed_write_keeps_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device")

    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_bundle(folder / "README.md" / "bundle", make_bundle(SMALL))
    with pytest.raises(CheckpointError, match=r"No space left on device; .* is intact"):
        save_bundle(folder, make_bundle(SMALL))
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
