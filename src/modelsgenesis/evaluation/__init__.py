"""Inference over whole scans; metrics, and their intervals over patients."""

from modelsgenesis.evaluation.answers import native_labels, native_probabilities
from modelsgenesis.evaluation.cases import Case, find_cases
from modelsgenesis.evaluation.ensembles import (
    Member,
    SoftAnswer,
    check_members,
    classify_case,
    prepare_for,
    segment_case,
    segment_prepared,
    usable_contract,
)
from modelsgenesis.evaluation.inference import segment, sliding_window, window_size
from modelsgenesis.evaluation.metrics import (
    CLASS_SEPARATOR,
    CLASSIFICATION_METRICS,
    SEGMENTATION_METRICS,
    chosen_classes,
    classification_row,
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
    "CLASS_SEPARATOR",
    "SEGMENTATION_METRICS",
    "Case",
    "Member",
    "SoftAnswer",
    "Summary",
    "auc",
    "check_members",
    "chosen_classes",
    "classification_row",
    "classify_case",
    "dice_per_class",
    "explanations",
    "find_cases",
    "flat",
    "mean_ignoring_nan",
    "measure_segmentation",
    "native_labels",
    "native_probabilities",
    "prepare_for",
    "segment",
    "segment_case",
    "segment_prepared",
    "sliding_window",
    "summarize_classification",
    "summarize_segmentation",
    "usable_contract",
    "window_size",
]
