import json
import math
from pathlib import Path

import pytest

from modelsgenesis.configs import (
    CONTRACTS,
    GENESIS_UNET_2019,
    RECIPES,
    SCHEMES,
    BundleConfig,
    ClassificationConfig,
    ClassifierConfig,
    PretrainingConfig,
    Provenance,
    SegmentationConfig,
    TrainingConfig,
    apply_settings,
    pretraining_recipe,
)
from modelsgenesis.errors import ConfigurationError

CONTRACT = CONTRACTS["ct"]
BUNDLE = BundleConfig(
    task="restoration",
    network=GENESIS_UNET_2019,
    input=CONTRACT,
    patch_size=(64, 64, 32),
    provenance=Provenance(origin="untrained", library_version="0"),
)
CLASSIFIER = ClassifierConfig(encoder=GENESIS_UNET_2019, num_classes=2)
FINETUNING = [
    ({"labelled_patients": "ten"}, "labelled_patients: received 'ten', expected a number"),
    ({"labelled_patients": "120%"}, "labelled_patients: received '120%'"),
    ({"fold": 1}, "fold: received 1, expected folds=5 too"),
    ({"folds": 5, "fold": 5}, "fold: received 5, expected 0 to 4 of 5 folds"),
    ({"folds": 1}, "folds: received 1, expected 0, or 2 or more"),
    ({"patch_size": (8,)}, r"patch_size: received \(8,\), expected 2 or 3 positive sides"),
    ({"data": {"source": ["a", "b"]}}, "data.source: received 2 data sets, expected one"),
]


@pytest.mark.parametrize(
    "config",
    [
        BUNDLE,
        BUNDLE.override(network=CLASSIFIER, task="classification", labels=("a", "b"), multilabel=True),
        *RECIPES.values(),
        SegmentationConfig(labelled_patients="10%", folds=5, fold=2),
        ClassificationConfig(levels=(1, -1)),
        *CONTRACTS.values(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(taks=1), r"^config\.json: taks: no such setting; did you mean task\?"),
        (lambda values: values["network"].update(width=[1]), r"^config\.json: network\.width: .*; did you mean widths"),
        (lambda values: values["network"].update(widths=[4, 5]), r"^config\.json: network\.widths: .5. are"),
        (lambda values: [values.pop(key) for key in ("input", "patch_size")], "json: input, patch_size: missing"),
    ],
)
def test_unknown_and_missing_keys_and_wrong_values_are_named_with_their_place(change, words):
    values = BUNDLE.to_dict()
    change(values)
    with pytest.raises(ConfigurationError, match=words):
        BundleConfig.from_dict(values, where="config.json")


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        *(
            (TrainingConfig(), {"steps": x}, f"^steps: received {x!r}, expected a whole number")
            for x in (True, 1.0, "x")
        ),
        (TrainingConfig(), {"steps": None}, "one of steps and epochs"),
        (TrainingConfig(), {"steps": 10**30}, "64 bits"),
        (TrainingConfig(), {"optimizer": "adamv"}, "received 'adamv'; did you mean adam"),
        (TrainingConfig(), {"optimizer": ["adam"] * 1000}, r"received \['adam', .*\.\.\.\]; known are"),
        (TrainingConfig(), {"learning_rate": math.nan}, "received nan"),
        (TrainingConfig(), {"learning_rate": 10**400}, "received a number of 1,329 bits, expected"),
        (TrainingConfig(), {"divergence_factor": -1.0}, "divergence_factor: received -1.0, expected 0 or above"),
        (TrainingConfig(), {"compile": True, "checkpoint_activations": True}, "does not work together"),
        (PretrainingConfig(), {"validation_fraction": 1.0}, "expected 0 to 0.99"),
        (GENESIS_UNET_2019, {"widths": (5, 8)}, "widths: .5. are odd"),
        (GENESIS_UNET_2019, {"widths": ()}, "widths: .* expected 1 to 16"),
        (GENESIS_UNET_2019, {"norm": "group", "widths": (12, 16)}, "8 does not divide .6."),
        (GENESIS_UNET_2019, {"dims": 2.0}, r"received 2\.0; "),
        *((CLASSIFIER, {"levels": x}, "expected different numbers from -4 to 3") for x in ((0, -4), (4,), ())),
        *((kind(), *rest) for kind in (SegmentationConfig, ClassificationConfig) for rest in FINETUNING),
        (CONTRACT, {"window": None}, "window: intensity .window. needs it"),
        (CONTRACT, {"window": (1, 0)}, "does not increase"),
        (CONTRACT, {"percentiles": (-1, 99)}, "percentiles: received -1.0, expected 0 to 100"),
        (CONTRACT, {"spacing": (1, 1)}, "is not 3 sizes in mm"),
        (CONTRACT, {"orientation": "RAR"}, "orientation: received 'RAR'"),
        (CONTRACT, {"channels": ("a", "a")}, r"channels: .'a'. .*twice"),
        (BUNDLE, {"multilabel": True}, "multilabel"),
        (BUNDLE, {"labels": ("a",)}, "none for restoration"),
        (BUNDLE, {"patch_size": (640, 640, 640)}, "262,144,000 voxels, expected at most 134,217,728"),
    ],
)
def test_refuses_what_cannot_be(config, change, message):
    with pytest.raises(ConfigurationError, match=message):
        config.override(**change)


def test_data_options_and_weights_are_part_of_it_but_not_of_what_may_be_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = PretrainingConfig().with_data(Path("runs/x"), source=["~/scans", Path("b*.nii")], cache="c", window=None)
    assert config.data.source == ("/home/me/scans", str(tmp_path / "b*.nii"))
    assert (config.data.cache, config.data.window, config.init) == (str(tmp_path / "c"), None, "runs/x")
    assert config.with_data(source="one").data.source == (str(tmp_path / "one"),)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert PretrainingConfig.from_file("config.json") == config
    assert PretrainingConfig.from_dict(config.recipe()) == PretrainingConfig()


def test_settings_reach_nested_fields_and_are_applied_together():
    told = ["network.dims=2", "patch_size=64,48", "epochs=3", "steps=none"]
    config = apply_settings(PretrainingConfig(), told)
    assert (config.network.dims, config.patch_size, config.epochs, config.steps) == (2, (64, 48), 3, None)
    few = apply_settings(SegmentationConfig(), ["labelled_patients=10", "patch_size=64,64"])
    assert (few.labelled_patients, few.patch_size) == ("10", (64, 64))
    assert apply_settings(PretrainingConfig(), ["rule=none"]).rule == "none"  # a choice, not the absence of one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lerning_rate=1", r"^lerning_rate: no such setting; did you mean learning_rate\?$"),
        ("lr=1", r"^lr: .* did you mean learning_rate\?$"),
        ("BS=1", r"^BS: .* did you mean batch_size\?$"),
        ("window=0,1", r"^window: .* did you mean data\.window\?$"),
        ("filters=8,16", r"^filters: .* did you mean network\.widths\?$"),
        ("network.widht=4", r"^network\.widht: no such setting; did you mean widths\?$"),
        ("patch_size=64", "^patch_size: received 64, expected values such as 64,64,32$"),
        ("data=3", "^data: received 3, expected a mapping of settings$"),
        ("steps", "setting 'steps': expected key=value"),
        ("seed=1 seed.x=1", "seed has no settings within"),
    ],
)
def test_refuses_wrong_settings(setting, message):
    with pytest.raises(ConfigurationError, match=message):
        apply_settings(PretrainingConfig(), setting.split())


def test_recipes_and_schemes_by_name():
    config = pretraining_recipe("2019", scheme="III", steps=7)
    assert config.pretext.inpainting_share == 0
    assert (config.steps, config.epochs, config.learning_rate) == (7, None, 1.0)
    with pytest.raises(ConfigurationError, match="recipe: received 'smal'; did you mean small"):
        pretraining_recipe("smal")
    with pytest.raises(ConfigurationError, match="scheme: received 'VII'; did you mean"):
        pretraining_recipe("small", scheme="VII")


def test_schemes_are_those_of_the_ablation():
    chances = {
        name: (one.shuffle_probability, one.intensity_probability, one.painting_probability, one.inpainting_share)
        for name, one in SCHEMES.items()
    }
    assert [chances[name][:2] for name in ("identity", "I", "II", "I+II")] == [(0, 0), (0, 0.9), (0.5, 0), (0.5, 0.9)]
    painted = [(0, 0, 0.9, 0), (0, 0, 0.9, 1), (0, 0, 0.9, 0.2), (0.5, 0.9, 0.9, 0.2)]
    assert [chances[name] for name in ("III", "IV", "III+IV", "V")] == painted
    # Implants are not of the paper: a scheme of their own has them, and no other.
    assert [name for name, one in SCHEMES.items() if one.implant_probability] == ["VI"]
    assert chances["VI"][:3] == (0, 0, 0)
