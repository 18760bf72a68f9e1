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

import pytest

import modelsgenesis
import runs_to_push
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import CONTRACTS, PretrainingConfig, pretraining_recipe
from modelsgenesis.errors import CheckpointError, ConfigurationError, HubError
from modelsgenesis.hub import find_card
from modelsgenesis.hub.download import find_cached, verify

ROOT = Path(__file__).parents[1]
NAME = "genesis-test-mri-3d-tiny"
FILES = ["README.md", "config.json", "model.safetensors"]
DRAFT = """---
license: cc-by-sa-4.0
datasets: []
---

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
def tool():
    """The maintainer's script, as a module."""
    spec = importlib.util.spec_from_file_location("embed", ROOT / "tools" / "embed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder, recipe=RECIPE, **provenance):
    """Write what a pretraining run leaves, with random weights."""
    base = runs_to_push.CONFIG
    provenance = base.provenance.override(results={}, **{"recipe": recipe.to_dict(), **provenance})
    shape = {"network": recipe.network, "patch_size": recipe.patch_size, "input": CONTRACTS["mri"]}
    return runs_to_push.write_run(folder, config=base.override(provenance=provenance, **shape))


@pytest.fixture
def drafts(tmp_path):
    """A folder with the prose of the model's card."""
    (tmp_path / "drafts").mkdir()
    (tmp_path / "drafts" / f"{NAME}.md").write_text(DRAFT)
    return tmp_path / "drafts"


@pytest.fixture
def cards(tool, drafts, tmp_path, monkeypatch):
    """A folder of cards with one embedded model."""
    cards = tmp_path / "cards"
    tool.embed(write_run(tmp_path / "run"), NAME, cards=cards, drafts=drafts)
    monkeypatch.setenv("MODELSGENESIS_CARDS", str(cards))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return cards


def run_offline(code, **environment):
    """Run Python in a process that ends when it looks for a connection."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    command = [sys.executable, "-c", OFFLINE + code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_an_embedded_model_needs_no_network(cards, tmp_path):
    """Its use, and every command of the registry, in one process that may not connect."""
    copy = tmp_path / "copy"
    commands = [["list", "--modality", "mri"], ["info", NAME, "--json"], ["card", NAME], ["verify", NAME]]
    code = (
        "import modelsgenesis, torch\n"
        f"network = modelsgenesis.from_pretrained({NAME!r}, task='cls', num_classes=2)\n"
        "print(tuple(network(torch.rand(2, 1, 16, 16, 8)).shape), network.bundle.input.modality)\n"
        "from modelsgenesis.cli import main\n"
        f"for arguments in {[*commands, ['download', NAME, '--output', str(copy)]]!r}:\n"
        "    sys.argv = ['modelsgenesis', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (arguments, end.code)\n"
    )
    shown = run_offline(code, PYTHONPATH=str(ROOT / "src"))
    assert shown.startswith("(2, 2) mri\n")
    row = next(line for line in shown.splitlines() if line.startswith(NAME))
    assert row.split() == [NAME, "mri", "3D", "3,897", "restoration", "here", "cc-by-sa-4.0"]
    assert f"{NAME}: every file is as recorded, and the network loads" in shown
    assert sorted(path.name for path in copy.iterdir()) == FILES
    assert load_bundle(copy).card == (cards / NAME / "README.md").read_text()
    assert not (tmp_path / "home").exists()


def test_an_altered_file_and_folders_of_other_things_are_refused(cards):
    weights = cards / NAME / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for use in (verify, find_cached, modelsgenesis.from_pretrained):
        with pytest.raises(HubError, match=r"its SHA-256 is .*…, its card pins"):
            use(NAME)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: there is no such file"):
        verify(NAME)
    (cards / NAME).rename(cards / "other")
    with pytest.raises(ConfigurationError, match=f"is about '{NAME}'; call its folder {NAME}"):
        find_card("other")


def test_embedding_again_renews_what_is_ours_and_keeps_the_prose(tool, cards, tmp_path):
    path = cards / NAME / "README.md"
    path.write_text(path.read_text().replace("FILL IN comparison: what it shows", "Reviewed: a tie."))
    again = write_run(tmp_path / "again", RECIPE.override(steps=21))
    left = tool.embed(again, NAME, cards=cards, drafts=tmp_path / "none", data="Task04", options="--patient '^(a)_'")
    text = path.read_text()
    said = ("Reviewed: a tie.", "modelsgenesis pretrain Task04 ", "--patient '^(a)_' \\\n", "--modality mri")
    assert [words for words in (*said, "| Parameters | 3,897 |") if words not in text] == []
    assert any(line.startswith("FILL IN pretraining") for line in left)
    settings = re.findall(r"--set '?([^\s']+)", tool.COMMAND.search(text)[0])
    recipe = json.loads((cards / NAME / "config.json").read_text())["provenance"]["recipe"]
    made = pretraining_recipe("small", settings=settings)
    assert made == PretrainingConfig.from_dict(recipe) == RECIPE.override(steps=21)


@pytest.mark.parametrize(
    ("provenance", "draft", "error", "words"),
    [
        ({}, None, ConfigurationError, "no such draft"),
        ({}, "# prose\n", ConfigurationError, "no block under <!-- command: pretrain -->"),
        ({"origin": "untrained"}, DRAFT, CheckpointError, "its origin is 'untrained'"),
        ({"data": {"scans": ["hippocampus_001.nii.gz"]}}, DRAFT, HubError, "hippocampus_001.nii.gz"),
        (None, DRAFT, CheckpointError, "bytes, expected at most 1,000; train it smaller"),
    ],
)
def test_what_must_not_be_embedded_is_refused(tool, tmp_path, monkeypatch, provenance, draft, error, words):
    if draft:
        (tmp_path / f"{NAME}.md").write_text(draft)
    if provenance is None:
        monkeypatch.setattr(tool, "LIMIT", 1000)
    with pytest.raises(error) as caught:
        tool.embed(write_run(tmp_path / "run", **provenance or {}), NAME, cards=tmp_path / "cards", drafts=tmp_path)
    assert words in str(caught.value)
    assert not (tmp_path / "cards").exists()


def test_the_wheel_and_the_sdist_carry_the_weights(tool, drafts, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("src", "cards"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    tool.embed(write_run(tmp_path / "run"), NAME, cards=tree / "cards", drafts=drafts)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    ended = subprocess.run(build, cwd=tree, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    wheel, sdist = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"cards/{NAME}/{file}" for file in FILES} <= packed
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
