"""Weights inside of the package: how they get there, and that they need no network, from the wheel too.

The weights here are random and small; they are made in temporary folders only.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch

import modelsgenesis
from modelsgenesis.checkpoints import Bundle, load_bundle, render_card, save_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, PretrainingConfig, Provenance, pretraining_recipe
from modelsgenesis.errors import CheckpointError, ConfigurationError, HubError
from modelsgenesis.hub import find_card, list_cards
from modelsgenesis.hub.download import find_cached, verify
from modelsgenesis.networks import build_network

ROOT = Path(__file__).parents[1]
NAME = "genesis-test-mri-3d-tiny"
DRAFT = """---
license: cc-by-sa-4.0
datasets: []
---

## Intended use and limits

Tests. **This is not a medical device.**

## How it was pretrained

<!-- command: pretrain -->
```bash
modelsgenesis pretrain DATA
```

FILL IN pretraining: how long

## Compared with scratch

FILL IN comparison: what it shows
"""
RECIPE = pretraining_recipe(
    "small",
    scheme="I+II",
    settings=["network.widths=4,8", "patch_size=16,16,8", "steps=20", "learning_rate=3e-3", "validate_every=none"],
)
OFFLINE = (
    "import sys\n"
    "def refuse(event, _):\n"
    "    if event in ('socket.connect', 'socket.getaddrinfo'): raise SystemExit(event)\n"
    "sys.addaudithook(refuse)\n"
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The maintainer's script, as a module."""
    spec = importlib.util.spec_from_file_location("embed", ROOT / "tools" / "embed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder: Path, recipe: PretrainingConfig = RECIPE, **provenance: object) -> Path:
    """Write what a pretraining run leaves, with random weights."""
    told = {"origin": "pretrained", "data": {"training_scans": 150}, "environment": {"torch": "2"}, **provenance}
    config = BundleConfig(
        task="restoration",
        network=recipe.network,
        input=CONTRACTS["mri"],
        patch_size=recipe.patch_size,
        provenance=Provenance.from_dict({"library_version": "0.1.0", "recipe": recipe.to_dict(), **told}),
    )
    torch.manual_seed(0)
    card = render_card(config, name="run")
    return save_bundle(folder, Bundle(build_network(config.network).eval(), config, card))


@pytest.fixture
def drafts(tmp_path: Path) -> Path:
    """A folder with the prose of the model's card."""
    (tmp_path / "drafts").mkdir()
    (tmp_path / "drafts" / f"{NAME}.md").write_text(DRAFT)
    return tmp_path / "drafts"


@pytest.fixture
def cards(tool: ModuleType, drafts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of cards with one embedded model."""
    cards = tmp_path / "cards"
    tool.embed(write_run(tmp_path / "run"), NAME, cards=cards, drafts=drafts)
    monkeypatch.setenv("MODELSGENESIS_CARDS", str(cards))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return cards


def run_offline(code: str, **environment: str) -> str:
    """Run Python in a process that ends when it looks for a connection."""
    ended = subprocess.run(
        [sys.executable, "-c", OFFLINE + code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_an_embedded_model_needs_no_network(cards: Path, tmp_path: Path) -> None:
    """Its use, and every command of the registry, in one process that may not connect."""
    copy = tmp_path / "copy"
    commands = [
        ["list", "--modality", "mri"],
        ["info", NAME, "--json"],
        ["card", NAME],
        ["verify", NAME],
        ["download", NAME, "--output", str(copy)],
    ]
    code = (
        "import modelsgenesis, torch\n"
        f"network = modelsgenesis.from_pretrained({NAME!r}, task='cls', num_classes=2)\n"
        "print(tuple(network(torch.rand(2, 1, 16, 16, 8)).shape), network.bundle.input.modality)\n"
        "from modelsgenesis.cli import main\n"
        f"for arguments in {commands!r}:\n"
        "    sys.argv = ['modelsgenesis', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (arguments, end.code)\n"
    )
    shown = run_offline(code, PYTHONPATH=str(ROOT / "src"))
    assert shown.startswith("(2, 2) mri\n")
    row = next(line for line in shown.splitlines() if line.startswith(NAME))
    assert row.split() == [NAME, "mri", "3D", "3,897", "restoration", "here", "cc-by-sa-4.0"]
    assert f"{NAME}: every file is as recorded, and the network loads" in shown
    assert sorted(path.name for path in copy.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert load_bundle(copy).card == (cards / NAME / "README.md").read_text()
    assert not (tmp_path / "home").exists()


def test_an_altered_file_is_refused(cards: Path) -> None:
    assert find_cached(NAME)[0] == cards / NAME
    weights = cards / NAME / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for use in (verify, find_cached, modelsgenesis.from_pretrained):
        with pytest.raises(HubError, match=r"its SHA-256 is .*…, its card pins .*…; replace either"):
            use(NAME)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file in the folder of its card"):
        verify(NAME)


def test_folders_of_other_things_are_no_cards(cards: Path, tmp_path: Path) -> None:
    write_run(cards / "genesis-chest-ct-3d")
    names = [card.name for card in list_cards()]
    assert names.count("genesis-chest-ct-3d") == 1
    assert not find_card("genesis-chest-ct-3d").is_local
    (cards / NAME).rename(cards / "other")
    with pytest.raises(ConfigurationError, match=f"is about '{NAME}'; call its folder {NAME}"):
        find_card("other")


def test_embedding_again_renews_what_is_ours_and_keeps_the_prose(tool: ModuleType, cards: Path, tmp_path: Path) -> None:
    path = cards / NAME / "README.md"
    before = path.read_text()
    path.write_text(before.replace("FILL IN comparison: what it shows", "Reviewed: a tie."))
    again = write_run(tmp_path / "again", RECIPE.override(steps=21))
    left = tool.embed(again, NAME, cards=cards, drafts=tmp_path / "none", data="Task04", options="--patient '^(a)_'")
    text = path.read_text()
    assert "Reviewed: a tie." in text
    assert "modelsgenesis pretrain Task04 " in text
    assert "--patient '^(a)_' \\\n" in text
    assert "--set steps=21" in text
    assert f"| Parameters | {find_card(NAME).source.parameters:,} |" in text
    assert any(line.startswith("to fill in: FILL IN pretraining") for line in left)


def test_the_command_in_a_card_makes_the_recipe_of_its_bundle(tool: ModuleType, cards: Path) -> None:
    command = tool.COMMAND.search((cards / NAME / "README.md").read_text())[0]
    made = pretraining_recipe("small", settings=re.findall(r"--set '?([^\s']+)", command))
    recipe = json.loads((cards / NAME / "config.json").read_text())["provenance"]["recipe"]
    assert made == PretrainingConfig.from_dict(recipe) == RECIPE
    assert "--modality mri" in command


def test_what_must_not_be_embedded_is_refused(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"cards": tmp_path / "cards", "drafts": tmp_path}
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"no such draft, and no card in .*; write the prose"):
        tool.embed(run, NAME, **places)
    (tmp_path / f"{NAME}.md").write_text("# prose\n")
    with pytest.raises(ConfigurationError, match=r"no block under <!-- command: pretrain -->; add one"):
        tool.embed(run, NAME, **places)
    with pytest.raises(CheckpointError, match=r"its origin is 'untrained', expected a pretraining run"):
        tool.embed(write_run(tmp_path / "untrained", origin="untrained"), NAME, **places)
    with pytest.raises(HubError, match=r"holds the name of a scan: 'hippocampus_001\.nii\.gz'"):
        tool.embed(write_run(tmp_path / "private", data={"scans": ["hippocampus_001.nii.gz"]}), NAME, **places)
    monkeypatch.setattr(tool, "LIMIT", 1000)
    with pytest.raises(CheckpointError, match=r"bytes, expected at most 1,000; train it smaller"):
        tool.embed(run, NAME, **places)
    assert not (tmp_path / "cards").exists()


def test_the_wheel_and_the_sdist_carry_the_weights(tool: ModuleType, drafts: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        tree.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in ("src", "cards"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    tool.embed(write_run(tmp_path / "run"), NAME, cards=tree / "cards", drafts=drafts)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    ended = subprocess.run(build, cwd=tree, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    wheel, sdist = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    for file in ("README.md", "config.json", "model.safetensors"):
        assert any(name.endswith(f"/cards/{NAME}/{file}") for name in names), file
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import modelsgenesis\n"
        f"network = modelsgenesis.from_pretrained({NAME!r})\n"
        "print(modelsgenesis.__file__, sum(p.numel() for p in network.parameters()))\n"
    )
    shown = run_offline(code, PYTHONPATH=str(tmp_path / "installed"), HF_HOME=str(tmp_path / "home"))
    assert shown.split() == [str(tmp_path / "installed" / "modelsgenesis" / "__init__.py"), "3897"]
    assert wheel.stat().st_size < 12_000_000
