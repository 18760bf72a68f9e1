"""Whole scans through a network: sliding windows, and the answer in the scan's own geometry."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modelsgenesis.configs import BundleConfig
from modelsgenesis.data import Geometry, PreparedVolume, check_same_grid, prepare, read_volume, to_native
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.hardware import Hardware

_WINDOWS_AT_ONCE = 4


def window_size(patch_size: tuple[int, ...], divisor: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest window not below `patch_size` whose sides the network can take.

    Example:
        >>> window_size((40, 56, 37), (8, 8, 8))
        (40, 56, 40)
    """
    return tuple(-(-side // step) * step for side, step in zip(patch_size, divisor, strict=True))


def sliding_window(
    network: nn.Module, image: Tensor, *, patch_size: tuple[int, ...], overlap: float, hardware: Hardware
) -> Tensor:
    """Run a network over a whole prepared image in overlapping windows, weighted towards their centres.

    Args:
        network: Maps [b, c, *window] to [b, k, *window]; put into evaluation mode by the caller.
        image: [c, *spatial], any size; what is smaller than a window is padded with zeros.
        patch_size: The window before it is rounded up to what the network can take.
        overlap: Of neighbouring windows, 0 to below 1.
        hardware: Where and how to compute.

    Returns:
        [k, *spatial] float32 on the CPU, where the windows are put together: a scan need not fit the device.

    Raises:
        ShapeError: The image has other axes than the window.
    """
    from monai.inferers.utils import sliding_window_inference

    if image.ndim != len(patch_size) + 1:
        raise ShapeError(f"image of shape {tuple(image.shape)}: expected [channels, {len(patch_size)} spatial axes]")

    def predict(windows: Tensor) -> Tensor:
        with hardware.autocast():
            return network(hardware.place(windows)).float()

    with torch.no_grad():
        result = sliding_window_inference(
            image[None],
            roi_size=window_size(patch_size, network.divisor),  # pyright: ignore[reportArgumentType, reportCallIssue]
            sw_batch_size=_WINDOWS_AT_ONCE,
            predictor=predict,
            overlap=overlap,
            mode="gaussian",
            sw_device=hardware.device,
            device="cpu",
        )
    return result[0]  # pyright: ignore[reportArgumentType, reportIndexIssue, reportReturnType, reportCallIssue]


def predict_probabilities(
    network: nn.Module,
    config: BundleConfig,
    channels: list[PreparedVolume],
    *,
    overlap: float,
    hardware: Hardware,
) -> np.ndarray:
    """Return the class probabilities of a prepared scan in its prepared frame.

    Args:
        network: A segmentation network.
        config: Its bundle's configuration.
        channels: One prepared volume a channel.
        overlap: Of neighbouring windows.
        hardware: Where and how to compute.

    Returns:
        [classes, *spatial] float32.
    """
    image = torch.from_numpy(np.stack([volume.array for volume in channels]))
    logits = sliding_window(network, image, patch_size=config.patch_size, overlap=overlap, hardware=hardware)
    return torch.softmax(logits, dim=0).numpy()


def predict_scan(
    network: nn.Module,
    config: BundleConfig,
    paths: list[str | Path],
    *,
    overlap: float = 0.5,
    hardware: Hardware,
) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Segment a scan.

    Args:
        network: A segmentation network on the hardware's device.
        config: Its bundle's configuration: input contract, labels, patch size.
        paths: One file a channel.
        overlap: Of neighbouring windows.
        hardware: Where and how to compute.

    Returns:
        Labels, uint8 [*spatial], and probabilities, float32 [classes, *spatial], both in the scan's own shape and
        orientation; and the geometry that an answer carries.

    Raises:
        ConfigurationError: The model does not segment, or the number of files is not its number of channels.
        ScanError: A file cannot be read or used.
    """
    if config.task != "segmentation":
        raise ConfigurationError(f"the model is for {config.task}: prediction needs one fine-tuned with --task seg")
    if len(paths) != len(config.input.channels):
        raise ConfigurationError(
            f"received {len(paths)} files, expected {len(config.input.channels)}: {', '.join(config.input.channels)}"
        )
    scans = [read_volume(path) for path in paths]
    for scan in scans[1:]:
        check_same_grid(scans[0], scan)
    channels = [prepare(scan, config.input) for scan in scans]
    probabilities = predict_probabilities(network, config, channels, overlap=overlap, hardware=hardware)
    native = to_native(probabilities, channels[0], order=1)
    return native.argmax(axis=0).astype(np.uint8), native, scans[0].geometry
