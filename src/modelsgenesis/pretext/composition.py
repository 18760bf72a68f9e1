"""The four deformations in their order: flip, local shuffling, non-linear intensity, painting."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsgenesis.configs import PretextConfig
from modelsgenesis.pretext.flip import Flip, FlipParameters
from modelsgenesis.pretext.intensity import Intensity, IntensityParameters
from modelsgenesis.pretext.painting import Painting, PaintingParameters
from modelsgenesis.pretext.shuffling import Shuffling, ShufflingParameters
from modelsgenesis.pretext.step import Parameters, Step


@dataclass(frozen=True, kw_only=True)
class DeformationParameters(Parameters):
    """All that is random in the deformation of a batch."""

    flip: FlipParameters
    shuffling: ShufflingParameters
    intensity: IntensityParameters
    painting: PaintingParameters


class Deformation(Step[DeformationParameters]):
    """Makes pairs to learn from: the deformed sub-volume and the (flipped) one that a network restores.

    Args:
        config: Probabilities and sizes; see `modelsgenesis.configs.scheme` for those of the paper's ablation.

    Example:
        >>> from modelsgenesis.configs import scheme
        >>> from modelsgenesis.pretext import draw_seeds
        >>> deform = Deformation(scheme("V"))
        >>> y = torch.rand(2, 1, 32, 32, 16)
        >>> seeds = draw_seeds(2, torch.Generator().manual_seed(0))
        >>> x, target = deform(y, seeds)
        >>> parameters = deform.sample(y.shape[2:], seeds)  # the same, to look at or to apply again
        >>> torch.equal(deform.apply(y, parameters)[0], x)
        True

    References:
        Zhou et al., Models Genesis, Medical Image Analysis 67, 2021, section 3.
    """

    def __init__(self, config: PretextConfig | None = None) -> None:
        super().__init__(config)
        self.flip = Flip(self.config)
        self.shuffling = Shuffling(self.config)
        self.intensity = Intensity(self.config)
        self.painting = Painting(self.config)

    def sample(
        self, shape: Sequence[int], seeds: Tensor, device: torch.device | str | None = None
    ) -> DeformationParameters:
        """Draw the parameters of all four; each draws what it would draw alone; see `Step.sample`."""
        return DeformationParameters(
            drawn_for=(len(seeds), *shape),
            flip=self.flip.sample(shape, seeds, device),
            shuffling=self.shuffling.sample(shape, seeds, device),
            intensity=self.intensity.sample(shape, seeds, device),
            painting=self.painting.sample(shape, seeds, device),
        )

    def transform(self, batch: Tensor, parameters: DeformationParameters) -> tuple[Tensor, Tensor]:
        """Apply the four in turn; see `Step.apply`."""
        deformed, target = self.flip.transform(batch, parameters.flip)
        deformed, _ = self.shuffling.transform(deformed, parameters.shuffling)
        deformed, _ = self.intensity.transform(deformed, parameters.intensity)
        deformed, _ = self.painting.transform(deformed, parameters.painting)
        return deformed, target
