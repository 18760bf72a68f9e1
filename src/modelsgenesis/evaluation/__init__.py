"""Inference over whole scans and metrics."""

from modelsgenesis.evaluation.inference import predict_scan, sliding_window, window_size
from modelsgenesis.evaluation.metrics import dice_per_class, mean_ignoring_nan

__all__ = [
    "dice_per_class",
    "mean_ignoring_nan",
    "predict_scan",
    "sliding_window",
    "window_size",
]
