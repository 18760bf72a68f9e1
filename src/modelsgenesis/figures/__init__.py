"""Arrays and results to pictures and charts, in one palette.

Pictures of scans and patches are drawn by Pillow alone: milliseconds, so that a run can draw at each validation. Charts
are matplotlib's, which is imported when the first is drawn.
"""

from modelsgenesis.figures.pictures import draw_pictures as draw_pictures
from modelsgenesis.figures.pictures import middle_slice as middle_slice
