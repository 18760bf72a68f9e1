"""A random monotone map of the intensities, from a cubic Bézier curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.pretext.draws import Draws, Stream
from modelsgenesis.pretext.step import Parameters, Step, check_sides

_CURVE_POINTS = 1025
_INTERVALS = 4096  # of intensity, all of one length, so that a voxel finds its own without a search


@dataclass(frozen=True, kw_only=True)
class IntensityParameters(Parameters):
    """The curve of each sample.

    Attributes:
        applied: bool [b]; the others keep their intensities.
        control: float32 [b, 2, 2], the two control points as (abscissa, ordinate) in the unit square.
        increasing: bool [b]; a decreasing map starts at 1 and ends at 0.
    """

    applied: Tensor
    control: Tensor
    increasing: Tensor


class Intensity(Step[IntensityParameters]):
    """Maps intensities by a cubic Bézier curve with random control points, upwards or downwards.

    The curve goes from (0, 0) to (1, 1). With control points in the unit square both its coordinates rise, so
    there is nothing to sort: the increasing map takes x(t) to y(t), the decreasing one x(t) to y(1 − t). The
    target keeps its intensities.

    Example:
        >>> deformed, target = Intensity()(torch.rand(2, 1, 8, 8, 4), torch.tensor([1, 2]))
        >>> deformed.shape
        torch.Size([2, 1, 8, 8, 4])

    References:
        Zhou et al. 2021, non-linear intensity transformation.
    """

    def sample(
        self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None
    ) -> IntensityParameters:
        """Draw the curves; see `Step.sample`."""
        check_sides(shape)
        draws = Draws(seeds.to(device), Stream.INTENSITY, 6)
        applied, direction = draws.uniform(2).unbind(dim=1)
        return IntensityParameters(
            drawn_for=(len(seeds), *shape),
            applied=applied < self.config.intensity_probability,
            control=draws.uniform(2, 2),
            increasing=direction < 0.5,
        )

    def transform(self, batch: Tensor, parameters: IntensityParameters) -> tuple[Tensor, Tensor]:
        """Map the intensities of the deformed batch; see `Step.apply`."""
        intercepts, slopes = intensity_lines(parameters)
        values = batch.float().flatten(1)
        line = (values * _INTERVALS).int()
        line += torch.arange(len(batch), dtype=torch.int32, device=batch.device)[:, None] * slopes.shape[1]
        mapped = intercepts.view(-1).index_select(0, line.view(-1))
        mapped.addcmul_(slopes.view(-1).index_select(0, line.view(-1)), values.view(-1))
        return mapped.clamp_(0, 1).view(batch.shape).to(batch.dtype), batch  # rounding could leave [0, 1]


def intensity_lines(parameters: IntensityParameters) -> tuple[Tensor, Tensor]:
    """Return the map of each sample as a straight line over each of many even intervals of intensity.

    Returns:
        Intercepts and slopes, float32 [b, intervals + 1]; the last is for the intensity 1 alone. Those of a
        sample to which no map is applied are 0 and 1.
    """
    x, y = bezier(parameters.control)
    y = torch.where(parameters.increasing[:, None], y, y.flip(1))
    grid = torch.linspace(0, 1, _INTERVALS + 1, device=x.device)
    # How many points of the curve lie at or left of each intensity, hence which two are its neighbours.
    place = (x * _INTERVALS).ceil_().long().clamp_(max=_INTERVALS)
    passed = torch.zeros(len(x), _INTERVALS + 1, dtype=torch.int64, device=x.device)
    right = passed.scatter_add_(1, place, torch.ones_like(place)).cumsum_(dim=1).clamp_(max=_CURVE_POINTS - 1)
    x_left, x_right = x.gather(1, right - 1), x.gather(1, right)
    weight = ((x_right - grid) / (x_right - x_left).clamp_min_(1e-12)).clamp_(0, 1)  # of the left neighbour
    heights = torch.lerp(y.gather(1, right), y.gather(1, right - 1), weight)
    slopes = heights.diff(dim=1, append=2 * heights[:, -1:] - heights[:, -2:-1]) * _INTERVALS
    applied = parameters.applied[:, None]
    return torch.where(applied, heights - slopes * grid, 0.0), torch.where(applied, slopes, 1.0)


def bezier(control: Tensor) -> tuple[Tensor, Tensor]:
    """Return points along cubic Bézier curves from (0, 0) to (1, 1).

    Args:
        control: float32 [b, 2, 2], as in `IntensityParameters`.

    Returns:
        Abscissae and ordinates, each [b, points], rising from 0 to 1.
    """
    t = torch.linspace(0, 1, _CURVE_POINTS, device=control.device)
    first, second = control[..., None].unbind(dim=1)  # each [b, 2, 1]
    # Not a matrix product: that rounds differently in batches of different size.
    curve = 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    x, y = curve.unbind(dim=1)
    return x, y
