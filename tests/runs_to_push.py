"""A Hub on the loopback interface, a home of its own, runs to push, cards that lead to them, and how calls fail."""

import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from loopback_hub import connected
from modelsgenesis.checkpoints import Bundle, render_card, save_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
from modelsgenesis.errors import GenesisError, HubError
from modelsgenesis.networks import build_network

TINY, GENESIS = "clinic/tiny", "clinic/genesis"
PARAMETERS = 3217
FIGURES = {"Restorations": "figures/restorations.png"}
CONFIG = BundleConfig(
    task="restoration",
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
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
CARD = """---
license: cc-by-4.0
library_name: modelsgenesis
modelsgenesis:
  name: {name}
  repository: clinic/tiny
  revision: main
  file: model.safetensors
  format: bundle
  sha256: null
  parameters: {parameters}
  task: restoration
  network: {{kind: genesis_unet, widths: [4, 8], norm: instance}}
  input: {{modality: ct, intensity: window, window: [-1000, 1000]}}
  patch_size: [16, 16, 8]
---
# {name}

Some *prose*.
"""


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty home for caches and tokens."""
    folder = tmp_path / "home"
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "MODELSGENESIS_CACHE", "MODELSGENESIS_CARDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    return folder


@pytest.fixture
def hub(home, monkeypatch):
    """A Hub that the client of this process speaks to, as alice."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    with connected(monkeypatch) as hub:
        yield hub


@pytest.fixture
def environment(hub, tmp_path):
    """The environment of a subprocess that speaks to the same Hub with an empty cache."""
    home, source = str(tmp_path / "other-home"), str(Path(__file__).parents[1] / "src")
    client = {"HF_ENDPOINT": hub.url, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_alice"}
    return {**os.environ, **client, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture
def run(tmp_path):
    """A run as training leaves it: a bundle with its card, and files that are nobody's business."""
    return write_run(tmp_path / "run")


@pytest.fixture
def second(tmp_path):
    """Another run of the same network."""
    return write_run(tmp_path / "second", seed=1)


@pytest.fixture
def tiny_on_hub(hub, run):
    """A bundle on the Hub."""
    hub.add(TINY, bundle_files(run))
    return TINY


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A user's own folder of cards with one in it."""
    folder = tmp_path / "cards"
    folder.mkdir()
    write_card(folder)
    monkeypatch.setenv("MODELSGENESIS_CARDS", str(folder))
    return folder


def write_run(folder, seed=0, config=CONFIG):
    """Write a run with random weights."""
    torch.manual_seed(seed)
    card = render_card(config, name=folder.name, figures=FIGURES)
    save_bundle(folder, Bundle(build_network(config.network).eval(), config, card))
    for name in ("figures", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("restorations", "unnamed"):
        Image.new("RGB", (8, 8), seed).save(folder / "figures" / f"{name}.png")
    torch.save({"optimizer": [1, 2, 3]}, folder / "checkpoints" / "last.pt")
    (folder / "log.csv").write_text("step,loss\n1,0.5\n")
    return folder


def bundle_files(run):
    """The files of a run's bundle, to be put onto the Hub without the client."""
    return {name: (run / name).read_bytes() for name in ("config.json", "model.safetensors", "README.md")}


def write_card(folder, file_name="tiny-ct", **changes):
    """Write a card; `changes` replace lines of its mapping by key."""
    lines = CARD.format(name=file_name, parameters=PARAMETERS).splitlines()
    for number, line in enumerate(lines):
        key = line.strip().partition(":")[0]
        lines[number] = f"  {key}: {changes[key]}" if key in changes else line
    path = folder / f"{file_name}.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def cached_files(home):
    """What the caches hold: names of files in snapshots, and anything half-done or recorded."""
    found = [path.name for path in home.rglob("snapshots/*/*")]
    found += [path.name for path in home.rglob("*.incomplete")]
    found += [f"record {path.name}" for path in home.rglob("records/*.json")]
    return sorted(found + [f"bundle {path.name}" for path in home.rglob("bundles/*")])


def failure(call, kind):
    """Call, expect an error of exactly this class, or a `HubError` of this kind, and return its one line."""
    with pytest.raises(GenesisError) as caught:
        call()
    error, message = caught.value, str(caught.value)
    assert (error.kind if isinstance(error, HubError) else type(error)) == kind, message
    assert message.isprintable()
    assert not any(token in message for token in ("hf_alice", "hf_bob", "hf_wrong", "hf_reader", "hf_stranger"))
    return message
