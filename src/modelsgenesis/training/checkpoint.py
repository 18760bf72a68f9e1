"""Checkpoints: everything that a resume needs, in a file that ends in a digest of itself."""

import hashlib
import io
import mmap
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsgenesis._version import __version__
from modelsgenesis.errors import TrainingError
from modelsgenesis.files import open_regular, parsing, replacing

_DIGEST = hashlib.sha256().digest_size


def write_checkpoint(path: Path, before: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training and keep the one before; at every moment one of the two files is whole.

    Raises:
        CheckpointError: The disk is full; the checkpoint before is intact.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            # PyTorch does not compare the checksums of its archive, so that a flipped bit would be another weight;
            # but it passes over whatever follows the archive.
            file.write(hashlib.sha256(content.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())  # before the one that is there gives way
        if path.exists():
            path.replace(before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that `write_checkpoint` wrote, compared with its digest.

    Raises:
        TrainingError: It is damaged, or from a version that wrote no digest.
    """
    with open_regular(path, TrainingError) as file, parsing(path, TrainingError):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
                raise TrainingError(f"{path}: does not match its digest: damaged, or of version 0.1.0")
        return torch.load(file, map_location="cpu", weights_only=True)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of PyTorch's global generators, from which dropout draws.

    Everything else that is random draws from a generator of its own, seeded by what it is for.
    """
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put PyTorch's global generators into the states that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def library_versions(device: torch.device) -> dict[str, str]:
    """Return what a result to the bit depends on besides the configuration: versions, and the kind of device."""
    return {
        "modelsgenesis": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": device.type,
    }
