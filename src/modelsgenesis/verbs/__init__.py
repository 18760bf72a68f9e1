"""The main jobs, each one function: what the package root offers and the command line calls.

This is the only room where names become weights, weights become runs, and runs go to the Hub.
"""

from modelsgenesis.verbs.comparison import Comparison, compare, describe_comparison

__all__ = [
    "Comparison",
    "compare",
    "describe_comparison",
]
