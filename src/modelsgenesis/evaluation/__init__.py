"""Inference over whole scans; metrics, and their intervals over patients."""

from modelsgenesis.evaluation.inference import sliding_window, window_size
from modelsgenesis.evaluation.metrics import (
    CLASSIFICATION_METRICS,
    SEGMENTATION_METRICS,
    dice_per_class,
    mean_ignoring_nan,
    measure_segmentation,
)
from modelsgenesis.evaluation.ranking import auc
from modelsgenesis.evaluation.summaries import (
    Summary,
    explanations,
    flat,
    summarize_classification,
    summarize_segmentation,
)

__all__ = [
    "CLASSIFICATION_METRICS",
    "SEGMENTATION_METRICS",
    "Summary",
    "auc",
    "dice_per_class",
    "explanations",
    "flat",
    "mean_ignoring_nan",
    "measure_segmentation",
    "sliding_window",
    "summarize_classification",
    "summarize_segmentation",
    "window_size",
]
