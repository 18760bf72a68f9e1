"""Exports: read back they are the same, and nnU-Net v2 itself takes them."""

import importlib.util
import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

from modelsgenesis.checkpoints import Bundle, convert_checkpoint, export_bundle, load_bundle
from modelsgenesis.configs import (
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    PlainUNetConfig,
    ResidualUNetConfig,
)
from modelsgenesis.errors import CheckpointError, ConfigurationError
from reference_files import (
    openmind_network,
    reference_state_dict,
    write_genesis_pt,
    write_nnunet_model,
    write_openmind_pth,
)
from tiny_bundles import make_bundle

FILES = Path(__file__).parent
V1 = PlainUNetConfig(widths=(4, 6, 8), upsampling_bias=False, head_bias=False)
CLASSIFIER = ClassifierConfig(encoder=PlainUNetConfig(dims=2, widths=(4, 8)), num_classes=2, hidden=4)


def same(bundle: Bundle, other: Bundle) -> bool:
    mine, theirs = bundle.network.state_dict(), other.network.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "network",
    [
        GenesisUNetConfig(widths=(4, 8, 16), statistics="batch"),
        GenesisUNetConfig(dims=2, widths=(4, 8), in_channels=2, out_channels=3, statistics="batch"),
        V1.override(convolutions=(1, 2, 3), decoder_convolutions=(3, 2), strides=((1, 1, 1), (2, 2, 2), (1, 2, 2))),
    ],
    ids=["genesis", "genesis 2d", "nnunet v1"],
)
def test_a_torch_export_comes_back_exactly(tmp_path: Path, network: NetworkConfig) -> None:
    original = make_bundle(network)
    file = export_bundle(original, tmp_path / "weights.pt", to="torch")
    convert_checkpoint(file, tmp_path / "again", network=network)
    again = load_bundle(tmp_path / "again")
    assert again.config.network == network
    assert same(again, original)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("write", "name"), [(write_genesis_pt, "genesis_chest_ct_3d"), (write_nnunet_model, "genesis_nnunet_luna16_006")]
)
def test_a_torch_export_has_the_published_keys_and_values(tmp_path: Path, shared: Path, write: Any, name: str) -> None:
    convert_checkpoint(write(tmp_path / "file", shared), tmp_path / "bundle")
    file = export_bundle(load_bundle(tmp_path / "bundle"), tmp_path / "weights.pt", to="torch")
    weights, published = torch.load(file, weights_only=True), reference_state_dict(shared, name)
    assert weights.keys() == published.keys()
    assert all(torch.equal(weights[key], published[key]) for key in published)


@pytest.mark.parametrize("to", ["torch", "nnunet"])
def test_openmind_goes_out_as_it_came_in(tmp_path: Path, to: Any) -> None:
    file = write_openmind_pth(tmp_path / "checkpoint_final.pth")
    published = torch.load(file, weights_only=True)["network_weights"]
    convert_checkpoint(file, tmp_path / "bundle")
    original = load_bundle(tmp_path / "bundle")
    exported = export_bundle(original, tmp_path / "export.pth", to=to)
    content = torch.load(exported, weights_only=True)
    weights = content["network_weights"] if to == "nnunet" else content
    assert weights.keys() == published.keys()
    assert all(torch.equal(weights[key], published[key]) for key in published)
    assert exported.stat().st_size < 1.5 * file.stat().st_size  # aliases share their bytes
    openmind_network("small").load_state_dict(weights, strict=True)
    if to == "nnunet":
        assert convert_checkpoint(exported, tmp_path / "again").format == "openmind"
        again = load_bundle(tmp_path / "again")
        assert same(again, original)
        assert again.config.override(provenance=original.config.provenance) == original.config


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "network",
    [
        V1,
        PlainUNetConfig(dims=2, widths=(4, 8), norm="batch", convolution_bias=False, upsampling_bias=False),
        ResidualUNetConfig(widths=(4, 8, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), out_channels=2),
    ],
    ids=["nnunet v1", "plain 2d", "residual"],
)
def test_the_plan_of_an_nnunet_export_builds_the_network_that_its_weights_fit(
    tmp_path: Path, network: PlainUNetConfig | ResidualUNetConfig
) -> None:
    original = make_bundle(network)
    content = torch.load(export_bundle(original, tmp_path / "x.pth", to="nnunet"), weights_only=True)
    plan = content["nnssl_adaptation_plan"]["architecture_plans"]
    arguments = dict(plan["arch_kwargs"])
    for name in plan["arch_kwargs_requiring_import"]:
        arguments[name] = imported(arguments[name]) if arguments[name] else None
    architecture = imported(plan["arch_class_name"])
    assert architecture in (PlainConvUNet, ResidualEncoderUNet)
    theirs = architecture(
        input_channels=network.in_channels, num_classes=network.out_channels, deep_supervision=False, **arguments
    ).eval()
    theirs.load_state_dict(content["network_weights"], strict=True)
    x = torch.randn(2, network.in_channels, *(16,) * network.dims)
    turned = (lambda image: image.transpose(2, 4)) if network.dims == 3 else (lambda image: image)
    with torch.inference_mode():
        torch.testing.assert_close(original.network(x), turned(theirs(turned(x))), atol=1e-4, rtol=0)


def test_what_nnunet_gets_of_a_network_of_x_y_z_comes_back_as_one_of_z_y_x(tmp_path: Path) -> None:
    network = PlainUNetConfig(widths=(4, 8), kernels=((3, 3, 1), (3, 3, 3)), strides=((1, 1, 1), (2, 2, 1)))
    original = make_bundle(network)
    original = replace(
        original, config=original.config.override(input=original.config.input.override(spacing=(0.5, 0.6, 3.0)))
    )
    convert_checkpoint(export_bundle(original, tmp_path / "x.pth", to="nnunet"), tmp_path / "again")
    again = load_bundle(tmp_path / "again")
    assert again.config.network == network.override(
        kernels=((1, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2)), head_bias=True
    )
    assert (again.config.input.orientation, again.config.input.spacing) == ("SAR", (3.0, 0.6, 0.5))
    assert again.config.patch_size == (8, 16, 16)
    x = torch.randn(1, 1, 16, 16, 8)
    with torch.inference_mode():
        theirs = again.network(x.transpose(2, 4)).transpose(2, 4)
        torch.testing.assert_close(original.network(x), theirs, atol=1e-4, rtol=0)


def test_the_page_on_nnunet_makes_the_network_of_its_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (FILES.parents[1] / "docs" / "nnunet.md").read_text()
    found = re.search(r"<!-- test: plans -->\s*```python\n(.*?)\n *```", page, re.DOTALL)
    assert found is not None
    shape = {
        "features_per_stage": [4, 8],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": [2, 1],
        "n_conv_per_stage_decoder": [1],
    }
    plans = {"architecture": {"arch_kwargs": shape}, "patch_size": [8, 32, 16], "batch_size": 3}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"3d_fullres": plans}}))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(textwrap.dedent(found[1]), made)
    assert made["config"].patch_size == (16, 32, 8)
    original = make_bundle(made["network"], patch_size=(16, 32, 8))
    content = torch.load(export_bundle(original, tmp_path / "x.pth", to="nnunet"), weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    assert shape.items() <= plan["architecture_plans"]["arch_kwargs"].items()
    assert plan["recommended_downstream_patchsize"] == [8, 32, 16]


@pytest.mark.parametrize(
    ("network", "to", "message"),
    [
        (GenesisUNetConfig(widths=(4, 8)), "nnunet", "genesis_unet is not a plain_unet or residual_unet"),
        (GenesisUNetConfig(widths=(4, 8), upsampling="nearest"), "torch", "no original in PyTorch"),
        (CLASSIFIER, "torch", r"no original .* model\.safetensors is a plain state dict"),
        (PlainUNetConfig(widths=(8, 8), norm="group"), "nnunet", "nnU-Net has no network with norm 'group'"),
    ],
)
def test_what_has_no_equal_elsewhere(tmp_path: Path, network: NetworkConfig, to: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        export_bundle(make_bundle(network), tmp_path / "x", to=to)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path: Path) -> None:
    small = make_bundle(GenesisUNetConfig(widths=(4, 8)))
    with pytest.raises(ConfigurationError, match="received 'troch'; did you mean torch"):
        export_bundle(small, tmp_path / "x", to="troch")  # pyright: ignore[reportArgumentType]
    (tmp_path / "x").write_text("mine")
    with pytest.raises(CheckpointError, match="x: exists already"):
        export_bundle(small, tmp_path / "x", to="torch")
    assert (tmp_path / "x").read_text() == "mine"
