"""Files that are not what they say: one line, nothing run or written, no other file read, no hang, no gigabyte."""

import math
import resource
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelsgenesis.checkpoints import convert_checkpoint, load_bundle
from modelsgenesis.checkpoints.card import BEGIN, split_card
from modelsgenesis.checkpoints.plan import PLAN_NAME
from modelsgenesis.errors import CheckpointError, ConfigurationError, GenesisError, MissingExtraError

from . import hostile_files as make  # pyright: ignore[reportAttributeAccessIssue]

Make = Callable[[Path], Path]
INFINITE = float("inf")
BUNDLE_FILES = ("config.json", "model.safetensors", "README.md")
CUTS = [(share, zipped) for share in (0.01, 0.5, 0.99) for zipped in (True, False)]


def refused(read: Callable[[], object], error: type[GenesisError], word: str) -> None:
    """Read, and find one short line of the class and with the word, in little memory; a hang ends the test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=word) as caught:
        read()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kB


def not_converted(folder: Path, file: Path, error: type[GenesisError], word: str) -> None:
    """Convert as the command does, with the plan beside the file, and find nothing written."""
    before = sorted(folder.rglob("*"))
    refused(lambda: convert_checkpoint(file, folder / "out"), error, rf"({file.name}|{PLAN_NAME}): .*({word})")
    assert sorted(folder.rglob("*")) == before


# --- checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "word"),
    [
        # It would have to be run.
        (lambda d: make.saved(d, {"a": make.Touches(d / "proof")}), r"needs io\.open to be run.*; nothing was run"),
        (lambda d: make.saved(d, make.Touches(d / "proof"), zipped=False), r"needs io\.open"),
        (lambda d: make.written(d, make.EVAL), r"needs builtins\.eval"),
        (lambda d: make.saved(d, torch.nn.Linear(2, 2)), r"needs torch\.nn\.modules\.linear\.Linear"),
        # It would fill the memory.
        (lambda d: make.zipped(d, bytes(50_000_000), kind=zipfile.ZIP_DEFLATED), "unpack to 50,000,002"),
        *((partial(make.zipped, pickled=pickled), word) for pickled, word in make.PICKLES.values()),
        # It is not what it says.
        (lambda d: make.patched(d, b"file/data/0", 270, 1), "file/data/0 are not those that were written"),
        (lambda d: make.written(d, b""), "is empty"),
        (lambda d: make.written(d, b"\n<!DOCTYPE html><html>503"), "is a web page"),
        (lambda d: make.written(d, b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
        (lambda d: make.written(d, b"\x00\x01\x02\x03"), "expected a PyTorch"),
        (lambda d: d / "none.pt", "there is no such file"),
        *((write, "not a regular file") for write in (lambda d: d, lambda d: make.fifo(d, "file.pt"))),
        (lambda d: make.patched(d, b"PK\x01\x02", 8, 1), "stored as they are"),  # encrypted
        (lambda d: make.patched(d, b"PK\x01\x02", 6, 255), "zip file version"),
        (lambda d: make.zipped(d, b"", names=("a/x",)), "truncated or damaged"),
        (lambda d: make.zipped(d, b"\x80\x02}.", names=("a/data.pkl",)), "an entry twice"),
        (lambda d: make.zipped(d, b"big", names=("a/byteorder",)), "big-endian"),
        *((partial(make.cut, share=share, zipped=zipped), "truncated.*; download it") for share, zipped in CUTS),
        (make.legacy_without_data, "it ends"),
        (lambda d: make.saved(d, 3), "no tensors by name but int"),
        (lambda d: make.saved(d, torch.nn.Linear(2, 2).state_dict()), r"\(weight, bias\) are those of no format known"),
        # Its tensors are not those of the network.
        (partial(make.weights, stem=torch.zeros(1).expand(10**5, 10**5, 3, 3, 3)), "1,080,000,000,000 bytes.* has 4"),
        (partial(make.weights, stem=torch.eye(3).to_sparse()), "_rebuild_sparse_tensor to be run, expected dense"),
        (partial(make.weights, stem=torch.zeros(2, device="meta")), "_rebuild_meta_tensor"),
        (partial(make.weights, bias=torch.zeros(8, dtype=torch.complex64)), "holds torch.complex64"),
        (partial(make.weights, bias=torch.full((8,), math.pi, dtype=torch.float64)), "torch.float64.*save it as"),
        (partial(make.weights, bias=torch.full((8,), torch.nan)), r"NaN or infinite values in up_tr64\.up_conv\.bias"),
        (partial(make.weights, stem=torch.zeros(3, 1, 3, 3, 3)), r"\(3, 1, 3, 3, 3\) instead of \(2, 1, 3, 3, 3\)"),
        (partial(make.weights, **{"down_tr64.extra": torch.zeros(1)}), r"unexpected down_tr64\.extra"),
        (partial(make.weights, **dict.fromkeys("abcdefghi", torch.zeros(2**18))), "take .* save each of its own"),
        (partial(make.weights, bias=None), r"missing up_tr64\.up_conv\.bias;"),
        # A Keras file that is not what it says; attributes, of which a configuration may be large, are not even read.
        (make.linked, "no format known"),
        (partial(make.keras, fill=make.array((9,), "f4", external=[("secret", 0, 36)])), "uncompressed"),
        (partial(make.keras, fill=make.virtual), "uncompressed"),
        (partial(make.keras, fill=make.array((10,), "f4", chunks=(10**9,), maxshape=(None,))), "uncompressed"),
        (partial(make.keras, fill=make.array((10**6, 10**6), "f4", compression="gzip")), "uncompressed"),
        (partial(make.keras, fill=make.array((10**5, 10**5), "f4")), "uncompressed"),
        (partial(make.keras, fill=make.array(data=[b"x"] * 9)), "not an array of numbers"),
        (partial(make.keras, fill=lambda file: file.create_group("/".join("a" * 60))), "deeper groups"),
        (partial(make.keras, fill=make.loop), "no format known"),
        (partial(make.keras, fill=lambda file: file.attrs.create("x", np.zeros(60_000, np.uint8))), "no format known"),
        (lambda d: make.cut(d, 0.5, file=make.keras(d, make.array(data=np.zeros(3)))), "truncated or damaged"),
        # What lies beside the weights.
        (partial(make.openmind, plan=make.plan_of(patch_size=make.shared_lists()), inside=True), "1,000,000 values"),
        (partial(make.openmind, plan={"x": 1}, inside=True), "says nothing of"),
        (partial(make.openmind, plan=3, inside=True), "no nnssl_adaptation_plan"),
        (
            partial(make.openmind, plan=3, inside=True, **{"a.all_modules.0.b.c": torch.zeros(1)}),
            r"unexpected a\.conv\.b",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_foreign_file(tmp_path: Path, write: Make, word: str) -> None:
    not_converted(tmp_path, write(tmp_path), CheckpointError, word)
    assert not (tmp_path / "proof").exists()


def test_nothing_of_numpy_is_run(tmp_path: Path) -> None:
    """A dtype with a forged state crashed NumPy itself in the past; here it is not even built."""

    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            return (np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, 10**9, 0))

    file = make.saved(tmp_path, {"state_dict": make.small_state_dict(), "loss": Forged()})
    assert convert_checkpoint(file, tmp_path / "out").dropped == {"loss": "no part of the network"}


def test_tensors_that_share_their_data_are_written_each_on_its_own(tmp_path: Path) -> None:
    tied = torch.rand(8)
    file = make.weights(tmp_path, bias=tied, **{"up_tr64.ops.0.bn1.bias": tied[:4]})
    convert_checkpoint(file, tmp_path / "out")
    loaded = load_bundle(tmp_path / "out").network.state_dict()
    assert torch.equal(loaded["decoder.upsamplings.0.bias"][:4], loaded["decoder.levels.0.0.norm.bias"])


def test_keras_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    file = make.written(tmp_path, b"\x89HDF\r\n\x1a\n")
    refused(
        lambda: convert_checkpoint(file, tmp_path / "out"), MissingExtraError, r"pip install 'modelsgenesis\[keras\]'"
    )


# --- bundles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        *((lambda _, text=text: text, "cannot be read as JSON") for text in ("{", "[" * 100_000)),
        (lambda _: "[]", "expected a mapping"),
        (make.replaced('"source": {}', '"source": {"a": ' + "[" * 80 + "]" * 80 + "}"), "64 levels"),
        (make.give(netwrok={}), "netwrok: no such setting; did you mean network"),
        (make.replaced("1e-05", str(10**400)), "a number of 1,329 bits"),
        (make.replaced("1e-05", "1e999"), "Out of range float"),
        (make.give("network", kind={}), "network.*: received"),
        (make.give("network", in_channels=2**63), "in_channels: received"),
        (make.give(network={"kind": "plain_unet", "strides": [[1] * 3, [10**9] * 3]}), "strides: received 1000000000"),
        *((make.give("network", widths=widths), "widths: received") for widths in ([2**40, 2**41], 5)),
        (make.give("network", widths=[2**13, 2**14]), "not the weights of this network.* has shape"),
        (make.replaced('"spacing": null', '"spacing": [Infinity, 1, 1]'), "spacing: received"),
        (make.give("input", spacing=[1e-300] * 3), "spacing: received 1e-300, expected 0.0001 to"),
        (make.give("input", window=[-INFINITE, 1.0]), "window: received None"),
        (make.replaced('"bright"', '"\\ud800"'), "surrogates not allowed"),
        *((make.replaced("1e-05", value), "norm_epsilon") for value in ("NaN", "-Infinity", "-1.0", "1e-320", "true")),
        *(
            (make.give("input", orientation=value), "orientation: received")
            for value in ("XYZ", "", "RRR", "ras", ["R"])
        ),
        *((make.give(patch_size=value), "patch_size") for value in ([16] * 5, [-16] * 3, [0] * 3, 16, [10**6] * 3)),
        *((make.give(labels=list(value)), "labels") for value in ("", "ab", "abcd", "abb", "ab ", [1, 2, 3])),
    ],
)
def test_a_configuration(tmp_path: Path, change: make.Change, word: str) -> None:
    folder = make.bundle(tmp_path, change)
    refused(lambda: load_bundle(folder), GenesisError, rf"(config\.json|safetensors): .*{word}")


@pytest.mark.parametrize(
    ("write", "word"),
    [
        (partial(make.safetensors, change=lambda _: b""), "damaged"),
        (partial(make.safetensors, change=lambda _: b"<html>" * 9), "header too large"),
        (partial(make.safetensors, change=lambda _: (99 << 20).to_bytes(8, "little")), "header too large"),
        (
            partial(make.safetensors, change=make.give("head.bias", shape=[10**12], data_offsets=[0, 4 * 10**12])),
            "damaged",
        ),
        (partial(make.safetensors, change=make.give("head.weight", data_offsets=[0, 4])), "damaged"),
        (partial(make.safetensors, change=make.give("head.bias", dtype="I32")), "holds torch.int32"),
        (partial(make.tensors, change=lambda w: w.update({"head.bias": w["head.bias"].double() + 1e-12})), "float64"),
        (partial(make.tensors, change=lambda w: w["head.bias"].fill_(math.nan)), "NaN or infinite"),
        (partial(make.tensors, change=lambda w: w.update(x=torch.zeros(1))), "unexpected x"),
        (partial(make.tensors, change=lambda w: w.pop("head.bias")), r"missing head\.bias"),
        (partial(make.bundle, card=b"\xff\xfe\x00"), r"README\.md: cannot be read"),
        *((lambda d, name=name: make.fifo(make.bundle(d), name).parent, "not a regular file") for name in BUNDLE_FILES),
    ],
)
def test_a_file_of_a_bundle(tmp_path: Path, write: Make, word: str) -> None:
    folder = write(tmp_path)
    refused(lambda: load_bundle(folder), CheckpointError, word)


# --- plans --------------------------------------------------------------------------------------------------


IMPOSSIBLE = {  # values of a plan
    "patch_size": ([0] * 3, [0.5] * 3, [16] * 5, True, [True] * 3, [INFINITE] * 3, "abc", [10**9] * 3, {"a": 1}),
    "spacing": ([INFINITE] * 3, [1.0, 1.0], [10**400] * 3, [1, 1, 0], [1e-9] * 3),
    "normalization_schemes": (["Other"], ["ZScoreNormalization", "NoNormalization"], [["x"] * 99] * 99, 3),
}


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        *((text, "cannot be read as JSON") for text in ("[" * 100_000, "<html>")),
        ([], "holds list, expected a JSON object"),
        ({}, "says nothing of the architecture's name; it has no key"),
        *(({"arch_class_name": name}, "architecture") for name in ("PlainConvUNet", "ResEncL", "Primus", ["ResEncL"])),
        ({**make.plan_of(), make.CONTRACT_KEY: {"modality": "mri", "dims": 2, "intensity": "zscore"}}, "dims"),
        ({**make.plan_of(), make.CONTRACT_KEY: 3}, "expected a mapping"),
        *(
            (make.plan_of(**{key: value}), "patch.size|spacing|normalisation|Out of range|bits|dims")
            for key, values in IMPOSSIBLE.items()
            for value in values
        ),
    ],
)
def test_a_plan(tmp_path: Path, plan: Any, word: str) -> None:
    not_converted(tmp_path, make.openmind(tmp_path, plan), GenesisError, word)


# --- cards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("front", "word"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "an alias"),
        ("a: &a {x: 1}\nb:\n  <<: [*a, *a]", "an alias"),
        (f"a: {'[' * 50_000}", "levels|nesting"),
        ("{a: " * 10_000, "levels"),
        ("- x\n" * 100_000, "letters"),
        ("a: 1" + ":1" * 200_000, "letters"),
        ("a: " + "1" * 10_000, "digits"),
        ("a: 0x" + "f" * 10_000, "bits"),
        ("a: 1" + ":1" * 30_000, "bits"),
        ("a: !!python/object/apply:os.system [ls]", "not YAML"),
        ('a: "\\ud800"', "not YAML"),
        ("a: !!timestamp x", "front matter"),
        ("- x", "a list, expected a YAML mapping"),
    ],
)
def test_a_header_of_a_card(front: str, word: str) -> None:
    refused(lambda: split_card(f"---\n{front}\n---\ntext\n", "x.md"), ConfigurationError, rf"x\.md: .*({word})")


@pytest.mark.parametrize("text", [f"{BEGIN}\n" * 80_000, "---" + " " * 2_000_000 + "x", "---\n" + "---  x\n" * 200_000])
@pytest.mark.timeout(60)
def test_a_card_is_taken_apart_in_linear_time(text: str) -> None:
    assert split_card(text).front == {}
