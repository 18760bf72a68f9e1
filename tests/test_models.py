"""The model that `from_pretrained` returns: adapted, saved and loaded again; given instead of a name."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
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
    SegmentationConfig,
)
from modelsgenesis.errors import ConfigurationError, HubError
from modelsgenesis.hub.download import cached_bundles
from modelsgenesis.models import as_source, public_name
from modelsgenesis.prediction import model_folders
from tiny_bundles import make_bundle, write_bundle

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
    assert modelsgenesis.adapt(model, task="seg", num_classes=2)[1].new == adapted.report.new
    assert [level.shape for level in model.features(x)] == [level.shape for level in adapted.features(x)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": 3}, "num_classes=3 without a task: add task='seg'"),
        ({"task": "seg"}, "num_classes: received None, expected 1 or more to train a segmentation"),
        ({"task": "segment", "num_classes": 2}, "task: received 'segment'; did you mean segmentation"),
        ({"task": "seg", "num_classes": 3, "labels": ["a", "b"]}, "received 3 beside 2 labels; leave it out"),
        ({"task": "seg", "labels": ["a", "a"]}, "'a'.* occur twice"),
        ({"task": "seg", "labels": "liver"}, "labels: received the text 'liver', expected a list of names"),
        ({"labels": ["a", "b"]}, "labels without a task: add task='seg'"),
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


# --- instead of a name --------------------------------------------------------------------------------------


def test_a_model_in_memory_is_predicted_with_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "segmenter")
    model = from_pretrained(folder).train()
    values = np.random.default_rng(0).normal(0, 300, (20, 24, 22)).astype(np.float32)
    scan = nib.Nifti1Image(values, np.diag([2.0, 2, 3, 1]))
    ours, theirs = (modelsgenesis.predict(one, scan, device="cpu") for one in (model, folder))
    assert np.array_equal(ours.labels, theirs.labels)
    assert model.training
    assert model_folders([model, folder]) == [model, folder]
    with pytest.raises(ConfigurationError, match="received a network alone, expected a name, a folder or what"):
        modelsgenesis.predict(model.network, scan, device="cpu")


def test_a_model_in_memory_starts_runs_that_find_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSGENESIS_CACHE", str(tmp_path / "cache"))
    model = from_pretrained(save_bundle(tmp_path / "ours", make_bundle(*NETWORKS["genesis"][:1])))
    first, again = as_source(model), as_source(model)
    assert first == again
    assert (as_source("a/b"), as_source(None), public_name(Path(str(first)))) == ("a/b", None, "ours")
    arm = modelsgenesis.describe_comparison(["scratch", model]).arms[1]
    assert [str(kept.folder) for kept in cached_bundles() if kept.used] == [arm.init]
    assert (arm.name, arm.init) == ("ours", str(first))
    next(model.parameters()).data.add_(1)
    other = as_source(model)
    assert other != first
    assert torch.equal(next(from_pretrained(str(other)).parameters()), next(model.parameters()))


def test_a_model_in_memory_is_fine_tuned_and_the_run_resumes(decathlon: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MODELSGENESIS_CACHE", str(tmp_path / "cache"))
    model = from_pretrained(save_bundle(tmp_path / "ours", make_bundle(*NETWORKS["genesis"][:1])))
    sizes = {"patch_size": (16, 16, 8), "steps": 1, "validate_every": 1, "workers": 0, "bootstrap": 10}
    options = {"device": "cpu", "draw": False}
    given = {"init": model, "config": SegmentationConfig(**sizes), "modality": "ct"}
    run, measured = modelsgenesis.finetune(decathlon, tmp_path / "run", **given, **options)
    assert from_pretrained(run).config.provenance.init == "ours"
    assert modelsgenesis.finetune(None, run, resume=True, **options)[1] == measured


def test_pushing_a_model_lists_its_files_and_names_no_temporary_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = from_pretrained(save_bundle(tmp_path / "m", make_bundle(*NETWORKS["genesis"][:1])))
    listed = model.push_to_hub("clinic/genesis", dry_run=True).files
    assert {file.path for file in listed} == {"config.json", "model.safetensors", "README.md"}
    with pytest.raises(HubError, match="expected org/name") as caught:
        model.push_to_hub("a b/c", dry_run=True)
    assert "/tmp" not in str(caught.value)


# --- shown --------------------------------------------------------------------------------------------------


def test_whatever_is_shown_is_short_and_names_what_it_is(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "a<b", make_bundle(*NETWORKS["genesis"][:1]))
    model = from_pretrained(folder, task="seg", num_classes=2)
    bundle, card = modelsgenesis.load(model), modelsgenesis.list_cards()[0]
    shown = [repr(model), repr(model.report), str(model.report), repr(bundle), repr(card)]
    assert all(len(text) < 300 and "\n" not in text for text in shown)
    assert repr(model).startswith("GenesisModel('a<b': segmentation, 3D ct, ")
    assert card.name in repr(card)
    pages = [one._repr_html_() for one in (model, model.report, card)]
    assert "a&lt;b" in pages[0]
    assert "background, class 1" in pages[0]
    assert all("parameters" in page for page in pages)


def test_dir_shows_the_api_alone() -> None:
    assert {"Any", "import_module", "TYPE_CHECKING"}.isdisjoint(dir(modelsgenesis))
    assert {"GenesisModel", "from_pretrained", "__version__"} <= set(dir(modelsgenesis))


@pytest.mark.parametrize("name", ["predict", "evaluate", "finetune", "pretrain", "compare", "monai_transforms", "load"])
def test_wherever_a_name_is_taken_it_is_told_how_to_fetch_it(name: str, decathlon: Path, tmp_path: Path) -> None:
    far, scan = "genesis-chest-ct-3d", decathlon / "imagesTr" / "ball_000.nii.gz"
    comparison = modelsgenesis.describe_comparison(["scratch", far], labels=["2"], runs=2)
    calls: dict[str, tuple[Any, ...]] = {
        "predict": (far, scan),
        "evaluate": (far, decathlon),
        "finetune": (decathlon, tmp_path / "run"),
        "pretrain": (decathlon / "imagesTr", tmp_path / "run"),
        "compare": (decathlon, tmp_path / "compared"),
    }
    options: dict[str, Any] = {
        "finetune": {"init": far},
        "pretrain": {"init": far},
        "compare": {"comparison": comparison},
    }
    with pytest.raises(HubError, match=f"{far}.*: no intact copy on this machine"):
        getattr(modelsgenesis, name)(
            *calls.get(name, (far,)), **options.get(name, {}), local_files_only=True, cache_dir=tmp_path / "cache"
        )
    with pytest.raises((HubError, ConfigurationError), match="revision"):
        modelsgenesis.finetune(decathlon, tmp_path / "run", revision="v1")
    unknown: dict[str, Any] = {"overlap": 0.9}
    with pytest.raises(TypeError, match="unexpected keyword argument 'overlap'"):
        modelsgenesis.predict("genesis-chest-xray-2d-small", scan, **unknown)


def test_a_model_in_memory_is_pushed_as_a_run_is(tmp_path: Path) -> None:
    model = from_pretrained("genesis-chest-xray-2d-small", task="cls", labels=["healthy", "ill"])
    listed = modelsgenesis.push_to_hub(model, dry_run=True)
    assert listed.repository == "genesis-chest-xray-2d-small"
    assert [file.path for file in listed.files] == ["config.json", "model.safetensors", "README.md"]
    assert listed == model.push_to_hub("genesis-chest-xray-2d-small", dry_run=True)
