"""Exports: read back they are the same, and nnU-Net v2 itself takes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsgenesis.checkpoints import Bundle, export_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    PlainUNetConfig,
    pretraining_of_plans,
)
from modelsgenesis.errors import CheckpointError, ConfigurationError
from nnunet_plans import write_plans
from reference_files import converted, reference_state_dict, write_genesis_pt, write_nnunet_model, write_openmind_pth
from tiny_bundles import make_bundle

V1 = {"upsampling_bias": False, "head_bias": False, "strides": ((1, 1, 1), (2, 2, 2), (1, 2, 2))}
CLASSIFIER = ClassifierConfig(encoder=PlainUNetConfig(dims=2, widths=(4, 8)), num_classes=2, hidden=4)


def same(weights: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def content_of(bundle: Bundle, path: Path, to: Any) -> Any:
    return torch.load(export_bundle(bundle, path, to=to), weights_only=True)


@pytest.mark.parametrize(
    "network",
    [
        GenesisUNetConfig(widths=(4, 8, 16), statistics="batch"),
        GenesisUNetConfig(dims=2, widths=(4, 8), in_channels=2, out_channels=3, statistics="batch"),
        PlainUNetConfig(widths=(4, 6, 8), convolutions=(1, 2, 3), decoder_convolutions=(3, 2), **V1),
    ],
    ids=["genesis", "genesis 2d", "nnunet v1"],
)
def test_a_torch_export_comes_back_exactly(tmp_path: Path, network: NetworkConfig) -> None:
    original = make_bundle(network)
    file = export_bundle(original, tmp_path / "weights.pt", to="torch")
    _, again = converted(file, tmp_path / "again", network=network)
    assert again.config.network == network
    assert same(again.network.state_dict(), original.network.state_dict())


@pytest.mark.shared
@pytest.mark.parametrize(
    ("write", "name"), [(write_genesis_pt, "genesis_chest_ct_3d"), (write_nnunet_model, "genesis_nnunet_luna16_006")]
)
def test_a_torch_export_has_the_published_keys_and_values(tmp_path: Path, shared: Path, write: Any, name: str) -> None:
    _, bundle = converted(write(tmp_path / "file", shared), tmp_path / "bundle")
    assert same(content_of(bundle, tmp_path / "weights.pt", "torch"), reference_state_dict(shared, name))


@pytest.mark.parametrize("to", ["torch", "nnunet"])
def test_openmind_goes_out_as_it_came_in(tmp_path: Path, to: Any) -> None:
    file, exported = write_openmind_pth(tmp_path / "checkpoint_final.pth"), tmp_path / "export.pth"
    _, original = converted(file, tmp_path / "bundle")
    content = content_of(original, exported, to)
    weights = content["network_weights"] if to == "nnunet" else content
    assert same(weights, torch.load(file, weights_only=True)["network_weights"])
    assert exported.stat().st_size < 1.5 * file.stat().st_size  # aliases share their bytes
    if to == "nnunet":
        _, again = converted(exported, tmp_path / "again", format="openmind")
        assert same(again.network.state_dict(), original.network.state_dict())
        assert again.config.override(provenance=original.config.provenance) == original.config


def test_what_nnunet_gets_of_a_network_of_x_y_z_comes_back_as_one_of_z_y_x(tmp_path: Path) -> None:
    network = PlainUNetConfig(widths=(4, 8), kernels=((3, 3, 1), (3, 3, 3)), strides=((1, 1, 1), (2, 2, 1)))
    original = make_bundle(network, input=CONTRACTS["ct"].override(spacing=(0.5, 0.6, 3.0)))
    _, again = converted(export_bundle(original, tmp_path / "x.pth", to="nnunet"), tmp_path / "again")
    assert again.config.network == network.override(
        kernels=((1, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2)), head_bias=True
    )
    assert (again.config.input.orientation, again.config.input.spacing) == ("SAR", (3.0, 0.6, 0.5))
    assert again.config.patch_size == (8, 16, 16)
    x = torch.randn(1, 1, 16, 16, 8)
    with torch.inference_mode():
        theirs = again.network(x.transpose(2, 4)).transpose(2, 4)
        torch.testing.assert_close(original.network(x), theirs, atol=1e-4, rtol=0)


def test_kernels_of_x_y_z_are_turned_into_the_order_of_the_plans(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "plans.json", order=(1, 0, 2))
    config = pretraining_of_plans(plans)  # of arrays y, z, x; the same network, trained on arrays x, y, z:
    turned = {
        name: [[stage[2], *stage[:2]] for stage in getattr(config.network, name)] for name in ("kernels", "strides")
    }
    network, patch = config.network.override(**turned), config.patch_size
    original = make_bundle(network, input=CONTRACTS["mri"], patch_size=(patch[2], *patch[:2]))
    exported = torch.load(export_bundle(original, tmp_path / "x.pth", to="nnunet", plans=plans), weights_only=True)
    name = "encoder.stages.1.0.convs.0.conv.weight"
    ours, theirs = original.network.state_dict()[name], exported["network_weights"][name]
    assert torch.equal(theirs, ours.permute(0, 1, 3, 4, 2))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_an_export_of_planned_pretraining_fits_the_plans_and_has_their_channels(tmp_path: Path, order: Any) -> None:
    plans = write_plans(tmp_path / "plans.json", channels=3, order=order)
    config = pretraining_of_plans(plans)
    contract = CONTRACTS["mri"].override(orientation=config.data.orientation, spacing=config.data.spacing)
    original = make_bundle(config.network, input=contract, patch_size=config.patch_size)
    exported = torch.load(export_bundle(original, tmp_path / "x.pth", to="nnunet", plans=plans), weights_only=True)
    weights, before = exported["network_weights"], original.network.state_dict()
    first, second = "encoder.stages.0.0.convs.0.conv.weight", "encoder.stages.1.0.convs.0.conv.weight"
    assert (weights[first].shape, torch.equal(weights[second], before[second])) == ((4, 3, 1, 3, 3), True)
    plan = exported["nnssl_adaptation_plan"]
    shape = json.loads(plans.read_text())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder"):
        assert plan["architecture_plans"]["arch_kwargs"][name] == shape[name]
    assert plan["recommended_downstream_patchsize"] == [8, 16, 12]


def test_an_export_that_the_plans_would_not_build_is_refused_with_the_difference(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "plans.json")
    other = make_bundle(PlainUNetConfig(widths=(4, 8)))
    with pytest.raises(
        CheckpointError, match=r"does not fit .*plans\.json: .* is .*, planned .*pretrain SCANS --plans"
    ):
        export_bundle(other, tmp_path / "x.pth", to="nnunet", plans=plans)
    with pytest.raises(ConfigurationError, match="of no use for torch"):
        export_bundle(other, tmp_path / "x.pth", to="torch", plans=plans)
    assert not (tmp_path / "x.pth").exists()


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
