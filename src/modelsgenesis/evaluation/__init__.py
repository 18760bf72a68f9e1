"""Inference over whole scans; metrics, and their intervals over patients."""

from modelsgenesis.evaluation.bootstrap import Interval, interval, intervals
from modelsgenesis.evaluation.inference import predict_scan, segment, sliding_window, window_size
from modelsgenesis.evaluation.metrics import (
    CLASSIFICATION_METRICS,
    SEGMENTATION_METRICS,
    auc,
    average_precision,
    dice_per_class,
    hausdorff95_per_class,
    iou_per_class,
    mean_ignoring_nan,
    measure_segmentation,
)
from modelsgenesis.evaluation.summaries import Summary, flat, summarize_classification, summarize_segmentation

__all__ = [
    "CLASSIFICATION_METRICS",
    "SEGMENTATION_METRICS",
    "Interval",
    "Summary",
    "auc",
    "average_precision",
    "dice_per_class",
    "flat",
    "hausdorff95_per_class",
    "interval",
    "intervals",
    "iou_per_class",
    "mean_ignoring_nan",
    "measure_segmentation",
    "predict_scan",
    "segment",
    "sliding_window",
    "summarize_classification",
    "summarize_segmentation",
    "window_size",
]
