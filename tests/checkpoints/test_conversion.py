"""The published formats: rebuilt in their wrappers, converted, held against the original outputs."""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import reference_files as published
from modelsgenesis.checkpoints import CONVERTER_VERSION, convert_checkpoint
from modelsgenesis.checkpoints.genesis import GENESIS_KERAS_NETWORK
from modelsgenesis.checkpoints.plan import OPENMIND_INPUT
from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019, NNUNET_V1_GENESIS, RESENC_L, GenesisUNetConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError
from modelsgenesis.files import sha256_of
from modelsgenesis.networks import adapt
from reference_files import converted

from .hostile_files import SMALL, saved, small_state_dict  # pyright: ignore[reportAttributeAccessIssue]


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compare within 1e-5 of the largest value, and of 1: what is stored is float32 of another processor.

    Computed in float64 it is itself up to 1.4e-5 away, for features and logits beyond 1.
    """
    scale = max(1.0, float(np.abs(expected).max()))
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=tolerance * scale, rtol=0)


def weights_digest(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


@pytest.mark.shared
def test_genesis_chest_ct(tmp_path: Path, shared: Path) -> None:
    file = published.write_genesis_pt(tmp_path / "Genesis_Chest_CT.pt", shared)
    report, bundle = converted(file, tmp_path / "bundle")
    assert (report.format, report.parameters, len(report.renamed)) == ("genesis-pytorch", 19_073_665, 106)
    assert set(report.dropped) == {"epoch", "optimizer_state_dict"}
    assert (bundle.config.network, bundle.config.input) == (GENESIS_UNET_2019, CONTRACTS["ct"])
    assert bundle.config.patch_size == (64, 64, 32)

    expected = published.outputs(shared, "genesis_chest_ct_3d")
    x = torch.from_numpy(expected["input"])
    running, _ = adapt(bundle.network, task="restoration", statistics="running")
    with torch.inference_mode():
        close(bundle.network(x), expected["restored_batch_stats"])
        close(bundle.network.features(x)[-1], expected["deepest_batch_stats"])
        close(running(x), expected["restored_running_stats"])
        close(running.features(x)[-1], expected["deepest_running_stats"])

    # Nested otherwise, without a prefix, in the format of 2019.
    file = published.write_genesis_pt(tmp_path / "other.pt", shared, prefix="", key="net", legacy=True)
    again, _ = converted(file, tmp_path / "other")
    assert (again.format, again.network, set(again.dropped)) == (report.format, report.network, set(report.dropped))
    assert weights_digest(tmp_path / "other") == weights_digest(tmp_path / "bundle")


@pytest.mark.shared
def test_genesis_chest_ct_of_keras(tmp_path: Path, shared: Path) -> None:
    file = published.write_keras_h5(tmp_path / "Genesis_Chest_CT.h5", shared)
    _, bundle = converted(file, tmp_path / "bundle", format="genesis-keras")
    assert bundle.config.network == GENESIS_KERAS_NETWORK
    expected = published.outputs(shared, "genesis_chest_ct_3d_keras")
    x = torch.from_numpy(expected["input"])
    with torch.inference_mode():
        close(bundle.network(x), expected["restored"])
        close(bundle.network.features(x)[-1], expected["deepest"])

    with h5py.File(file, "r+") as whole:  # its groups at the root, as other versions of Keras wrote them
        for name in [*whole["model_weights"]]:
            whole.move(f"model_weights/{name}", name)
        del whole["model_weights"]
    converted(file, tmp_path / "other", format="genesis-keras")
    assert weights_digest(tmp_path / "other") == weights_digest(tmp_path / "bundle")


@pytest.mark.shared
def test_genesis_nnunet(tmp_path: Path, shared: Path) -> None:
    report, bundle = converted(published.write_nnunet_model(tmp_path / "file.model", shared), tmp_path / "bundle")
    assert (report.format, report.parameters) == ("nnunet-v1", 30_785_184)
    assert bundle.config.network == NNUNET_V1_GENESIS
    assert (bundle.config.input.mean, bundle.config.input.deviation) == (-775.8457, 251.9326)
    expected = published.outputs(shared, "genesis_nnunet_luna16_006")
    random = np.random.RandomState(int(expected["input_seed"]))
    x = torch.from_numpy(random.random_sample(tuple(expected["input_shape"])).astype(np.float32))
    with torch.inference_mode():
        close(bundle.network(x)[..., ::2, ::2, ::2].contiguous(), expected["logits"])


@pytest.mark.parametrize(
    ("size", "network", "parameters", "names", "tensors"),
    [("small", None, None, 224, 66), ("full", RESENC_L, 102_348_965, 956, 264)],  # ResEnc-L as published: 409 MB
)
def test_openmind(tmp_path: Path, size: Any, network: Any, parameters: int, names: int, tensors: int) -> None:
    report, bundle = converted(published.write_openmind_pth(tmp_path / "file.pth", size), tmp_path / "bundle")
    assert (report.format, len(report.renamed), len(report.dropped)) == ("openmind", tensors, names - tensors)
    assert network in (None, bundle.config.network)
    assert parameters in (None, report.parameters)
    assert (bundle.config.input, bundle.config.patch_size) == (OPENMIND_INPUT, (160 if network else 16,) * 3)
    x = torch.randn(1, 1, 32, 32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            bundle.network(x), published.openmind_network(size)(x), atol=1e-4 if network else 1e-5, rtol=0
        )


@pytest.mark.parametrize("where", ["", "student."])
def test_of_a_pretext_task_without_our_decoder_the_encoder_alone_is_read(tmp_path: Path, where: str) -> None:
    _, whole = converted(published.write_openmind_pth(tmp_path / "whole" / "file.pth"), tmp_path / "all")
    file = published.write_openmind_encoder(tmp_path / "file.pth", where=where)
    asked: Any = {"format": "openmind-encoder", "network": whole.config.network}
    report, bundle = converted(file, tmp_path / "bundle", **asked)
    assert report.dropped["projector.0.weight"] == "not of the encoder"
    assert report.summary().endswith(" dropped: projector.0.weight; 16 of the decoder start at random")
    assert bundle.config.provenance.source["decoder"] == "random"
    x, expected = torch.randn(1, 1, 16, 16, 16), published.openmind_network("small").get_submodule("encoder")
    with torch.inference_mode():
        for found, told in zip(bundle.network.features(x), expected(x), strict=True):
            torch.testing.assert_close(found, told, atol=1e-5, rtol=0)
    again, _ = converted(file, tmp_path / "again", **asked)
    assert weights_digest(tmp_path / "again") == weights_digest(tmp_path / "bundle")
    assert set(again.new) == {name for name in whole.network.state_dict() if not name.startswith("encoder.")}
    with pytest.raises(CheckpointError, match="--format openmind-encoder reads it alone"):
        convert_checkpoint(file, tmp_path / "none", network=whole.config.network)


def test_the_input_may_be_given(tmp_path: Path) -> None:
    contract = OPENMIND_INPUT.override(spacing=(2.0, 2.0, 2.0))
    _, bundle = converted(
        published.write_openmind_pth(tmp_path / "file.pth"), tmp_path / "bundle", input_contract=contract
    )
    assert bundle.config.input == contract


def test_of_aliases_that_disagree_the_trained_one_is_kept(tmp_path: Path) -> None:
    file = published.write_openmind_pth(tmp_path / "checkpoint_final.pth")
    content = torch.load(file, weights_only=True)
    trained = content["network_weights"]["encoder.stem.convs.0.all_modules.0.weight"] + 1
    content["network_weights"]["encoder.stem.convs.0.all_modules.0.weight"] = trained
    content["network_weights"] = dict(reversed(content["network_weights"].items()))  # the order tells nothing
    report, bundle = converted(saved(tmp_path, content), tmp_path / "bundle")
    assert "; 3 dropped: " in report.summary()
    assert report.dropped["encoder.stem.convs.0.conv.weight"].startswith("stale alias")
    assert torch.equal(bundle.network.state_dict()["encoder.stem.convs.0.conv.weight"], trained)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"a": {"b": {"model": w}}}])
def test_weights_are_found_wherever_they_are(tmp_path: Path, wrap: Any) -> None:
    weights = {f"_orig_mod.module.{name}": tensor for name, tensor in small_state_dict().items()}
    weights["other.weight"] = torch.ones(3)
    weights |= {"loss": np.float64(0.1), "curve": np.arange(3.0)}  # beside weights such do no harm
    report, bundle = converted(saved(tmp_path, wrap(weights)), tmp_path / "bundle")
    assert report.network == bundle.config.network == SMALL
    assert report.dropped["other.weight"] == "not under _orig_mod.module."


def test_flat_networks_with_more_channels_in_half_precision_convert_too(tmp_path: Path) -> None:
    config = GenesisUNetConfig(dims=2, widths=(4, 8, 16), in_channels=3, out_channels=2, statistics="batch")
    weights = {name: t.half() if t.is_floating_point() else t for name, t in small_state_dict(config).items()}
    report, bundle = converted(saved(tmp_path, weights), tmp_path / "bundle")
    assert (report.network, bundle.config.patch_size) == (config, (64, 64))
    assert torch.equal(bundle.network.state_dict()["head.weight"], weights["out_tr.final_conv.weight"].float())


def test_the_provenance_says_where_it_comes_from(tmp_path: Path) -> None:
    file = saved(tmp_path, small_state_dict())
    source = {"repository": "a/b", "revision": "0" * 40, "file": "a/file.pt", "sha256": "1" * 64}
    report, bundle = converted(file, tmp_path / "bundle", source=source, card="# A card\n")
    said = {"format": "genesis-pytorch", "converter_version": CONVERTER_VERSION}
    assert bundle.config.provenance.source == {**source, **said}
    assert (bundle.config.provenance.origin, bundle.card, report.sha256) == ("converted", "# A card\n", "1" * 64)

    source = converted(file, tmp_path / "digested")[1].config.provenance.source  # taken when none is given
    assert (source["file"], source["sha256"]) == ("file.pt", hashlib.sha256(file.read_bytes()).hexdigest())
    assert str(tmp_path) not in json.dumps(source)


def test_a_card_may_choose_what_tensors_cannot_tell_but_nothing_else(tmp_path: Path) -> None:
    file = saved(tmp_path, small_state_dict())
    running = SMALL.override(statistics="running")
    assert converted(file, tmp_path / "bundle", network=running)[1].config.network == running
    with pytest.raises(CheckpointError, match="not the weights of the genesis-pytorch network"):
        convert_checkpoint(file, tmp_path / "other", network=SMALL.override(widths=(8, 16)))
    assert not (tmp_path / "other").exists()


def test_what_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = saved(tmp_path, small_state_dict())
    (tmp_path / "empty").mkdir()
    convert_checkpoint(file, tmp_path / "empty")
    with pytest.raises(CheckpointError, match="exists already"):
        convert_checkpoint(file, tmp_path / "empty")
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert_checkpoint(file, file / "bundle")
    with pytest.raises(CheckpointError, match="is a genesis-pytorch checkpoint, expected nnunet-v1"):
        convert_checkpoint(file, tmp_path / "bundle", format="nnunet-v1")
    with pytest.raises(ConfigurationError, match="received 'genesis-torch'; did you mean genesis-pytorch"):
        convert_checkpoint(file, tmp_path / "bundle", format="genesis-torch")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        convert_checkpoint(file, tmp_path / "bundle")
    assert {path.name for path in tmp_path.iterdir()} == {"file.pt", "empty"}
