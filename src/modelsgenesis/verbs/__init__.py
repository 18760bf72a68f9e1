"""The main jobs, each one function: what the package root offers and the command line calls.

This is the only room where names become weights, weights become runs, and runs go to the Hub.
"""

from modelsgenesis.verbs.comparison import Comparison, compare, describe_comparison
from modelsgenesis.verbs.evaluation import Evaluation, MeasuringOptions, evaluate
from modelsgenesis.verbs.prediction import Prediction, Predictions, predict, predict_all

__all__ = [
    "Comparison",
    "Evaluation",
    "MeasuringOptions",
    "Prediction",
    "Predictions",
    "compare",
    "describe_comparison",
    "evaluate",
    "predict",
    "predict_all",
]
