"""The main jobs, each one function: what the package root offers and the command line calls.

This is the only room where names become weights, weights become runs, and runs go to the Hub.
"""

from modelsgenesis.verbs.comparison import Comparison, compare, describe_comparison
from modelsgenesis.verbs.finetuning import default_finetuning, finetune, read_measurements, read_task
from modelsgenesis.verbs.inspection import Inspection, ScanSummary, inspect_scans, preview

__all__ = [
    "Comparison",
    "Inspection",
    "ScanSummary",
    "compare",
    "default_finetuning",
    "describe_comparison",
    "finetune",
    "inspect_scans",
    "preview",
    "read_measurements",
    "read_task",
]
