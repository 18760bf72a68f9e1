"""The four deformations and their composition: a batch in [0, 1] and a seed per sample become pairs."""

from modelsgenesis.pretext.deformations import Deformation, Flip, Intensity, Painting
from modelsgenesis.pretext.random import draw_seeds
from modelsgenesis.pretext.shuffling import Shuffling

__all__ = ["Deformation", "Flip", "Intensity", "Painting", "Shuffling", "draw_seeds"]
