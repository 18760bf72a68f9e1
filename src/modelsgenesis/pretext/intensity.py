"""A random monotone map of the intensities, from a cubic Bézier curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.pretext.draws import Draws
from modelsgenesis.pretext.step import Step, check_sides

_CURVE_POINTS = 1025
_INTERVALS = 4096  # of intensity, even, so that a voxel finds its own without a search


@dataclass(frozen=True)
class IntensityParameters:
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
    """Maps intensities by a cubic Bézier curve from (0, 0) to (1, 1) with random control points, upwards or downwards.

    The target keeps its intensities.

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
        """Draw a curve per sample; see `Step.sample`."""
        check_sides(shape)
        draws = Draws(seeds.to(device), stream=3)
        coins = draws.uniform(2)
        return IntensityParameters(
            applied=coins[:, 0] < self.config.intensity_probability,
            control=draws.uniform(2, 2),
            increasing=coins[:, 1] < 0.5,
        )

    def transform(self, batch: Tensor, parameters: IntensityParameters) -> tuple[Tensor, Tensor]:
        """Map the intensities of the deformed batch; see `Step.apply`."""
        intercepts, slopes = (line.view(-1) for line in intensity_lines(parameters))
        values = batch.float().flatten(1)
        index = (values * _INTERVALS).int()
        index += torch.arange(0, len(slopes), _INTERVALS + 1, dtype=torch.int32, device=batch.device)[:, None]
        index = index.view(-1)
        mapped, slope = intercepts.index_select(0, index), slopes.index_select(0, index)
        mapped.addcmul_(slope, values.view(-1)).clamp_(0, 1)  # rounding could leave [0, 1]
        return mapped.view(batch.shape).to(batch.dtype), batch


def intensity_lines(parameters: IntensityParameters) -> tuple[Tensor, Tensor]:
    """Return the map of each sample as straight lines over even intervals of intensity.

    With control points in the unit square both coordinates rise along the curve, so there is nothing to sort:
    the increasing map takes x(t) to y(t), the decreasing one x(t) to y(1 − t). A sample without a map keeps
    the identity.

    Returns:
        Intercepts and slopes, float32 [b, intervals + 1]; the last of each is for the intensity 1 alone.
    """
    x, y = bezier(parameters.control)
    y = torch.where(parameters.increasing[:, None], y, y.flip(1))
    grid = torch.linspace(0, 1, _INTERVALS + 1, device=x.device)
    right_of = (
        (x * _INTERVALS).ceil_().long().clamp_(max=_INTERVALS)
    )  # the first grid point not left of a curve point
    passed = torch.zeros(len(x), _INTERVALS + 1, dtype=torch.int64, device=x.device)
    passed.scatter_add_(1, right_of, torch.ones_like(right_of))
    right = passed.cumsum_(dim=1).clamp_(max=_CURVE_POINTS - 1)  # the first curve point right of a grid point
    x_left, x_right = x.gather(1, right - 1), x.gather(1, right)
    weight = ((grid - x_left) / (x_right - x_left).clamp_min_(1e-12)).clamp_(0, 1)
    heights = torch.lerp(y.gather(1, right - 1), y.gather(1, right), weight)
    slopes = heights.diff(dim=1) * _INTERVALS
    slopes = torch.cat([slopes, slopes[:, -1:]], dim=1)
    applied = parameters.applied[:, None]
    return torch.where(applied, heights - slopes * grid, 0.0), torch.where(applied, slopes, 1.0)


def bezier(control: Tensor) -> tuple[Tensor, Tensor]:
    """Return points along the cubic Bézier curves from (0, 0) to (1, 1): [b, 2, 2] to abscissae, ordinates [b, points].

    References:
        Zhou et al. 2021, equation 2.
    """
    t = torch.linspace(0, 1, _CURVE_POINTS, device=control.device)
    first, second = control[..., None].unbind(dim=1)  # each [b, 2, 1]
    curve = (
        3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    )  # no matrix product: it rounds by batch
    x, y = curve.unbind(dim=1)
    return x, y
