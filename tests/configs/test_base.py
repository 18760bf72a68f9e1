import json

import pytest

from modelsgenesis.configs import (
    CONTRACTS,
    GENESIS_UNET_2019,
    RECIPES,
    BundleConfig,
    ClassificationConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    InputContract,
    PretrainingConfig,
    Provenance,
    SegmentationConfig,
    TrainingConfig,
    apply_settings,
    pretraining_recipe,
    scheme,
)
from modelsgenesis.errors import ConfigurationError


def bundle(**changes: object) -> BundleConfig:
    values = {
        "task": "restoration",
        "network": GENESIS_UNET_2019,
        "input": CONTRACTS["ct"],
        "patch_size": (64, 64, 32),
        "provenance": Provenance(origin="untrained", library_version="0"),
    }
    return BundleConfig(**{**values, **changes})


@pytest.mark.parametrize(
    "config",
    [
        bundle(),
        bundle(
            network=ClassifierConfig(encoder=GENESIS_UNET_2019, num_classes=2), task="classification", labels=("a", "b")
        ),
        *RECIPES.values(),
        SegmentationConfig(labels="10%", folds=5, fold=2),
        ClassificationConfig(levels=(1, -1)),
        *CONTRACTS.values(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_names_the_nearest_key_for_an_unknown_one():
    with pytest.raises(ConfigurationError, match=r"config\.json: unknown key 'taks'; did you mean task\?"):
        BundleConfig.from_dict({**bundle().to_dict(), "taks": 1}, where="config.json")


def test_names_the_nested_place_of_an_unknown_key():
    values = bundle().to_dict()
    values["network"]["width"] = [1]
    with pytest.raises(ConfigurationError, match=r"BundleConfig\.network.*'width'; did you mean widths"):
        BundleConfig.from_dict(values)


def test_lists_missing_keys():
    values = bundle().to_dict()
    del values["input"], values["patch_size"]
    with pytest.raises(ConfigurationError, match="missing keys input, patch_size"):
        BundleConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "TrainingConfig.steps: received 'many', expected int"),
        ({"steps": True}, "received True, expected int"),
        ({"steps": None}, "one of steps and epochs must be set"),
        ({"optimizer": "adamv"}, "received 'adamv'; did you mean adam"),
        ({"learning_rate": 0.0}, "learning_rate: received 0.0, expected above 0"),
        ({"batch_size": 0}, "batch_size: received 0, expected above 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: received 0, expected above 0"),
        ({"explosion": -1.0}, "explosion: received -1.0, expected 0 or above"),
        ({"pretrained_rate": -0.1}, "pretrained_rate: received -0.1, expected 0 or above"),
        ({"nonfinite": "hope"}, "nonfinite: received 'hope'; known are skip, stop"),
        ({"compile": True, "checkpoint_activations": True}, "do not work together; set one of them"),
    ],
)
def test_refuses_wrong_values(change, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig(**change)


def test_integers_are_good_floats_and_lists_good_tuples():
    config = GenesisUNetConfig.from_dict({"widths": [4, 8], "norm_epsilon": 1})
    assert config.widths == (4, 8)
    assert config.norm_epsilon == 1.0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"widths": (5, 8)}, "5 is not even and positive"),
        ({"widths": ()}, "at least one level"),
        ({"norm": "group", "widths": (12, 16)}, "8 does not divide 6 channels"),
        ({"in_channels": 0}, "channels must be positive"),
        ({"dims": 4}, "received 4; known are 2, 3"),
    ],
)
def test_refuses_impossible_networks(network, message):
    with pytest.raises(ConfigurationError, match=message):
        GenesisUNetConfig(**network)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"intensity": "window"}, "intensity 'window' needs window"),
        ({"intensity": "window", "window": (1, 0)}, r"window: \(1.0, 0.0\) does not increase"),
        ({"intensity": "percentiles", "percentiles": (-1, 99)}, "not within 0 to 100"),
        ({"intensity": "standardize", "mean": 0, "deviation": 0}, "deviation: expected above 0"),
        ({"intensity": "zscore", "spacing": (1, 1)}, "is not 3 positive sizes in mm"),
    ],
)
def test_refuses_impossible_contracts(contract, message):
    with pytest.raises(ConfigurationError, match=message):
        InputContract(modality="ct", **contract)


def test_settings_reach_nested_fields_and_are_applied_together():
    config = apply_settings(
        PretrainingConfig(),
        ["network.dims=2", "patch_size=64,48", "pretext.painting_fill=constant", "epochs=3", "steps=none"],
    )
    assert (config.network.dims, config.patch_size) == (2, (64, 48))
    assert config.pretext.painting_fill == "constant"
    assert (config.epochs, config.steps) == (3, None)
    assert apply_settings(PretrainingConfig(), ["rule=none"]).rule == "none"  # a choice, not the absence of one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lerning_rate=1", "unknown key 'lerning_rate'; did you mean learning_rate"),
        ("network.widht=4", "GenesisUNetConfig: unknown key 'widht'; did you mean widths"),
        ("seed.x=1", "'seed' is no group of settings"),
        ("steps", "setting 'steps': expected key=value"),
        ("patch_size=64,64", "expected 3 positive sides"),
    ],
)
def test_refuses_wrong_settings(setting, message):
    with pytest.raises(ConfigurationError, match=message):
        apply_settings(PretrainingConfig(), [setting])


def test_recipes_and_schemes_by_name():
    config = pretraining_recipe("2019", scheme="III", steps=7)
    assert config.pretext.inpainting_share == 0
    assert (config.steps, config.epochs, config.learning_rate) == (7, None, 1.0)
    with pytest.raises(ConfigurationError, match="recipe: received 'smal'; did you mean small"):
        pretraining_recipe("smal")
    with pytest.raises(ConfigurationError, match="scheme: received 'VI'; did you mean"):
        scheme("VI")


@pytest.mark.parametrize(
    ("name", "shuffled", "mapped", "painted", "inside"),
    [
        ("identity", 0, 0, 0, None),
        ("I", 0, 0.9, 0, None),
        ("II", 0.5, 0, 0, None),
        ("III", 0, 0, 0.9, 0.0),
        ("IV", 0, 0, 0.9, 1.0),
        ("I+II", 0.5, 0.9, 0, None),
        ("III+IV", 0, 0, 0.9, 0.2),
        ("V", 0.5, 0.9, 0.9, 0.2),
    ],
)
def test_schemes_are_those_of_the_poster(name, shuffled, mapped, painted, inside):
    config = scheme(name)
    assert config.shuffle_probability == shuffled
    assert config.intensity_probability == mapped
    assert config.painting_probability == painted
    assert inside is None or config.inpainting_share == inside
