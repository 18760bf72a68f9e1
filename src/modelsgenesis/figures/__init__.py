"""Arrays and results to pictures and charts, in one palette.

Pictures of scans and patches are drawn by Pillow alone: milliseconds, so that a run can draw at each validation. Charts
are matplotlib's, which is imported when the first is drawn.
"""

from modelsgenesis.figures.charts import curve_caption as curve_caption
from modelsgenesis.figures.charts import curve_chart as curve_chart
from modelsgenesis.figures.charts import read_log as read_log
from modelsgenesis.figures.charts import save_chart as save_chart
from modelsgenesis.figures.charts import svg_of as svg_of
from modelsgenesis.figures.charts import validation_curve as validation_curve
from modelsgenesis.figures.colours import colours as colours
from modelsgenesis.figures.comparisons import comparison_caption as comparison_caption
from modelsgenesis.figures.comparisons import comparison_chart as comparison_chart
from modelsgenesis.figures.pictures import draw_pictures as draw_pictures
from modelsgenesis.figures.pictures import draw_restorations as draw_restorations
from modelsgenesis.figures.pictures import middle_slice as middle_slice
from modelsgenesis.figures.pictures import outlines as outlines
from modelsgenesis.figures.pictures import take_slice as take_slice
