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
import torch

import modelsgenesis
import runs_to_push
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import CONTRACTS, PretrainingConfig, pretraining_recipe
from modelsgenesis.errors import CheckpointError, ConfigurationError, HubError
from modelsgenesis.hub.download import find_cached, verify

ROOT = Path(__file__).parents[1]
NAME = "genesis-test-mri-3d-tiny"
FILES = ["README.md", "config.json", "model.safetensors"]
DRAFT = """---
license: cc-by-sa-4.0
---

<!-- command: pretrain -->
```bash
modelsgenesis pretrain DATA
```

FILL IN pretraining: how long

FILL IN comparison: what it shows
"""
SETTINGS = ["network.widths=4,8", "patch_size=16,16,8", "steps=20", "learning_rate=3e-3", "validate_every=none"]
RECIPE = pretraining_recipe("small", scheme="I+II", settings=SETTINGS)
OFFLINE = """import sys
def refuse(event, _):
    if event in ('socket.connect', 'socket.getaddrinfo'): raise SystemExit(event)
sys.addaudithook(refuse)
"""


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


def embed(tool, folder, cards):
    """Embed a model in a folder of cards."""
    (folder / f"{NAME}.md").write_text(DRAFT)
    tool.embed(write_run(folder / "run"), NAME, cards=cards, drafts=folder)


@pytest.fixture
def cards(tool, tmp_path, monkeypatch):
    """A folder of cards with one embedded model."""
    cards = tmp_path / "cards"
    embed(tool, tmp_path, cards)
    monkeypatch.setenv("MODELSGENESIS_CARDS", str(cards))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return cards


def run_offline(code, **environment):
    """Run Python in a process that ends when it looks for a connection."""
    command, environment = [sys.executable, "-c", OFFLINE + code], {**os.environ, "COLUMNS": "200", **environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_an_embedded_model_needs_no_network(cards, tmp_path):
    """Its use, and every command of the registry, in one process that may not connect."""
    copy = tmp_path / "copy"
    commands = [["list", "--modality", "mri"], ["info", NAME, "--json"], ["card", NAME], ["verify", NAME]]
    code = f"""import modelsgenesis, torch
network = modelsgenesis.from_pretrained({NAME!r}, task='cls', num_classes=2)
print(tuple(network(torch.rand(2, 1, 16, 16, 8)).shape), network.config.input.modality)
from modelsgenesis.cli import main
for arguments in {[*commands, ["download", NAME, "--output", str(copy)]]!r}:
    sys.argv = ['modelsgenesis', *arguments]
    try: main()
    except SystemExit as end: assert not end.code, (arguments, end.code)
"""
    shown = run_offline(code, PYTHONPATH=str(ROOT / "src"))
    assert shown.startswith("(2, 2) mri\n")
    assert f"{NAME}: every file is as recorded, and the network loads" in shown
    assert sorted(path.name for path in copy.iterdir()) == FILES
    assert load_bundle(copy).card == (cards / NAME / "README.md").read_text()


def test_kernels_are_kept_in_half_precision(tool, tmp_path):
    cards = tmp_path / "cards"
    embed(tool, tmp_path, cards)
    run, made = load_bundle(tmp_path / "run").network.state_dict(), load_bundle(cards / NAME).network.state_dict()
    assert all(torch.equal(made[name], run[name].half().float() if run[name].ndim > 1 else run[name]) for name in run)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "run", cards / NAME)]
    assert sizes[1] < 0.8 * sizes[0]


def test_an_altered_file_is_refused(cards):
    weights = cards / NAME / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for use in (verify, find_cached, modelsgenesis.from_pretrained):
        with pytest.raises(HubError, match=r"its SHA-256 is .*…, its card pins"):
            use(NAME)


def test_embedding_again_renews_what_is_ours_and_keeps_the_prose(tool, cards, tmp_path):
    path = cards / NAME / "README.md"
    path.write_text(path.read_text().replace("FILL IN comparison: what it shows", "Reviewed: a tie."))
    again = write_run(tmp_path / "again", RECIPE.override(steps=21))
    left = tool.embed(again, NAME, cards=cards, drafts=tmp_path, data="Task04", options="--patient '^(a)_'")
    text = path.read_text()
    said = ("Reviewed: a tie.", "modelsgenesis pretrain Task04 ", "--patient '^(a)_' \\\n", "--modality mri")
    assert [words for words in (*said, "| Parameters | 3,897 |") if words not in text] == []
    assert "FILL IN pretraining: how long" in left
    settings = re.findall(r"--set '?([^\s']+)", tool.COMMAND.search(text)[0])
    recipe = json.loads((cards / NAME / "config.json").read_text())["provenance"]["recipe"]
    made = pretraining_recipe("small", settings=settings)
    assert made == PretrainingConfig.from_dict(recipe) == RECIPE.override(steps=21)


@pytest.mark.parametrize(
    ("provenance", "draft", "error", "words"),
    [
        ({}, None, ConfigurationError, "no such draft"),
        ({"origin": "untrained"}, DRAFT, CheckpointError, "its origin is 'untrained'"),
        ({"data": {"scans": ["hippocampus_001.nii.gz"]}}, DRAFT, HubError, "hippocampus_001.nii.gz"),
    ],
)
def test_what_must_not_be_embedded_is_refused(tool, tmp_path, provenance, draft, error, words):
    if draft:
        (tmp_path / f"{NAME}.md").write_text(draft)
    with pytest.raises(error) as caught:
        tool.embed(write_run(tmp_path / "run", **provenance), NAME, cards=tmp_path / "cards", drafts=tmp_path)
    assert words in str(caught.value)
    assert not (tmp_path / "cards").exists()


def test_the_wheel_and_the_sdist_carry_the_weights(tool, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("src", "cards"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    embed(tool, tmp_path, tree / "cards")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tree, check=True)
    wheel, sdist = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"cards/{NAME}/{file}" for file in FILES} <= packed
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = f"import modelsgenesis as mg\nprint(mg.__file__, len(mg.from_pretrained({NAME!r}).state_dict()) > 9)\n"
    shown = run_offline(code, PYTHONPATH=str(tmp_path / "installed"), HF_HOME=str(tmp_path / "home"))
    assert shown.split() == [str(tmp_path / "installed" / "modelsgenesis" / "__init__.py"), "True"]
    assert wheel.stat().st_size < 12_000_000
