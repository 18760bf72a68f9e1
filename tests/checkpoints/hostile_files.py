"""Small weights, and files that are not what they say; each function writes one and returns its path."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from modelsgenesis.checkpoints.genesis import GENESIS_TORCH
from modelsgenesis.checkpoints.plan import CONTRACT_KEY, PLAN_KEY, make_plan
from modelsgenesis.configs import GenesisUNetConfig, InputContract, ResidualUNetConfig
from modelsgenesis.networks import build_network
from tiny_bundles import write_bundle

SMALL = GenesisUNetConfig(widths=(4, 8), statistics="batch")
RESIDUAL = ResidualUNetConfig(widths=(4, 8), blocks=(1, 1))
KERNEL = "depth_0_conv/depth_0_conv/kernel:0"

Change = Callable[[dict[str, Any]], Any]


def small_state_dict(config: GenesisUNetConfig = SMALL) -> dict[str, torch.Tensor]:
    """A small network under the key names of the release."""
    weights = build_network(config).state_dict()
    return {GENESIS_TORCH.original(here, config): tensor.clone() for here, tensor in weights.items()}


class Touches:
    """Pickled, this makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (io.open, (str(self.path), "w"))


def saved(folder: Path, content: Any, *, zipped: bool = True) -> Path:
    torch.save(content, folder / "file.pt", _use_new_zipfile_serialization=zipped)
    return folder / "file.pt"


def weights(folder: Path, **changes: torch.Tensor | None) -> Path:
    """A state dict with some tensors replaced, or without them; `stem` and `bias` stand for two of them."""
    names = {"stem": "down_tr64.ops.0.conv1.weight", "bias": "up_tr64.up_conv.bias"}
    content = {**small_state_dict(), **{names.get(name, name): tensor for name, tensor in changes.items()}}
    return saved(folder, {name: tensor for name, tensor in content.items() if tensor is not None})


def written(folder: Path, content: bytes, name: str = "file.pt") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def cut(folder: Path, share: float, *, zipped: bool = True, file: Path | None = None) -> Path:
    file = file or saved(folder, {"state_dict": small_state_dict()}, zipped=zipped)
    os.truncate(file, int(share * file.stat().st_size))
    return file


def patched(folder: Path, after: bytes, offset: int, bits: int) -> Path:
    """Some bits of one byte are others, so far behind the first place of some others."""
    content = bytearray(saved(folder, small_state_dict()).read_bytes())
    content[content.find(after) + offset] ^= bits
    return written(folder, bytes(content))


def zipped(folder: Path, pickled: bytes, *, kind: int = zipfile.ZIP_STORED, names: tuple[str, ...] = ()) -> Path:
    """A zip file as `torch.save` writes it, round any pickle."""
    with zipfile.ZipFile(folder / "file.pt", "w", kind) as archive:
        for name in ("a/data.pkl", *names):
            archive.writestr(name, pickled)
        archive.writestr("a/version", b"3\n")
    return folder / "file.pt"


def legacy_without_data(folder: Path) -> Path:
    """The format of 2019, whose storages claim 40 GB."""
    file = saved(folder, {"w": torch.zeros(7)}, zipped=False)
    return written(folder, file.read_bytes().replace(struct.pack("<q", 7), struct.pack("<q", 10**10)))


def shared_lists() -> list[Any]:
    """A hundred bytes of a pickle, a billion values."""
    made: list[Any] = [1] * 10
    for _ in range(8):
        made = [made] * 10
    return made


def plan_of(**pretraining: Any) -> dict[str, Any]:
    contract = InputContract(modality="mri", intensity="zscore", spacing=(1.0, 1.0, 1.0), orientation="SPL")
    plan = make_plan(RESIDUAL, contract, (16, 16, 16))
    plan.pop(CONTRACT_KEY)
    plan["pretrain_plan"].update(pretraining)
    return plan


def openmind(folder: Path, plan: Any, *, inside: bool = False, **more: torch.Tensor) -> Path:
    """A checkpoint of the OpenMind format with a plan in it or, as text or values, beside it."""
    content = {"network_weights": {**build_network(RESIDUAL).state_dict(), **more}}
    if inside:
        return saved(folder, {**content, PLAN_KEY: plan})
    (folder / "adaptation_plan.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return saved(folder, content)


def keras(folder: Path, fill: Callable[[Any], object]) -> Path:
    with h5py.File(folder / "file.h5", "w") as file:
        file.create_dataset("pad", data=np.zeros(10_000, np.uint8))
        fill(file)
    return folder / "file.h5"


def array(*arguments: Any, **options: Any) -> Callable[[Any], object]:
    return lambda file: file.create_dataset(KERNEL, *arguments, **options)


def linked(folder: Path) -> Path:
    """The weights are a link to another file of this machine, beside one to a FIFO and one to the file itself."""
    with h5py.File(folder / "secret.h5", "w") as file:
        file.create_dataset(KERNEL, data=np.zeros((3, 3, 3, 1, 2), np.float32))

    def fill(file: Any) -> None:
        file["model_weights"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
        file["waits"] = h5py.ExternalLink(str(fifo(folder, "fifo.h5")), "/")
        file["soft"] = h5py.SoftLink("/pad")

    return keras(folder, fill)


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(100,), dtype="f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", shape=(100,))
    file.create_virtual_dataset(KERNEL, layout)


def loop(file: Any) -> None:
    file.create_group("a")["a"] = file["/"]


def fifo(folder: Path, name: str) -> Path:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    return folder / name


def bundle(folder: Path, change: Change = dict, card: bytes = b"# Card\n") -> Path:
    """A segmentation bundle whose `config.json` was changed; the change may return text instead."""
    path = write_bundle(folder / "bundle") / "config.json"
    values = json.loads(path.read_text())
    text = change(values)
    path.write_text(text if isinstance(text, str) else json.dumps(values))
    (path.parent / "README.md").write_bytes(card)
    return path.parent


def give(part: str = "", **values: Any) -> Change:
    """What changes values of a configuration, or of one mapping in it."""
    return lambda config: (config[part] if part else config).update(values)


def replaced(old: str, new: str) -> Change:
    return lambda config: json.dumps(config).replace(old, new)


def safetensors(folder: Path, change: Change) -> Path:
    """A bundle whose header of weights was changed; the change may return bytes instead of all of it."""
    made = bundle(folder)
    path = made / "model.safetensors"
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    forged, text = change(header), json.dumps(header).encode()
    sound = struct.pack("<Q", len(text)) + text + content[end:]
    path.write_bytes(forged if isinstance(forged, bytes) else sound)
    return made


def tensors(folder: Path, change: Change) -> Path:
    """A bundle whose weights were changed, soundly written."""
    made = bundle(folder)
    values = {name: tensor.clone() for name, tensor in load_file(made / "model.safetensors").items()}
    change(values)
    save_file(values, made / "model.safetensors")
    return made


EVAL = b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001+1\x85R."
# Of a few bytes: depth, smuggled attributes, and what fills the memory; each with what is said of it.
PICKLES = {
    "nested": (b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 300_000 + b"K\x01" + b"s" * 300_000 + b".", "64 levels"),
    "items": (b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsX\x01\x00\x00\x00xsb.", "no tensors"),
    "hex": (
        b"\x80\x02c_codecs\nencode\nq\x00" + b"h\x00" * 59 + b"C\x40" + b"x" * 64 + b"X\3\0\0\0hex\x86R" * 60 + b".",
        "no tensors",
    ),
    "bytearray": (b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.", "no tensors"),
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "no tensors"),
    "sets": (b"\x80\x04" + b"\x8f" * 5_000_000 + b".", "larger than that of any state dict"),
    "long": (
        b"\x80\x02](X\x00\x00\x20\x00" + "é".encode() * 0x100000 + b"q\x00" + b"h\x00" * 500_000 + b"e.",
        "1,000,000 values",
    ),
    "number": (pickle.dumps({"state_dict": {"x": 10**100_000}}, 2), "a number of 332,193 bits"),
    "shared": (pickle.dumps(shared_lists(), 2), "1,000,000 values"),
}
