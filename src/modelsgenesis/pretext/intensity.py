"""A random monotone map of the intensities, from a cubic Bézier curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from modelsgenesis.pretext.draws import Draws
from modelsgenesis.pretext.step import Step, check_sides

_CURVE_POINTS = 1025  # along the curve
_TABLE_POINTS = 4097  # along the intensities, evenly spaced, so that a voxel finds its place without a search


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
        chosen = parameters.applied.nonzero()[:, 0]
        table = intensity_table(parameters.control[chosen], parameters.increasing[chosen])
        values = rearrange(batch[chosen].float(), "b ... -> b (...)")
        position = values * (_TABLE_POINTS - 1)
        index = position.long().clamp_(max=_TABLE_POINTS - 2)
        low, high = table.gather(1, index), table.gather(1, index + 1)
        mapped = torch.lerp(low, high, position - index)
        deformed = batch.clone()
        deformed[chosen] = mapped.view(-1, *batch.shape[1:]).to(batch.dtype)
        return deformed, batch


def intensity_table(control: Tensor, increasing: Tensor) -> Tensor:
    """Tabulate curves at evenly spaced intensities.

    With control points in the unit square both coordinates rise along the curve, so there is nothing to sort: the
    increasing map takes x(t) to y(t), the decreasing one x(t) to y(1 − t).

    Args:
        control: [b, 2, 2], as in `IntensityParameters`.
        increasing: bool [b].

    Returns:
        float32 [b, points], the map at 0, 1/(points − 1), …, 1.
    """
    t = torch.linspace(0, 1, _CURVE_POINTS, device=control.device)
    first, second = control.float()[..., None].unbind(dim=1)  # each [b, 2, 1]
    curve = (
        3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    )  # no matrix product: it rounds by batch
    x, y = curve.unbind(dim=1)  # each [b, curve points]
    y = torch.where(increasing[:, None], y, y.flip(1))
    grid = torch.linspace(0, 1, _TABLE_POINTS, device=control.device).repeat(len(x), 1)
    right = torch.searchsorted(x.contiguous(), grid).clamp_(1, _CURVE_POINTS - 1)
    x_left, x_right = x.gather(1, right - 1), x.gather(1, right)
    weight = ((grid - x_left) / (x_right - x_left).clamp_min(1e-12)).clamp_(0, 1)
    return torch.lerp(y.gather(1, right - 1), y.gather(1, right), weight)
