"""What a checkpoint holds besides weights and optimiser: the random states, the place in the data, versions."""

import platform
import random
from typing import Any

import numpy as np
import torch

from modelsgenesis._version import __version__


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


def surroundings(device: torch.device) -> dict[str, str]:
    """Return what a result to the bit depends on besides the configuration: versions, and the kind of device."""
    return {
        "modelsgenesis": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": device.type,
    }


def changed_surroundings(before: dict[str, str], device: torch.device) -> list[str]:
    """Return what differs from the surroundings of a checkpoint, a phrase each."""
    now = surroundings(device)
    return [f"{name} was {before[name]}, now {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
