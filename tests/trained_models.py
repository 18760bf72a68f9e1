"""A pretrained model, one fine-tuned from it for a moment, and an untrained one: each made once for all tests."""

import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from tiny_bundles import write_bundle

NETWORK = GenesisUNetConfig(widths=(16, 32), norm="instance")
SHAPE = {"network": NETWORK, "patch_size": (16, 16, 12), "workers": 0}
BUDGET = {"steps": 60, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 5, "validate_every": 30}
TINY = SegmentationConfig(**SHAPE, **BUDGET, samples_per_scan=4, augment=False, overlap=0.25, precision="float32")


@pytest.fixture(scope="session")
def genesis(ct_folder, tmp_path_factory):
    config = PretrainingConfig(**SHAPE, steps=2, batch_size=2, samples_per_scan=2, validation_samples=2)
    return modelsgenesis.pretrain(
        ct_folder, tmp_path_factory.mktemp("genesis") / "run", config=config, modality="ct", device="cpu"
    )


@pytest.fixture(scope="session")
def finetuned(decathlon, genesis, tmp_path_factory):
    return modelsgenesis.finetune(
        decathlon, tmp_path_factory.mktemp("finetuned") / "run", init=genesis, config=TINY, device="cpu"
    )


@pytest.fixture(scope="session")
def finetuning_config():
    """A fine-tuning that learns two bright balls in seconds."""
    return TINY


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model that segments two organs in CT."""
    return write_bundle(tmp_path_factory.mktemp("models") / "organs")


@pytest.fixture(scope="session")
def scans(decathlon):
    """The scans of the tiny data set."""
    return sorted((decathlon / "imagesTr").iterdir())


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory):
    """Two classes of small pictures, two of each patient: pale and dark."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for label, brightness in (("dark", 40), ("pale", 180)):
        (folder / label).mkdir()
        for index in range(16):
            pixels = random.integers(0, 40, (20, 24)).astype(np.uint8) + np.uint8(10)
            pixels[5:15, 5:15] = brightness
            Image.fromarray(pixels).save(folder / label / f"{label}{index // 2:02d}_{index % 2:03d}.png")
    return folder
