"""Figures and reports: arrays, tables and results in, PNG files and Markdown out. Charts need the extra `report`."""

from modelsgenesis.figures.charts import draw_comparison as draw_comparison
from modelsgenesis.figures.charts import draw_curve as draw_curve
from modelsgenesis.figures.pictures import draw_deformations as draw_deformations
from modelsgenesis.figures.pictures import draw_pictures as draw_pictures
from modelsgenesis.figures.pictures import draw_restorations as draw_restorations
from modelsgenesis.figures.pictures import middle_slice as middle_slice
from modelsgenesis.figures.report import comparison_report as comparison_report
