"""The memory of a training step, and the largest batch or patch that fits."""

import copy
import ctypes
import gc
import os
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from modelsgenesis.configs import PretrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware, free_memory
from modelsgenesis.networks import enable_activation_checkpointing
from modelsgenesis.training.optim import Optimization

SHARE = 0.8
"""Of the memory that is free, how much a run may take: loader processes and validation need some, too."""

_PROCESS = Path("/proc/self")
_UNKNOWN = "the system does not tell its memory: set batch_size and patch_size yourself"


def available_memory(hardware: Hardware) -> int:
    """Return the bytes that this process may still take: of the device, or its share of the machine's.

    Raises:
        ConfigurationError: The system does not tell.
    """
    free = free_memory(hardware.device)
    if free is None:
        raise ConfigurationError(_UNKNOWN)
    return free if hardware.device.type == "cuda" else free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that `work` took at its peak, beyond what was in use before it.

    Raises:
        ConfigurationError: The system does not tell.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    # Let the C library give back what was freed, or a step would seem to take none of it; only glibc can.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak starts anew: see proc(5)
        before = _resident_memory("VmRSS")
        work()
        return max(_resident_memory("VmHWM") - before, 0)
    except OSError as error:
        raise ConfigurationError(_UNKNOWN) from error


def _resident_memory(name: str) -> int:
    """Return the bytes that this process has in memory now, `VmRSS`, or had at most, `VmHWM`."""
    fields = dict(line.split(":", 1) for line in (_PROCESS / "status").read_text().splitlines())
    return 1024 * int(fields[name].split()[0])


class Trial:
    """Whole training steps of a copy of a network on random input; the network itself stays as it is.

    Args:
        network: What will be trained.
        config: With its optimiser, and whether activations are computed anew.
        hardware: Where to compute.
    """

    def __init__(self, network: nn.Module, config: PretrainingConfig, hardware: Hardware) -> None:
        self.config, self.hardware = config, hardware
        self.network = hardware.place_network(copy.deepcopy(network))  # the steps change weights and averages
        if config.checkpoint_activations:
            enable_activation_checkpointing(self.network)
        self.optimization = Optimization(self.network, config, size=config.batch_size)

    def step(self, batch_size: int, patch_size: Sequence[int]) -> None:
        """Do one step."""
        shape = (batch_size, self.config.network.in_channels, *patch_size)
        batch = self.hardware.place(torch.zeros(shape))
        self.optimization.begin(0)
        with self.hardware.autocast():
            loss = functional.mse_loss(self.network(batch).float(), batch)
        loss.backward()
        self.optimization.finish(0)

    def peak(self, batch_size: int, patch_size: Sequence[int]) -> int:
        """Return the bytes that a step takes beyond the network."""
        try:
            return peak_memory(lambda: self.step(batch_size, patch_size), self.hardware.device)
        except torch.OutOfMemoryError:  # on CUDA; the kernel of a CPU would have ended the process
            return 2**62

    def growth(self) -> tuple[float, float]:
        """Return the bytes that a step with one sample takes, and those of each further sample.

        Activations are nearly all of it, and they grow by the voxel: two steps tell those of any batch or patch.
        """
        patch = self.config.patch_size
        self.peak(1, patch)  # the first step takes what stays: threads, plans of convolutions
        one, two = self.peak(1, patch), self.peak(2, patch)
        return one, max(two - one, one // 4, 1)


def largest_batch(trial: Trial, budget: int, most: int) -> int:
    """Return the most samples of the configuration's patch, up to `most`, whose step fits into a budget of bytes.

    Raises:
        ConfigurationError: Not one sample fits.
    """
    one, each = trial.growth()
    if one > budget:
        raise ConfigurationError(
            f"not one patch of {trial.config.patch_size} fits into {budget / 2**30:.1f} GiB: set patch_size smaller, "
            "or checkpoint_activations=true"
        )
    return min(1 + int((budget - one) / each), most)


def largest_patch(trial: Trial, budget: int, limits: Sequence[int]) -> tuple[int, ...]:
    """Return the largest patch whose step, with the configuration's batch, fits; sides grow evenly.

    Args:
        trial: Does the steps.
        budget: Bytes.
        limits: Voxels along each axis that every scan has.

    Raises:
        ConfigurationError: The smallest patch does not fit.
    """
    divisor, batch = cast("tuple[int, ...]", trial.network.size_divisor), trial.config.batch_size
    one, each = trial.growth()
    voxels = (budget - max(one - each, 0)) / (batch * each / prod(trial.config.patch_size))
    most = [max(side // step, 1) * step for side, step in zip(limits, divisor, strict=True)]
    patch = [min(2 * step, limit) for step, limit in zip(divisor, most, strict=True)]
    if prod(patch) > voxels:
        raise ConfigurationError(
            f"a batch of {batch} patches of {tuple(patch)} does not fit into {budget / 2**30:.1f} GiB: set "
            "batch_size smaller, or checkpoint_activations=true"
        )
    while True:
        for axis in sorted(range(len(patch)), key=patch.__getitem__):
            longer = patch[axis] + divisor[axis]
            if longer <= most[axis] and prod(patch) // patch[axis] * longer <= voxels:
                patch[axis] = longer
                break  # the shortest side that can grow has grown: look for the next one
        else:
            return tuple(patch)
