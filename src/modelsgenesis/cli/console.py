"""How the commands speak: results on stdout, progress and notes on stderr."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelsgenesis.reporting import Reporter

if TYPE_CHECKING:
    from rich.console import Console

BASELINES = ("mean_image_loss", "identity_loss")
"""Losses of maps that learn nothing; they stand beside every restoration loss."""


def error_console() -> "Console":
    """Return the console of stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def make_reporter(*, quiet: bool = False) -> Reporter:
    """Return a live display on a terminal, plain lines elsewhere, nothing when quiet."""
    from modelsgenesis.cli.reporters import LiveReporter, PlainReporter

    if quiet:
        return Reporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line, four digits each; a restoration loss always beside those that learn nothing.

    Example:
        >>> describe_metrics({"dice": 0.9, "dice liver": 0.93})
        'dice 0.9000, dice liver 0.9300'
        >>> describe_metrics({"restoration_loss": 0.0123456, "identity_loss": 0.08, "mean_image_loss": 0.03})
        'restoration loss 0.01235, mean image loss 0.03 (0.41 of it), identity loss 0.08 (0.15 of it)'
    """
    if "restoration_loss" not in metrics:
        return ", ".join(f"{words(name)} {digits(value)}" for name, value in metrics.items())
    loss = metrics["restoration_loss"]
    beside = [(name, metrics[name]) for name in BASELINES if metrics.get(name)]
    shown = [f"restoration loss {digits(loss)}"]
    shown += [f"{words(name)} {digits(value)} ({loss / value:.2f} of it)" for name, value in beside]
    if metrics.get("collapsed"):
        shown.append("COLLAPSED")
    return ", ".join(shown)


def words(name: str) -> str:
    """Return a name with blanks: `mean_image_loss` is `mean image loss`."""
    return name.replace("_", " ")


def digits(value: float) -> str:
    """Return four digits of a number.

    Example:
        >>> digits(0.0123456), digits(0.9), digits(1234.5678)
        ('0.01235', '0.9000', '1234.5678')
    """
    return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> duration(42), duration(200), duration(4500), duration(200_000)
        ('42 s', '3 min', '1 h 15 min', '2 d 7 h')
    """
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{int(seconds)} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
