"""Pictures of restorations, deformations, scans and curves. Arrays in, PNG files out; needs the extra `report`."""

from modelsgenesis.figures.canvas import middle_slice
from modelsgenesis.figures.curves import draw_curve
from modelsgenesis.figures.pretext import draw_deformations, draw_restorations
from modelsgenesis.figures.scans import ContactRow, draw_contact_sheet, draw_segmentations

__all__ = [
    "ContactRow",
    "draw_contact_sheet",
    "draw_curve",
    "draw_deformations",
    "draw_restorations",
    "draw_segmentations",
    "middle_slice",
]
