"""The bundle on disk."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    BundleConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    PlainUNetConfig,
    Provenance,
    ResidualUNetConfig,
)
from modelsgenesis.errors import CheckpointError, ConfigurationError
from modelsgenesis.networks import build_network

SMALL = GenesisUNetConfig(widths=(4, 8))


def bundle(network: NetworkConfig = SMALL) -> Bundle:
    config = BundleConfig(
        task="restoration",
        network=network,
        input=CONTRACTS["ct"],
        patch_size=(16, 16, 8),
        provenance=Provenance(origin="untrained", library_version="0"),
    )
    return Bundle(build_network(network).eval(), config, "# Card\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "bundle", bundle())


@pytest.mark.parametrize(
    "network",
    [
        SMALL,
        PlainUNetConfig(widths=(4, 8), norm="group", norm_groups=2),
        ResidualUNetConfig(widths=(4, 8)),
        ClassifierConfig(encoder=ResidualUNetConfig(widths=(4, 8)), num_classes=2, hidden=4),
    ],
)
def test_what_is_saved_is_loaded(tmp_path: Path, network: NetworkConfig) -> None:
    saved = bundle(network)
    loaded = load_bundle(save_bundle(tmp_path / "bundle", saved))
    assert loaded.config == saved.config
    assert loaded.card == saved.card
    x = torch.rand(1, 1, 16, 16, 8)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(x), saved.network(x), atol=1e-6, rtol=0)
    assert not loaded.network.training
    frozen = [p.requires_grad for p in saved.network.parameters()]
    assert [p.requires_grad for p in loaded.network.parameters()] == frozen


def test_a_loaded_network_does_not_hold_its_file(folder: Path) -> None:
    """It may be trained and saved over the file it came from."""
    loaded = load_bundle(folder)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.add_(1)
    save_bundle(folder, loaded)
    again = load_bundle(folder)
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)


def forged(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Rewrite the header of a safetensors file."""

    def apply(path: Path) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return apply


def grow(header: dict[str, Any]) -> None:
    header["head.weight"]["shape"] = [10**6, 10**6, 1, 1, 1]


def grow_with_offsets(header: dict[str, Any]) -> None:
    begin, _ = header["head.weight"]["data_offsets"]
    header["head.weight"] = {
        "dtype": "F32",
        "shape": [10**6, 10**6],
        "data_offsets": [begin, begin + 4 * 10**12],
    }


def overlap(header: dict[str, Any]) -> None:
    header["head.weight"]["data_offsets"] = header["head.bias"]["data_offsets"]


def retype(header: dict[str, Any]) -> None:
    header["head.weight"]["dtype"] = "I32"


@pytest.mark.parametrize("change", [grow, grow_with_offsets, overlap])
def test_a_forged_header_is_refused_before_anything_is_allocated(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    forged(change)(path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged, or no safetensors file \("):
        load_bundle(folder)


def test_a_forged_type_is_refused(folder: Path) -> None:
    forged(retype)(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.weight holds torch\.int32 instead of torch\.float32"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", struct.pack("<Q", 2**60), struct.pack("<Q", 10) + b'{"a":', b"\xff" * 4000],
    ids=["empty", "web page", "huge header", "cut header", "noise"],
)
def test_damaged_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged, or no safetensors file"):
        load_bundle(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged, or no safetensors file"):
        load_bundle(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    weights["head.bias"].fill_(value)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in head\.bias; the file is damaged"):
        load_bundle(folder)
    assert load_bundle(folder, check_values=False).config.network == SMALL


def test_weights_of_another_network(folder: Path) -> None:
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    message = r"not the weights of this network: missing encoder\.levels.* and \d+ more; use the configuration"
    with pytest.raises(CheckpointError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"no {missing} in it, so it is no bundle"):
        load_bundle(folder)


def test_a_card_is_not_needed(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert load_bundle(folder).card == ""


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\udcff"], ids=["empty", "cut", "deep", "no utf-8"])
def test_a_damaged_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read as JSON"):
        load_bundle(folder)


def test_an_unknown_key(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "netwrok": {}}))
    with pytest.raises(ConfigurationError, match=r"unknown key 'netwrok'; did you mean network\?"):
        load_bundle(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_bundle(tmp_path / "file" / "bundle", bundle())


def test_a_failed_write_keeps_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    def broken(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device")

    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(CheckpointError, match="No space left on device; the file before is intact"):
        save_bundle(folder, bundle())
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
