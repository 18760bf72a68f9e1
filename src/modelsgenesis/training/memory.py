"""How much memory a training step takes, and the largest batch or patch that fits."""

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

_STATUS = Path("/proc/self/status")
_UNKNOWN = "the system does not tell its memory: set batch_size and patch_size yourself"


def available_memory(hardware: Hardware) -> int:
    """Return the bytes that this process may still take: of the device, or its share of the machine's.

    Raises:
        ConfigurationError: The system does not tell.
    """
    free = free_memory(hardware.device)
    if free is None:
        raise ConfigurationError(_UNKNOWN)
    share = 1 if hardware.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return free // share


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
        _STATUS.with_name("clear_refs").write_text("5")  # the peak starts anew
    except OSError as error:
        raise ConfigurationError(_UNKNOWN) from error
    before = _kilobytes(_STATUS, "VmRSS")
    work()
    return 1024 * max(_kilobytes(_STATUS, "VmHWM") - before, 0)


def _kilobytes(path: Path, name: str) -> int:
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, StopIteration) as error:
        raise ConfigurationError(_UNKNOWN) from error


class Trial:
    """Whole training steps of a copy of a network on random input; the network itself stays as it is.

    Args:
        network: What will be trained.
        config: With its optimiser, and whether activations are computed anew.
        hardware: Where.
    """

    def __init__(self, network: nn.Module, config: PretrainingConfig, hardware: Hardware) -> None:
        self.config, self.hardware = config, hardware
        self.network = hardware.place_network(copy.deepcopy(network))
        if config.checkpoint_activations:
            enable_activation_checkpointing(self.network)
        self.optimization = Optimization(self.network, config, steps=1, per_epoch=1)

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
        return peak_memory(lambda: self.step(batch_size, patch_size), self.hardware.device)

    def growth(self) -> tuple[float, float]:
        """Return the bytes that every step takes and those of each voxel of a batch, which add up linearly."""
        patch = self.config.patch_size
        self.step(1, patch)  # the first step takes what stays: threads, plans of convolutions
        one, two = self.peak(1, patch), self.peak(2, patch)
        each = max(two - one, one // 4, 1)
        return max(one - each, 0), each / prod(patch)


def largest_batch(trial: Trial, budget: int, most: int) -> int:
    """Return the most samples of the configuration's patch that fit.

    On a CPU memory grows by the sample, so that one and two of them tell; on CUDA steps are tried.

    Args:
        trial: Does the steps.
        budget: Bytes.
        most: At most so many samples.

    Raises:
        ConfigurationError: Not one sample fits.
    """
    patch = trial.config.patch_size
    if trial.hardware.device.type == "cuda":
        fits = search(lambda samples: trial.step(samples, patch), most)
    else:
        fixed, voxel = trial.growth()
        fits = min(int((budget - fixed) / (voxel * prod(patch))), most)
    if fits < 1:
        raise ConfigurationError(
            f"not one patch of {patch} fits into {budget / 2**30:.1f} GiB: set patch_size smaller, or "
            "checkpoint_activations=true"
        )
    return fits


def search(step: Callable[[int], object], most: int) -> int:
    """Return the most samples, up to `most`, with which `step` does not run out of memory; 0 if none.

    Example:
        >>> def step(samples):
        ...     if samples > 11:
        ...         raise torch.OutOfMemoryError
        >>> search(step, 100)
        11
    """
    low, high = 0, 1
    while high <= most and _fits(step, high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(low // 16, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(step, middle) else (low, middle)
    return low


def _fits(step: Callable[[int], object], samples: int) -> bool:
    try:
        step(samples)
    except torch.OutOfMemoryError:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False
    return True


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
    fixed, voxel = trial.growth()
    voxels = (budget - fixed) / (voxel * batch)
    most = [max(side // step, 1) * step for side, step in zip(limits, divisor, strict=True)]
    patch = [min(2 * step, limit) for step, limit in zip(divisor, most, strict=True)]
    if prod(patch) > voxels:
        raise ConfigurationError(
            f"a batch of {batch} patches of {tuple(patch)} does not fit into {budget / 2**30:.1f} GiB: set "
            "batch_size smaller, or checkpoint_activations=true"
        )
    return _grow(patch, most, divisor, voxels)


def _grow(patch: list[int], most: Sequence[int], divisor: Sequence[int], voxels: float) -> tuple[int, ...]:
    """Lengthen the shortest side that can be, step by step, as long as the patch has at most so many voxels.

    Example:
        >>> _grow([16, 16, 16], [64, 64, 32], [8, 8, 8], 48 * 48 * 32)
        (48, 48, 32)
    """
    for axis in sorted(range(len(patch)), key=lambda axis: patch[axis]):
        longer = [side + divisor[axis] * (axis == place) for place, side in enumerate(patch)]
        if longer[axis] <= most[axis] and prod(longer) <= voxels:
            return _grow(longer, most, divisor, voxels)
    return tuple(patch)
