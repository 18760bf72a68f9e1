"""Images of any size through a network, in overlapping windows that MONAI stitches.

Beside MONAI's inferer: a window of one value is computed once, the planes of a volume share their batches, and there
are as many windows in a batch as the device computes best and its memory holds.
"""

import math
from collections.abc import MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.configs import PredictionConfig
from modelsgenesis.errors import ConfigurationError, GenesisError, ShapeError, counted, require
from modelsgenesis.hardware import Hardware, free_memory, lacks_memory
from modelsgenesis.reporting import Reporter

_GROWTH, _SMALL = 100, 2**26  # a window has at most 100 times the voxels of the image, or as many as no patch has
_DEPENDENT = 4  # windows in a batch whose statistics change each other's result: one number on every machine
_FITTED: MutableMapping[nn.Module, int] = WeakKeyDictionary()  # windows that were halved to, by network
_CPU_VOXELS, _CUDA_VOXELS = 2**17, 2**22  # computed together; more gain a few percent on CUDA, cost some on a CPU
_FEATURES = 10  # float32 values that a voxel takes on the way, over the channels of the first level; 7.5 were measured


def sliding_window(
    network: nn.Module,
    image: Tensor,
    *,
    patch_size: tuple[int, ...],
    config: PredictionConfig,
    hardware: Hardware,
    reporter: Reporter | None = None,
) -> Tensor:
    """Run a network over a whole prepared image in overlapping windows, weighted towards their centres.

    Args:
        network: Maps [b, c, *window] to [b, k, *window]; put into evaluation mode by the caller.
        image: [c, *spatial] on the CPU, any size; what is smaller than a window is padded with zeros. For a window of
            two sides also [c, *plane, slices]: each slice by itself.
        patch_size: The window before it is rounded up to what the network can take.
        config: Overlap, windows at once, where to stitch.
        hardware: Where and how to compute.
        reporter: Receives a line where the memory holds fewer windows than were to be computed together.

    Returns:
        [k, *spatial] float32 where it was stitched, an inference tensor.

    Raises:
        ShapeError: The network does not take such an image.
        ConfigurationError: The window is beyond all measure, or memory does not hold what was asked for.

    Example:
        logits = sliding_window(network, image, patch_size=(64, 64, 32), config=PredictionConfig(), hardware=hardware)
    """
    from monai.data.utils import compute_importance_map
    from monai.inferers.inferer import SlidingWindowInfererAdapt

    dims, device = len(patch_size), hardware.device
    planes = dims == 2 and image.ndim == 4
    sides = f"image of shape {tuple(image.shape)}: expected [channels, {dims} spatial axes]"
    require(planes or image.ndim == dims + 1, ShapeError, sides)
    batch = rearrange(image, "channels x y slices -> slices channels x y") if planes else image[None]
    window = fit_window(patch_size, image.shape[1:], network, hardware)
    predictor = _Predictor(network, hardware, batch, window, config, reporter or Reporter())
    # Gaussian weights: near its border a window knows less of the surroundings, and its prediction counts less.
    infer = SlidingWindowInfererAdapt(
        roi_size=window,
        sw_batch_size=predictor.at_once,
        overlap=config.overlap,
        mode="gaussian",
        sw_device=device,
        # None: where the image lies; and where the memory there does not last, MONAI goes on on the CPU.
        device={"auto": None, "cpu": "cpu", "device": device}[config.stitch],
        with_coord=True,
    )
    # On the CPU: on the device its smallest weight would be waited for.
    infer.roi_weight_map = compute_importance_map(window, mode="gaussian", sigma_scale=0.125)
    with torch.inference_mode():
        try:
            result: Any = infer(batch.to(device) if config.stitch == "auto" else batch, predictor)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            shown = "×".join(map(str, window))
            held = f"{device}: its memory does not hold {counted(predictor.at_once, 'window')} of {shown}"
            fewer = "windows_at_once=1, " if predictor.at_once > 1 else ""
            remedy = "a model of smaller patches" if device.type == "cpu" else "stitch=cpu, or --device cpu"
            raise ConfigurationError(f"{held} and what is stitched there; take {fewer}{remedy}") from error
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


def windows_that_fit(network: nn.Module, window: Sequence[int], hardware: Hardware) -> int:
    """Return how many windows to compute together: what the device is fastest with, and its free memory holds."""
    voxels = math.prod(window)
    if hardware.device.type != "cuda":
        return max(2, _CPU_VOXELS // voxels)  # one alone can take slow convolutions of torch
    shape: Any = getattr(network, "config", None)
    needed = 4 * _FEATURES * (shape.unet.widths[0] if shape else 1) * voxels
    free = free_memory(hardware.device) or 0
    return max(1, min(_CUDA_VOXELS // voxels, free // 2 // needed))


class _Predictor:
    """Maps windows [b, c, *window], and their places in the image, to [b, k, *window] float32 on the device.

    Windows of the same single value, such as air around a body or zeros outside of a field of view, go through the
    network once. They are told by the image, which lies on the CPU: nothing waits for the device.
    """

    def __init__(
        self,
        network: nn.Module,
        hardware: Hardware,
        image: Tensor,
        window: tuple[int, ...],
        config: PredictionConfig,
        reporter: Reporter,
    ) -> None:
        self.network, self.hardware, self.reporter = network, hardware, reporter
        self.image = image.numpy()
        # MONAI fills with zeros what is smaller than a window, and counts places from there.
        self.is_filled = [side < least for side, least in zip(image.shape[2:], window, strict=True)]
        # The published network of 2019 normalises with the batch in evaluation, too: its windows depend on one another.
        self.are_independent = not any(
            isinstance(module, _BatchNorm)
            and (module.training or module.running_mean is None or getattr(module, "statistics", "running") == "batch")
            for module in network.modules()
        )
        if config.windows_at_once != "auto":
            self.at_once = config.windows_at_once
        elif self.are_independent:
            self.at_once = _FITTED.get(network) or windows_that_fit(network, window, hardware)
        else:
            self.at_once = _DEPENDENT
        self.known: dict[tuple[float, ...] | int, Tensor] = {}

    def __call__(self, windows: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        # A window of one value is told by its value in each channel, any other by its place in this batch.
        keys = [self._value(place) or index for index, place in enumerate(places)]
        fresh = {key: index for index, key in enumerate(keys) if key not in self.known}
        if len(fresh) == len(keys) and not any(isinstance(key, tuple) for key in keys):
            return self._forward(windows)
        done = dict(self.known)
        if fresh:
            result = self._forward(torch.stack([windows[index] for index in fresh.values()]))
            done.update(zip(fresh, result.split(1), strict=True))
        self.known.update((key, one.clone()) for key, one in done.items() if key in fresh and isinstance(key, tuple))
        return torch.cat([done[key] for key in keys])

    def _value(self, place: Sequence[slice]) -> tuple[float, ...] | None:
        """Return the value of each channel of a window that has but one, None of any other."""
        sides = [slice(None) if filled else side for side, filled in zip(place[2:], self.is_filled, strict=True)]
        region = self.image[(place[0].start, ..., *sides)]  # [c, *window]
        first, last = (region[(..., *[end] * len(sides))] for end in (0, -1))
        # Two corners tell nearly every window that has several values.
        if not self.are_independent or (first != last).any() or (any(self.is_filled) and first.any()):
            return None
        is_same = (region == first.reshape(-1, *[1] * len(sides))).all()
        return tuple(first.tolist()) if is_same else None

    def _forward(self, windows: Tensor) -> Tensor:
        """Run the network, on half as many windows at a time until the memory holds them."""
        while True:
            try:
                with self.hardware.autocast():
                    parts = [self.network(self.hardware.place(part)).float() for part in windows.split(self.at_once)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
            except RuntimeError as error:
                if not (self.are_independent and self.at_once > 1 and lacks_memory(error)):
                    raise
            self.at_once = _FITTED[self.network] = self.at_once // 2  # out of `except`, which keeps what was computed
            self.reporter.note(
                f"{self.hardware.device}: its memory did not last; now {counted(self.at_once, 'window')} at once"
            )
