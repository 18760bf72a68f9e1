"""Images of any size through a network, in overlapping windows that MONAI stitches.

Beside MONAI's inferer: a window of one value is computed once, and the planes of a volume share their batches.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.configs import PredictionConfig
from modelsgenesis.errors import ConfigurationError, GenesisError, ShapeError, require
from modelsgenesis.hardware import Hardware, free_memory

_GROWTH, _SMALL = 100, 2**26  # a window has at most 100 times the voxels of the image, or as many as no patch has


def sliding_window(
    network: nn.Module, image: Tensor, *, patch_size: tuple[int, ...], config: PredictionConfig, hardware: Hardware
) -> Tensor:
    """Run a network over a whole prepared image in overlapping windows, weighted towards their centres.

    Args:
        network: Maps [b, c, *window] to [b, k, *window]; put into evaluation mode by the caller.
        image: [c, *spatial], any size; what is smaller than a window is padded with zeros. For a window of two sides
            also [c, *plane, slices]: each slice by itself.
        patch_size: The window before it is rounded up to what the network can take.
        config: Overlap, windows at once, where to stitch.
        hardware: Where and how to compute.

    Returns:
        [k, *spatial] float32 on the CPU, an inference tensor.

    Raises:
        ShapeError: The network does not take such an image.
        ConfigurationError: The window is beyond all measure, or memory does not hold what was asked for.

    Example:
        logits = sliding_window(network, image, patch_size=(64, 64, 32), config=PredictionConfig(), hardware=hardware)
    """
    from monai.inferers.inferer import SlidingWindowInfererAdapt

    dims, device = len(patch_size), hardware.device
    planes = dims == 2 and image.ndim == 4
    sides = f"image of shape {tuple(image.shape)}: expected [channels, {dims} spatial axes]"
    require(planes or image.ndim == dims + 1, ShapeError, sides)
    batch = rearrange(image, "channels x y slices -> slices channels x y") if planes else image[None]
    window = fit_window(patch_size, image.shape[1:], network, hardware)
    # Gaussian weights: near its border a window knows less of the surroundings, and its prediction counts less.
    infer = SlidingWindowInfererAdapt(
        roi_size=window,
        sw_batch_size=config.windows_at_once,
        overlap=config.overlap,
        mode="gaussian",
        sw_device=device,
        # None: where the image lies; and where the memory there does not last, MONAI goes on on the CPU.
        device={"auto": None, "cpu": "cpu", "device": device}[config.stitch],
    )
    with torch.inference_mode():
        try:
            result: Any = infer(batch.to(device) if config.stitch == "auto" else batch, _predictor(network, hardware))
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):  # of the CPU
                raise
            shown = "×".join(map(str, window))
            raise ConfigurationError(
                f"{device}: its memory does not hold {config.windows_at_once} windows of {shown} and what is "
                "stitched there; ask for stitching on the cpu, or for 1 window at once"
            ) from error
        result = result.cpu()
        return rearrange(result, "slices classes x y -> classes x y slices") if planes else result[0]


def fit_window(
    patch_size: Sequence[int], image: Sequence[int], network: nn.Module, hardware: Hardware
) -> tuple[int, ...]:
    """Return the smallest window not below `patch_size` whose sides the network can take.

    One that no memory holds is refused before anything is computed: a model's sides may come from anybody.

    Args:
        patch_size: Sides of a patch of the training.
        image: Sides of the image.
        network: What would see it.
        hardware: Where.

    Raises:
        ConfigurationError: It is larger than an image and a patch of training can be, or than the free memory.
    """
    divisor: Any = network.size_divisor
    window = tuple(-(-side // step) * step for side, step in zip(patch_size, divisor, strict=True))
    voxels, remedy = math.prod(window), "a smaller patch_size in the model's config.json"
    shown, seen = ("×".join(map(str, sides)) for sides in (window, image))
    if voxels > max(_GROWTH * math.prod(image), _SMALL):
        raise ConfigurationError(f"patch_size: windows of {shown} for an image of {seen} voxels; take {remedy}")
    # A lower bound: the input and the first level alone. What it lets through may still be too much.
    shape: Any = getattr(network, "config", None)
    features = shape.unet.widths[0] if shape else 1
    least = 4 * voxels * (1 + features)  # float32: the image, its first features
    check_memory(least, hardware.device, ConfigurationError, f"patch_size: a window of {shown}", remedy)
    return window


def check_memory(least: float, device: torch.device, error: type[GenesisError], what: str, remedy: str) -> None:
    """Raise an error where memory does not hold at least so many bytes."""
    free = free_memory(device)
    if free is not None and least > free:
        have = f"{max(free, 0) / 1e9:.1f} GB are free; take {remedy}, or a machine with more memory"
        raise error(f"{what} takes more than {least / 1e9:.1f} GB, {have}")


def _predictor(network: nn.Module, hardware: Hardware) -> Callable[[Tensor], Tensor]:
    """Return a function from windows [b, c, *window] to [b, k, *window] float32 on the device.

    Windows of the same single value, such as air around a body or zeros outside of a field of view, go through the
    network once.
    """
    # The published network of 2019 normalises with the batch in evaluation, too: its windows depend on one another.
    are_independent = not any(
        isinstance(module, _BatchNorm)
        and (module.training or module.running_mean is None or getattr(module, "statistics", "running") == "batch")
        for module in network.modules()
    )
    known: dict[tuple[float, ...] | int, Tensor] = {}

    def predict(windows: Tensor) -> Tensor:
        low, high = windows.flatten(2).aminmax(dim=2)
        constant = ((low == high).all(dim=1) & are_independent).tolist()
        # A window of one value is told by its value in each channel, any other by its place in this batch.
        keys = [tuple(low[index].tolist()) if same else index for index, same in enumerate(constant)]
        fresh = {key: index for index, key in enumerate(keys) if key not in known}
        done = dict(known)
        if fresh:
            with hardware.autocast():
                result = network(hardware.place(windows[list(fresh.values())])).float()
            if not any(constant):
                return result
            done.update(zip(fresh, result.split(1), strict=True))
        known.update((key, one) for key, one in done.items() if isinstance(key, tuple))
        return torch.cat([done[key] for key in keys])

    return predict
