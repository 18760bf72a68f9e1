"""The four deformations and their composition: a batch in [0, 1] and a seed per sample become pairs."""

from modelsgenesis.pretext.composition import Deformation, DeformationParameters
from modelsgenesis.pretext.draws import draw_seeds
from modelsgenesis.pretext.flip import Flip, FlipParameters
from modelsgenesis.pretext.intensity import Intensity, IntensityParameters
from modelsgenesis.pretext.painting import Painting, PaintingParameters
from modelsgenesis.pretext.shuffling import Shuffling, ShufflingParameters

__all__ = [
    "Deformation",
    "DeformationParameters",
    "Flip",
    "FlipParameters",
    "Intensity",
    "IntensityParameters",
    "Painting",
    "PaintingParameters",
    "Shuffling",
    "ShufflingParameters",
    "draw_seeds",
]
