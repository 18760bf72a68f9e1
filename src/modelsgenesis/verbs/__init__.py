"""The main jobs, each one function: what the package root offers and the command line calls.

This is the only room where names become weights, weights become runs, and runs go to the Hub.
"""

from modelsgenesis.verbs.comparison import Comparison, compare, describe_comparison
from modelsgenesis.verbs.evaluation import Evaluation, MeasuringOptions, evaluate
from modelsgenesis.verbs.finetuning import default_finetuning, finetune, read_measurements, read_task
from modelsgenesis.verbs.prediction import Prediction, Predictions, predict, predict_all

__all__ = [
    "Comparison",
    "Evaluation",
    "MeasuringOptions",
    "Prediction",
    "Predictions",
    "compare",
    "default_finetuning",
    "describe_comparison",
    "evaluate",
    "finetune",
    "predict",
    "predict_all",
    "read_measurements",
    "read_task",
]
