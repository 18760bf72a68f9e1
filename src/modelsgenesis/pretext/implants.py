"""Implants: what does not belong to a patch, laid over it; to take it out a network has to tell it from the anatomy."""

import operator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext.random import Seeds, constant, draw_words, kept, uniform

_MOST = 8
_LEAST_RADIUS, _LARGEST_RADIUS = 1.5, 0.22  # voxels; share of the shortest side
_FLATTEST = 0.5  # an axis of an ellipsoid beside its longest
_SOFTEST, _HARDEST = 4.0, 1.2  # voxels over which a border fades
_THINNEST = 0.5  # opacity


def implant(batch: Tensor, seeds: Seeds, config: PretextConfig) -> Tensor:
    """Lay 1 to 8 soft ellipsoids over a sample, each of one grey value a channel.

    Radii are log-uniform from 1.5 voxels to 0.22 of the shortest side, centres anywhere, grey values uniform in
    [0, 1], opacities uniform in [0.5, 1]. An axis is as long as the radius or down to half of it, and a border fades
    over 1.2 to 4 voxels. A later implant covers an earlier one.

    Example:
        >>> config = PretextConfig(implant_probability=1)
        >>> implanted = implant(torch.zeros(2, 1, 32, 32, 16), torch.tensor([1, 2]), config)
        >>> bool(0 < (implanted > 0).float().mean() < 1)
        True
    """
    if not config.implant_probability:
        return batch
    channels, shape = batch.shape[1], tuple(batch.shape[2:])
    drawn = draw_implants(shape, channels, seeds, config, batch.device)
    single = (1,) * len(shape)
    # Squares of the distance from the centre, in radii, are sums over the axes.
    squares = []
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=batch.device) + 0.5
        square = ((place - drawn.centre[:, :, axis, None]) / drawn.radii[:, :, axis, None]) ** 2
        squares.append(square.view(-1, _MOST, 1, *single[:axis], side, *single[axis + 1 :]))
    # A cover is half at the surface of its implant.
    slope, opacity = (one.view(-1, _MOST, 1, *single) for one in (drawn.slope, drawn.opacity))
    reach, slope, value = slope + 0.5, -slope, drawn.value.view(-1, _MOST, channels, *single)
    implanted = batch.float()
    for number in range(_MOST):
        distance = reduce(operator.add, (square[:, number] for square in squares)).sqrt_()
        cover = torch.addcmul(reach[:, number], distance, slope[:, number]).clamp_(0, 1).mul_(opacity[:, number])
        implanted = torch.lerp(implanted, value[:, number], cover)
    return implanted.to(batch.dtype)


class Implants(NamedTuple):
    """The implants of each sample.

    Attributes:
        centre: In voxels, [b, implants, axes].
        radii: In voxels along each axis, [b, implants, axes].
        slope: How steeply a border rises, from the centre outwards in radii, [b, implants].
        opacity: [b, implants]; 0 where an implant is not used.
        value: Grey values, [b, implants, channels].
    """

    centre: Tensor
    radii: Tensor
    slope: Tensor
    opacity: Tensor
    value: Tensor


def draw_implants(
    shape: tuple[int, ...], channels: int, seeds: Seeds, config: PretextConfig, device: torch.device
) -> Implants:
    """Draw the implants of each sample for patches of a shape, on a device."""
    axes = len(shape)
    drawn = uniform(draw_words(seeds, "implant", 2 + _MOST * (3 + 2 * axes + channels), device=device))
    count = 1 + (drawn[:, 1:2] * _MOST).floor()
    is_used = (drawn[:, :1] < config.implant_probability) & (implant_numbers(device) < count)
    each = drawn[:, 2:].unflatten(1, (_MOST, -1))
    size, fade, opacity, *_ = each.unbind(dim=2)
    centre, flatness, value = each[:, :, 3:].split([axes, axes, channels], dim=2)
    largest = max(_LARGEST_RADIUS * min(shape), _LEAST_RADIUS)
    radius = _LEAST_RADIUS * (largest / _LEAST_RADIUS) ** size
    return Implants(
        centre=centre * constant(shape, device),
        radii=radius[:, :, None] * (1 - (1 - _FLATTEST) * flatness),
        slope=radius / (_HARDEST + (_SOFTEST - _HARDEST) * fade),
        opacity=(_THINNEST + (1 - _THINNEST) * opacity) * is_used,
        value=value,
    )


@kept
def implant_numbers(device: torch.device) -> Tensor:
    """Return 0 … 7, one of each implant."""
    return torch.arange(_MOST, device=device)
