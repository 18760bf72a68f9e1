"""A Hub on the loopback interface, a run to push, and a home of its own for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from loopback_hub import LoopbackHub, serve

from modelsgenesis.checkpoints import Bundle, render_card, save_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
from modelsgenesis.networks import build_network

NETWORK = GenesisUNetConfig(widths=(4, 8), norm="instance")
CONFIG = BundleConfig(
    task="restoration",
    network=NETWORK,
    input=CONTRACTS["ct"],
    patch_size=(16, 16, 8),
    provenance=Provenance(
        origin="pretrained",
        library_version="0.1.0",
        recipe={"steps": 200, "learning_rate": 1e-3},
        data={"scans": 12, "modality": "ct"},
        results={"restoration_loss": 0.012, "identity_loss": 0.081, "mean_image_loss": 0.034},
        environment={"torch": "2.13.0", "device": "cpu"},
    ),
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub that the client of this process speaks to, as alice; retries do not wait."""
    home = tmp_path / "home"
    for name in ("HF_HUB_OFFLINE", "MODELSGENESIS_CACHE", "MODELSGENESIS_CARDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield hub
        close_session()


@pytest.fixture
def environment(hub: LoopbackHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a subprocess that speaks to the same Hub with an empty cache."""
    source = str(Path(__file__).parents[2] / "src")
    return {
        **os.environ,
        "PYTHONPATH": source,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "other-home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_alice",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as training leaves it: a bundle with its card, and files that are nobody's business."""
    return write_run(tmp_path / "run")


def write_run(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    card = render_card(CONFIG, name=folder.name, figures={"Restorations": "figures/restorations.png"})
    save_bundle(folder, Bundle(build_network(NETWORK).eval(), CONFIG, card))
    (folder / "figures").mkdir(exist_ok=True)
    from PIL import Image

    Image.new("L", (8, 8), seed).save(folder / "figures" / "restorations.png")
    Image.new("L", (8, 8), seed).save(folder / "figures" / "unnamed.png")
    (folder / "checkpoints").mkdir(exist_ok=True)
    torch.save({"optimizer": [1, 2, 3]}, folder / "checkpoints" / "last.pt")
    (folder / "log.csv").write_text("step,loss\n1,0.5\n")
    return folder
