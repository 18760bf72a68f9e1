"""The four deformations and their composition: a batch in [0, 1] and a seed per sample become pairs."""

from modelsgenesis.pretext.deformations import Deformation as Deformation
from modelsgenesis.pretext.random import draw_seeds as draw_seeds
