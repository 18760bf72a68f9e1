"""The main jobs, each one function: what the package root offers and the command line calls.

This is the only room where names become weights, weights become runs, and runs go to the Hub.
"""

from modelsgenesis.verbs.comparison import Comparison, compare, describe_comparison
from modelsgenesis.verbs.evaluation import Evaluation, MeasuringOptions, evaluate
from modelsgenesis.verbs.inspection import Inspection, ScanSummary, inspect_scans, preview
from modelsgenesis.verbs.prediction import Prediction, Predictions, predict, predict_all

__all__ = [
    "Comparison",
    "Evaluation",
    "Inspection",
    "MeasuringOptions",
    "Prediction",
    "Predictions",
    "ScanSummary",
    "compare",
    "describe_comparison",
    "evaluate",
    "inspect_scans",
    "predict",
    "predict_all",
    "preview",
]
