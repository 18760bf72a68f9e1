"""Implants: what does not belong to a patch, laid over it; to take it out a network has to tell it from the anatomy."""

import operator
from functools import reduce

import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext.random import Seeds, draw_words, kept, uniform

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
    axes, channels = batch.ndim - 2, batch.shape[1]
    drawn = uniform(draw_words(seeds, "implant", 2 + _MOST * (3 + 2 * axes + channels), device=batch.device))
    count = 1 + (drawn[:, 1:2] * _MOST).floor()
    is_used = (drawn[:, :1] < config.implant_probability) & (implant_numbers(batch.device) < count)
    each = drawn[:, 2:].unflatten(1, (_MOST, -1))
    radius, fade, opacity, *_ = each.unbind(dim=2)
    centre, flatness, value = each[:, :, 3:].split([axes, axes, channels], dim=2)
    largest = max(_LARGEST_RADIUS * min(batch.shape[2:]), _LEAST_RADIUS)
    radius = _LEAST_RADIUS * (largest / _LEAST_RADIUS) ** radius
    opacity = (_THINNEST + (1 - _THINNEST) * opacity) * is_used
    # Squares of the distance from the centre, in radii, are sums over the axes: [b, implants, side] of each.
    squares = []
    for axis, side in enumerate(batch.shape[2:]):
        place = torch.arange(side, device=batch.device) + 0.5 - centre[:, :, axis, None] * side
        squares.append((place / (radius * (1 - (1 - _FLATTEST) * flatness[:, :, axis]))[:, :, None]) ** 2)
    single = (1,) * axes
    slope = radius / (_HARDEST + (_SOFTEST - _HARDEST) * fade)
    # Of each implant a view that lies over the patch; the cover is half at its surface.
    reach, slope, opacity = (one.view(-1, _MOST, 1, *single) for one in (slope + 0.5, -slope, opacity))
    value = value.view(-1, _MOST, channels, *single)
    squares = [
        square.view(-1, _MOST, 1, *single[:axis], square.shape[2], *single[axis + 1 :])
        for axis, square in enumerate(squares)
    ]
    implanted = batch.float()
    for number in range(_MOST):
        distance = reduce(operator.add, (square[:, number] for square in squares)).sqrt_()
        cover = torch.addcmul(reach[:, number], distance, slope[:, number]).clamp_(0, 1).mul_(opacity[:, number])
        implanted = torch.lerp(implanted, value[:, number], cover)
    return implanted.to(batch.dtype)


@kept
def implant_numbers(device: torch.device) -> Tensor:
    """Return 0 … 7, one of each implant."""
    return torch.arange(_MOST, device=device)
