"""The registry's content: cards of published models, and models that the package ships with their weights."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import modelsgenesis
import reference_files
from loopback_hub import card_errors
from modelsgenesis.checkpoints import read_config
from modelsgenesis.checkpoints.card import PLACEHOLDER, split_card
from modelsgenesis.checkpoints.genesis import LAYOUTS
from modelsgenesis.configs import PretrainingConfig, pretraining_recipe
from modelsgenesis.hub import find_card, list_cards
from modelsgenesis.hub.download import verify
from modelsgenesis.networks import build_network

ROOT = Path(__file__).parents[1]
PUBLISHED: dict[str, Callable[[Path, Path], object]] = {
    "genesis-chest-ct-3d": reference_files.write_genesis_pt,
    "genesis-chest-ct-3d-keras": reference_files.write_keras_h5,
    "genesis-chest-ct-nnunet": reference_files.write_nnunet_model,
    "genesis-abdomen-ct-3d": partial(reference_files.write_genesis_pt, key="net"),
    "genesis-brain-mri-resenc": lambda path, _: reference_files.write_openmind_pth(path, "full"),
    "genesis-brain-mri-missing-piece": lambda path, _: reference_files.write_openmind_encoder(path, "full"),
    "openmind-brain-mri-mae": lambda path, _: reference_files.write_openmind_pth(path, "full"),
    "openmind-brain-mri-s3d": lambda path, _: reference_files.write_openmind_encoder(path, "full"),
    "openmind-brain-mri-simclr": lambda path, _: reference_files.write_openmind_encoder(path, "full"),
    "openmind-brain-mri-voco": lambda path, _: reference_files.write_openmind_encoder(path, "full"),
    "openmind-brain-mri-volumefusion": lambda path, _: reference_files.write_openmind_pth(path, "full"),
}
SAID_OF_PUBLISHED = (
    *("not a medical device", "not affiliated with or endorsed", "hosts no copy", "## Published results"),
    "Not verified: the published file itself",
)
SAID_OF_GENESIS = ("11,922,628", "@inproceedings{zhou2019models", "@article{zhou2021models")
LICENCES = {
    "cc-by-4.0": "CC-BY-4.0: give the attribution that it asks for",
    "unknown": "**the card of this one was not seen**",
}
SAID_OF_SHIPPED = (
    *("not a medical device", "Intended use", "Consent or ethics approval", "Compared with scratch", "11,922,628"),
    "modelsgenesis compare ",
)
SHIPPED = {
    "genesis-hippocampus-mri-3d-small": ("CC BY-SA 4.0", "share-alike", "arXiv:1902.09063"),
    "genesis-chest-xray-2d-small": ("NIH Clinical Center", "Wang, Xiaosong"),
}
QUICK = "genesis-chest-ct-3d"  # the others take as long as their sizes
LOAD = """
import sys, modelsgenesis
network = modelsgenesis.from_pretrained(sys.argv[1])
weights = list(network.parameters())
print(sum(w.numel() for w in weights), sum(w.double().sum().item() for w in weights))
source = modelsgenesis.load(sys.argv[1]).config.provenance.source
print(source["repository"], source["file"], source["revision"], source["sha256"])
"""
GUARD = "import sys; sys.addaudithook(lambda e, _: e == 'socket.connect' and sys.exit('connected'))\n"


def header_lacks(card):
    front = split_card(card).front
    return [key for key in ("license", "pipeline_tag", "tags", "datasets") if key not in front] + card_errors(card)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_describes_a_network_that_exists_and_says_what_a_user_must_know(name):
    card = find_card(name)
    source, text = card.source, " ".join(card.text.split())
    assert source.format in LAYOUTS
    built = build_network(source.network, "meta")
    assert sum(parameter.numel() for parameter in built.parameters()) == source.parameters
    assert all(side % step == 0 for side, step in zip(source.patch_size, built.size_divisor, strict=True))
    assert built.config.in_channels == len(source.input.channels)
    licence = LICENCES[card.license] if "brain-mri" in name else "non-commercial"
    own = SAID_OF_GENESIS if name.startswith("genesis-") else ("@article{wald2024openmind", "--set encoder_only=true")
    assert [said for said in (*SAID_OF_PUBLISHED, *own, licence) if said not in text] == []
    assert header_lacks(card.text) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_a_published_model_loads_by_its_name(name, hub, shared, tmp_path, environment):
    """From a Hub that serves files as they are published: cold, then warm without a connection."""
    source = find_card(name).source
    assert source.repository is not None
    path = tmp_path / "files" / source.file
    PUBLISHED[name](path, shared)
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    repository = hub.add(source.repository, {**files, "README.md": b"# Theirs\n", "config.json": b"{}\n"})

    def python(code):
        return subprocess.check_output([sys.executable, "-c", code, name], env=environment, text=True)

    cold = python(LOAD)
    parameters, origin = cold.splitlines()
    assert parameters.split()[0] == str(source.parameters)
    sha256 = repository.files[source.file].sha256
    assert origin == f"{source.repository} {source.file} {repository.heads['main']} {sha256}"
    assert hub.count("GET /large/") == 1
    assert python(GUARD + LOAD) == cold


def shipped():
    return [pytest.param(card, id=card.name) for card in list_cards() if card.source.repository is None]


@pytest.mark.parametrize("card", shipped())
def test_a_shipped_model_is_small_whole_reviewed_and_licensed(card):
    assert (card.path.parent / card.source.file).stat().st_size < 3_000_000
    assert card.source.sha256 is not None
    assert verify(card.name)["model.safetensors"] == card.source.sha256
    network = modelsgenesis.from_pretrained(card.name)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.source.parameters
    assert sorted(path.name for path in card.path.parent.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert header_lacks(card.text) == []
    text = " ".join(card.text.split())
    assert [said for said in (*SAID_OF_SHIPPED, *SHIPPED[card.name]) if said not in text] == []
    assert f"cards/{card.name}" in (ROOT / "NOTICE").read_text()
    if card.license == "cc-by-sa-4.0":
        assert "CC-BY-SA-4.0" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("card", shipped())
def test_the_command_in_the_card_is_the_recipe_of_the_weights(card):
    found = re.search(r"<!-- command: pretrain -->\s*```bash\n(.*?)\n```", card.text, re.DOTALL)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    recipe = pretraining_recipe(words[words.index("--recipe") + 1], settings=[*given, "compile=false"])  # as on a CPU
    recorded = read_config(card.path.parent).provenance.recipe
    recorded = {key: value for key, value in recorded.items() if key not in ("slice_axis", "nonfinite")}  # are gone
    assert recipe.recipe() == PretrainingConfig.from_dict({"compile": False, **recorded}).recipe()  # but for the data
    assert words[words.index("--modality") + 1] == card.source.input.modality


def test_no_card_ships_with_something_to_fill_in():
    assert [card.name for card in list_cards() if PLACEHOLDER in card.text] == []
