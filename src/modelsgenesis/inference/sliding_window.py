"""Images of any size through a network: overlapping windows put together, mirrored passes, probabilities.

The windows are MONAI's. What is saved beside it: an image that fits into one window is a single pass, a window of one
value is computed once, planes of a volume share their batches.
"""

import math
from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.configs import PredictionConfig
from modelsgenesis.configs.prediction import Stitch
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.hardware import Hardware, free_memory

_ROWS = 8  # of an image whose probabilities are computed together
_GROWTH, _SMALL = 100, 2**26  # a window has at most 100 times the voxels of the image, or as many as no patch has


def window_size(patch_size: tuple[int, ...], divisor: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest window not below `patch_size` whose sides the network can take.

    Example:
        >>> window_size((40, 56, 37), (8, 8, 8))
        (40, 56, 40)
    """
    return tuple(-(-side // step) * step for side, step in zip(patch_size, divisor, strict=True))


def sliding_window(
    network: nn.Module,
    image: Tensor,
    *,
    patch_size: tuple[int, ...],
    overlap: float,
    hardware: Hardware,
    stitch: Stitch = "auto",
    windows_at_once: int = 4,
) -> Tensor:
    """Run a network over a whole prepared image in overlapping windows, weighted towards their centres.

    Args:
        network: Maps [b, c, *window] to [b, k, *window]; put into evaluation mode by the caller.
        image: [c, *spatial], any size; what is smaller than a window is padded with zeros. For a window of two sides
            also [c, *plane, slices]: each slice by itself.
        patch_size: The window before it is rounded up to what the network can take.
        overlap: Of neighbouring windows, 0 to below 1.
        hardware: Where and how to compute.
        stitch: Where the windows are put together; see `PredictionConfig`.
        windows_at_once: That the network sees together.

    Returns:
        [k, *spatial] float32 on the CPU, an inference tensor.

    Raises:
        ShapeError: The image has other axes than the window.
        ConfigurationError: The window is beyond all measure, or memory does not hold what was asked for.

    Example:
        logits = sliding_window(network, image, patch_size=(64, 64, 32), overlap=0.5, hardware=hardware)
    """
    dims = len(patch_size)
    planes = dims == 2 and image.ndim == 4
    if image.ndim != dims + 1 and not planes:
        raise ShapeError(f"image of shape {tuple(image.shape)}: expected [channels, {dims} spatial axes]")
    batch = rearrange(image, "channels x y slices -> slices channels x y") if planes else image[None]
    window = window_size(patch_size, network.size_divisor)  # pyright: ignore[reportArgumentType]
    check_window(window, image.shape[1:], network, hardware)
    predictor = _Predictor(network, hardware)
    with torch.inference_mode():
        try:
            if all(side <= most for side, most in zip(batch.shape[2:], window, strict=True)):
                result = _single_windows(predictor, batch, window, windows_at_once)
            else:
                result = _windows(predictor, batch, window, overlap, windows_at_once, stitch)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):  # of the CPU
                raise
            raise ConfigurationError(
                f"{hardware.device}: its memory does not hold {windows_at_once} windows of "
                f"{'×'.join(map(str, window))} and what is stitched there; ask for stitching on the cpu, or for 1 "
                "window at once"
            ) from error
        return rearrange(result, "slices classes x y -> classes x y slices") if planes else result[0]


def check_window(window: Sequence[int], image: Sequence[int], network: nn.Module, hardware: Hardware) -> None:
    """Refuse a window that no memory holds, before anything is computed: a model's sides may come from anybody.

    Args:
        window: Its sides.
        image: Sides of the image.
        network: What would see it.
        hardware: Where.

    Raises:
        ConfigurationError: It is larger than an image and a patch of training can be, or than the free memory.
    """
    shown, voxels = "×".join(map(str, window)), math.prod(window)
    if voxels > max(_GROWTH * math.prod(image), _SMALL):
        raise ConfigurationError(
            f"patch_size: windows of {shown} for an image of {'×'.join(map(str, image))}; set a smaller patch_size in "
            "the model's config.json"
        )
    config = getattr(network, "config", None)
    widths = getattr(getattr(config, "encoder", config), "widths", (1,))
    least, free = 4 * voxels * (1 + widths[0]), free_memory(hardware.device)  # float32: the image, its first features
    if free is not None and least > free:
        raise ConfigurationError(
            f"patch_size: a window of {shown} takes more than {least / 1e9:.1f} GB, {max(free, 0) / 1e9:.1f} GB are "
            "free; set a smaller patch_size in the model's config.json, or take a machine with more memory"
        )


class _Predictor:
    """Calls the network on windows, once for all windows of the same single value.

    Args:
        network: Maps [b, c, *window] to [b, k, *window].
        hardware: Where and how to compute.
    """

    def __init__(self, network: nn.Module, hardware: Hardware) -> None:
        self.network, self.hardware = network, hardware
        self.independent = treats_samples_alone(network)
        self.known: dict[tuple[float, ...], Tensor] = {}
        # With one thread and one sample torch leaves oneDNN, and takes longer than for two.
        on_cpu = hardware.device.type == "cpu"
        self.doubled = self.independent and on_cpu and torch.get_num_threads() == 1

    def __call__(self, windows: Tensor) -> Tensor:
        """Map [b, c, *window] to [b, k, *window] float32 on the device."""
        if not self.independent:
            return self.run(windows)
        low, high = windows.flatten(2).aminmax(dim=2)
        constant = (low == high).all(dim=1).tolist()
        if not any(constant):
            return self.run(windows)
        values = [tuple(row) for row in low.tolist()]
        fresh = {value: index for index, value in enumerate(values) if constant[index] and value not in self.known}
        needed = sorted({*fresh.values(), *(index for index, same in enumerate(constant) if not same)})
        done = dict(zip(needed, self.run(windows[needed]).split(1), strict=True)) if needed else {}
        self.known |= {value: done[index] for value, index in fresh.items()}
        return torch.cat([self.known[value] if constant[i] else done[i] for i, value in enumerate(values)])

    def run(self, windows: Tensor) -> Tensor:
        """Call the network."""
        if len(windows) == 1 and self.doubled:
            return self.run(windows.repeat(2, *(1,) * (windows.ndim - 1)))[:1]
        with self.hardware.autocast():
            return self.network(self.hardware.place(windows)).float()


def treats_samples_alone(network: nn.Module) -> bool:
    """Tell whether a sample's output is the same whatever else is in the batch: no statistics over the batch."""
    return not any(
        isinstance(module, _BatchNorm)
        and (module.training or module.running_mean is None or getattr(module, "statistics", "running") == "batch")
        for module in network.modules()
    )


def _single_windows(predictor: _Predictor, batch: Tensor, window: tuple[int, ...], count: int) -> Tensor:
    """Return [b, k, *spatial] of images that fit into one window each: a plain pass without weights."""
    before = [(most - side) // 2 for side, most in zip(batch.shape[2:], window, strict=True)]
    after = [most - side - first for side, most, first in zip(batch.shape[2:], window, before, strict=True)]
    padding = list(chain.from_iterable(zip(reversed(before), reversed(after), strict=True)))
    inside = tuple(slice(first, first + side) for first, side in zip(before, batch.shape[2:], strict=True))
    results = [
        predictor(functional.pad(part.to(predictor.hardware.device), padding))[(..., *inside)].cpu()
        for part in batch.split(count)
    ]
    return results[0] if len(results) == 1 else torch.cat(results)


def _windows(
    predictor: _Predictor, batch: Tensor, window: tuple[int, ...], overlap: float, count: int, stitch: Stitch
) -> Tensor:
    """Return [b, k, *spatial] put together from overlapping windows with Gaussian weights."""
    from monai.inferers.inferer import SlidingWindowInfererAdapt

    device = predictor.hardware.device
    infer = SlidingWindowInfererAdapt(
        roi_size=window,
        sw_batch_size=count,
        overlap=overlap,
        mode="gaussian",
        sw_device=device,
        device={"auto": None, "cpu": "cpu", "device": device}[stitch],  # None: where the image lies, while memory lasts
    )
    result = infer(batch.to(device) if stitch == "auto" else batch, predictor)
    return result.cpu()  # pyright: ignore[reportAttributeAccessIssue]


def mirrored_passes(flips: Literal["all"] | Sequence[int], dims: int) -> list[tuple[int, ...]]:
    """Return the axes that each pass mirrors, the plain pass first.

    Args:
        flips: Axes, or all of them.
        dims: Spatial axes of the network.

    Raises:
        ShapeError: An axis is beyond the last.

    Example:
        >>> mirrored_passes((0, 2), 3)
        [(), (0,), (2,), (0, 2)]
    """
    axes = range(dims) if flips == "all" else flips
    if any(axis >= dims for axis in axes):
        raise ShapeError(f"flips along axes {tuple(axes)}: the image has {dims}, numbered from 0")
    return list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))


def segment(
    network: nn.Module,
    image: Tensor,
    *,
    patch_size: tuple[int, ...],
    config: PredictionConfig,
    hardware: Hardware,
) -> Tensor:
    """Return the class probabilities of a prepared image, the mean over its mirrored passes.

    Args:
        network: A segmentation network in evaluation mode.
        image: [c, *spatial].
        patch_size: Of the windows.
        config: Overlap, flips, where to stitch.
        hardware: Where and how to compute.

    Returns:
        [classes, *spatial] float32 on the CPU, an inference tensor; besides it, at most one more of its size is in
        memory, and only with flips.

    Raises:
        ShapeError: The image has other axes than the window, or fewer than are to be mirrored.
    """
    total: Any = None
    with torch.inference_mode():
        passes = mirrored_passes(config.flips, len(patch_size))
        for axes in passes:
            turned = [axis + 1 for axis in axes]
            logits = sliding_window(
                network,
                image.flip(turned),
                patch_size=patch_size,
                overlap=config.overlap,
                hardware=hardware,
                stitch=config.stitch,
                windows_at_once=config.windows_at_once,
            )
            soft = softmax_in_place(logits)
            if total is None:  # the plain pass
                total = soft
                continue
            for index, one in enumerate(soft):  # a class at a time: a mirrored copy of one, not of all
                total[index] += one.flip(axes)
        return total if len(passes) == 1 else total.div_(len(passes))


def softmax_in_place(logits: Tensor) -> Tensor:
    """Turn logits [classes, *spatial] into probabilities in their own memory, a few rows at a time."""
    with torch.inference_mode():
        for rows in logits.split(_ROWS, dim=1):
            rows.copy_(rows.softmax(dim=0))
        return logits
