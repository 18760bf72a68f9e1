"""Whatever the bytes: a sound result or an error of this package, in one line and little memory; a hang ends it."""

import json
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign_damage import ODD, altered, damage
from modelsgenesis.checkpoints import convert_checkpoint, load_bundle
from modelsgenesis.checkpoints.card import split_card
from modelsgenesis.checkpoints.genesis import GENESIS_KERAS, GENESIS_KERAS_NETWORK
from modelsgenesis.checkpoints.plan import PLAN_NAME, read_plan
from modelsgenesis.checkpoints.safe_load import read_weights
from modelsgenesis.configs import BundleConfig, PretrainingConfig
from modelsgenesis.errors import GenesisError
from modelsgenesis.networks import build_network

from . import hostile_files as make  # pyright: ignore[reportAttributeAccessIssue]

PLAN = make.plan_of()
FRONT = (
    "license: mit\ntags: [a, 'b']\nmodel-index:\n- name: x\n  results: []\nbase_model: >\n  a\n  b\ndate: 2020-01-01\n"
)


def damage_file(file: Path, kind: str, seed: int) -> None:
    chance = random.Random(f"{kind} {seed}")
    if "values" in kind:
        file.write_text(json.dumps(altered(json.loads(file.read_text()), chance)), "utf-8")
    else:
        file.write_bytes(damage(file.read_bytes(), chance))


def keras(folder: Path) -> Path:
    config = GENESIS_KERAS_NETWORK.override(widths=(4, 8))

    def fill(file: Any) -> None:
        for name, tensor in build_network(config).state_dict().items():
            if tensor.ndim:  # Keras does not count batches
                layer, leaf = GENESIS_KERAS.original(name, config).split("/")
                turned = rearrange(tensor, "o i ... -> ... i o") if tensor.ndim > 1 else tensor
                file[f"model_weights/{layer}/{layer}/{leaf}:0"] = turned.numpy()

    return make.keras(folder, fill)


def outcome(read: Callable[[], object]) -> str:
    """Return the message of an error of this package; any other ends the test."""
    try:
        read()
    except GenesisError as error:
        return str(error)
    return ""


def read(file: Path) -> None:
    """Load the bundle that a file is of, or convert the checkpoint."""
    if (file.parent / "README.md").exists():
        split_card(load_bundle(file.parent).card, str(file))
    else:
        convert_checkpoint(next(file.parent.glob("file.*")), file.parent / "out", name="x")


KINDS: dict[str, Callable[[Path], Path]] = {
    "pt": lambda folder: make.saved(folder, {"state_dict": make.small_state_dict()}),
    "pt of 2019": lambda folder: make.saved(folder, make.small_state_dict(), zipped=False),
    "pth with a plan": lambda folder: make.openmind(folder, PLAN, inside=True),
    "h5": keras,
    "safetensors": lambda folder: make.bundle(folder) / "model.safetensors",
    "card": lambda folder: make.bundle(folder, card=f"---\n{FRONT}---\n\ntext\n".encode()) / "README.md",
    **dict.fromkeys(("config", "config's values"), lambda folder: make.bundle(folder) / "config.json"),
    **dict.fromkeys(("plan", "plan's values"), lambda folder: make.openmind(folder, PLAN).with_name(PLAN_NAME)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [30, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
def test_a_damaged_file(tmp_path: Path, kind: str, inputs: int) -> None:
    (tmp_path / "sound").mkdir()
    sound = KINDS[kind](tmp_path / "sound").relative_to(tmp_path / "sound")
    shutil.copytree(tmp_path / "sound", tmp_path / "read")
    read(tmp_path / "read" / sound)  # it was sound before
    peak, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for seed in range(inputs):
        folder = shutil.copytree(tmp_path / "sound", tmp_path / "damaged")
        damage_file(folder / sound, kind, seed)
        message = outcome(lambda folder=folder: read(folder / sound))
        refused += bool(message)
        assert (message.isprintable(), len(message) < 2000) == (True, True), seed
        shutil.rmtree(folder)
    assert refused > inputs // 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**20  # kB


JSON = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@given(st.sampled_from([BundleConfig, PretrainingConfig]), st.data())
@settings(max_examples=60)
def test_any_values_in_place_of_a_field(kind: type[BundleConfig], data: st.DataObject) -> None:
    values = dict.fromkeys(kind.__dataclass_fields__) if kind is BundleConfig else PretrainingConfig().to_dict()
    values[data.draw(st.sampled_from(list(values)))] = data.draw(JSON)
    message = outcome(lambda: kind.from_dict(values, where="x.json"))
    assert not message or message.startswith("x.json: ")


@given(JSON)
@settings(max_examples=60)
def test_any_values_as_a_plan(values: Any) -> None:
    plan = dict.fromkeys(("arch_class_name", "spacing", "patch_size"), values)
    assert outcome(lambda: read_plan(plan, "plan", make.RESIDUAL)).startswith("plan: ")


@given(st.sampled_from([b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b""]), st.binary(max_size=400))
@settings(max_examples=60)
def test_any_bytes_as_weights(tmp_path_factory: pytest.TempPathFactory, magic: bytes, content: bytes) -> None:
    file = tmp_path_factory.mktemp("any") / "x.pt"
    file.write_bytes(magic + content)
    with pytest.raises(GenesisError, match=r"x\.pt"):
        read_weights(file)


@given(st.text("-:[]{}&*!|>'\"#%@`a1.\n\t ", max_size=80))
@settings(max_examples=100)
def test_any_text_as_front_matter(front: str) -> None:
    message = outcome(lambda: split_card(f"---\n{front}\n---\ntext", "x.md"))
    assert not message or message.startswith("x.md: ")
