"""Checkpoints: everything that a resume needs, in a file that ends in a digest of itself."""

import hashlib
import io
import mmap
import os
import platform
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsgenesis._version import __version__
from modelsgenesis.errors import ResumeError
from modelsgenesis.files import open_regular, parsing, replacing

_DIGEST = hashlib.sha256().digest_size


def write_checkpoint(path: Path, before: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training and keep the one before; at every moment one of the two files is whole.

    The file is what `torch.save` makes of the state, and its SHA-256 after it: the archive's own checksums are not
    compared by PyTorch, and one flipped bit would be other weights. `torch.load` passes over such an end.

    Raises:
        CheckpointError: The disk is full; the checkpoint before is intact.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.write(hashlib.sha256(content.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())  # before the one that is there gives way
        if path.exists():
            path.replace(before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that `write_checkpoint` wrote, compared with its digest.

    Raises:
        ResumeError: It is damaged, or from a version that wrote no digest.
    """
    with open_regular(path, ResumeError) as file, parsing(path, ResumeError):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
                raise ResumeError(f"{path}: does not match its digest: damaged, or of version 0.1.0, which wrote none")
        return torch.load(file, map_location="cpu", weights_only=True)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of every global generator of this process, in types that load without running code."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put the global generators into the states that `random_states` returned."""
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


def library_versions(device: torch.device) -> dict[str, str]:
    """Return what a result to the bit depends on besides the configuration: versions, and the kind of device."""
    return {
        "modelsgenesis": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": device.type,
    }
