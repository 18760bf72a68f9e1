"""The model that `from_pretrained` returns: adapted, saved and loaded again; given instead of a name."""

from pathlib import Path
from typing import Any

import pytest
import torch

import modelsgenesis
from modelsgenesis import GenesisModel, from_pretrained, save_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    PlainUNetConfig,
    ResidualUNetConfig,
)
from modelsgenesis.errors import ConfigurationError
from tiny_bundles import make_bundle

FLAT = ResidualUNetConfig(dims=2, widths=(4, 8), norm="batch", out_channels=3)
NETWORKS: dict[str, tuple[NetworkConfig, dict[str, Any]]] = {
    "genesis": (GenesisUNetConfig(widths=(4, 8)), {}),
    "plain": (PlainUNetConfig(widths=(4, 8), in_channels=2, strides=((1, 1, 1), (1, 2, 2))), {}),
    "segmenter": (FLAT, {"task": "segmentation", "input": CONTRACTS["xray"]}),
    "classifier": (ClassifierConfig(encoder=GenesisUNetConfig(widths=(4, 8)), num_classes=2, hidden=3), {}),
}
ADAPTATIONS: list[dict[str, Any]] = [
    {"task": "seg", "num_classes": 3},
    {"task": "seg", "labels": ["background", "liver"], "encoder_only": True, "in_channels": 4},
    {"task": "cls", "num_classes": 2, "hidden": 5, "levels": (0, 1), "rescale": True},
    {"task": "cls", "labels": ["healthy", "ill"], "dims": 2},
    {"task": "restoration"},
    {"in_channels": 3},
    {"dims": 3, "statistics": "batch"},
    {"dims": 2, "in_channels": 1},
]


@pytest.fixture(params=NETWORKS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    network, settings = NETWORKS[request.param]
    return save_bundle(tmp_path / "given", make_bundle(network, **settings))


@pytest.mark.parametrize("changes", ADAPTATIONS, ids="-".join)
def test_an_adapted_model_is_saved_and_loads_again_to_equal_outputs(
    bundle: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = from_pretrained(bundle, **changes)
    assert model.report is not None
    config, unet = model.config, model.network.config.unet
    assert (config.provenance.origin, config.provenance.init) == ("adapted", "given")
    assert (model.dims, len(config.input.channels)) == (unet.dims, unet.in_channels)
    again = from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert (again.config, again.report) == (config, None)
    x = torch.rand(2, unet.in_channels, *config.patch_size)
    outputs = model(x)
    assert outputs.shape[1] == config.network.outputs
    assert torch.equal(again(x), outputs)
    kept = "task" not in changes or (changes["task"], "labels" in changes) == (config.task, False)
    assert model.labels == tuple(changes.get("labels", again.labels if kept else model.labels))


def test_adapting_a_model_leaves_it_as_it_was(tmp_path: Path) -> None:
    model = from_pretrained(save_bundle(tmp_path / "m", make_bundle(*NETWORKS["genesis"][:1])))
    x = torch.rand(1, 1, 16, 16, 8)
    before = model(x)
    adapted = model.adapt(task="seg", num_classes=2).train()
    next(adapted.parameters()).data.zero_()
    assert torch.equal(model(x), before)
    assert adapted.labels == ("background", "class 1")
    assert [level.shape for level in model.features(x)] == [level.shape for level in adapted.features(x)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": 3}, "num_classes=3 without a task: add task='seg'"),
        ({"task": "seg"}, "num_classes: received None, expected 1 or more to train a segmentation"),
        ({"task": "segment", "num_classes": 2}, "task: received 'segment'; did you mean segmentation"),
        ({"task": "seg", "num_classes": 3, "labels": ["a", "b"]}, "received 3 beside 2 labels; leave it out"),
        ({"task": "seg", "labels": ["a", "a"]}, "'a'.* occur twice"),
        ({"device": "gpu"}, "device: received 'gpu', expected auto, cpu"),
        ({"dtype": "int8"}, "dtype: received int8, expected float32, bfloat16"),
    ],
)
def test_an_adaptation_that_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    folder = save_bundle(tmp_path / "m", make_bundle(*NETWORKS["genesis"][:1]))
    with pytest.raises(ConfigurationError, match=said):
        from_pretrained(folder, **options)


def test_a_network_alone_needs_its_own_configuration(tmp_path: Path) -> None:
    made, other = (make_bundle(NETWORKS[name][0]) for name in ("genesis", "classifier"))
    with pytest.raises(ConfigurationError, match="a network alone has no configuration"):
        modelsgenesis.save_pretrained(made.network, tmp_path)
    with pytest.raises(ConfigurationError, match="not the network's own configuration"):
        GenesisModel(made.network, other.config)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_a_model_of_another_type_computes_and_is_loaded_as_a_copy_in_float32(tmp_path: Path, dtype: Any) -> None:
    folder = save_bundle(tmp_path / "m", make_bundle(*NETWORKS["genesis"][:1]))
    model = from_pretrained(folder, dtype=dtype, device="cpu").train()
    assert model(torch.rand(1, 1, 16, 16, 8).to(next(model.parameters()).dtype)).isfinite().all()
    loaded = modelsgenesis.load(model)
    assert not loaded.network.training
    assert model.training
    assert {weight.dtype for weight in loaded.network.parameters()} == {torch.float32}
