"""A scan as the batch that a network takes."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from modelsgenesis.configs import BundleConfig
from modelsgenesis.data.cases import fit_to_patch, prepare_channels
from modelsgenesis.inference.cases import find_case


def preprocess(config: BundleConfig, divisor: tuple[int, ...], scan: Any, *, affine: Any = None) -> Tensor:
    """Return a scan as the batch that a network takes.

    Args:
        config: Of the model.
        divisor: What each side of an input must divide by; zeros are added at the end of each axis.
        scan: What `find_case` takes.
        affine: Of an array; see `loaded_scans`.

    Returns:
        float32 [1, channels, *spatial]; of a volume for a network of two dimensions [slices, channels, *plane].

    Raises:
        ScanError: The scan cannot be used.
        ConfigurationError: There are several scans.
        DataError: There is no such file.
    """
    case = find_case(scan, config.input.channels, dims=config.input.dims, affine=affine)
    image, frame = prepare_channels([one.read() for one in case.images], config.input)
    if config.task == "classification":
        image = fit_to_patch(image, config, frame.source)
    if config.input.dims == 2 and image.ndim == 4:
        return padded(rearrange(torch.from_numpy(image), "channels x y slices -> slices channels x y"), divisor)
    return padded(torch.from_numpy(image)[None], divisor)


def padded(image: Tensor, divisor: tuple[int, ...]) -> Tensor:
    """Add zeros at the end of the last axes, so that the sides divide."""
    sides = zip(image.shape[::-1], divisor[::-1], strict=False)  # from the last axis, as `pad` counts
    return pad(image, [number for side, step in sides for number in (0, -side % step)])
