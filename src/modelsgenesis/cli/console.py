"""What the commands print: results on stdout, notes on stderr, and every name from elsewhere printable."""

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from modelsgenesis.errors import GenesisError, printable
from modelsgenesis.files import reason_of
from modelsgenesis.reporting import Reporter

BASELINES = ("mean_image", "identity")
"""What restores without having learnt anything; their losses stand beside every restoration loss."""

displays = ExitStack()
"""Close it before an error is printed: a bar that is not stopped leaves the terminal without a cursor."""

_UNWRAPPED = 10_000  # columns of a table that goes into a file or another program
_KEPT = 40  # columns of a name that a narrow terminal does not fold


def accept_any_name() -> None:
    """Write what the encoding of stdout lacks as escapes: a name that is not UTF-8 ends no command, nor does a help."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # stderr does so by itself
        sys.stdout.reconfigure(errors="backslashreplace")


def print_line(text: object = "") -> None:
    """Print a line of a result on stdout."""
    _write(sys.stdout, printable(str(text)))


def note(text: object) -> None:
    """Print a line for people on stderr."""
    _write(sys.stderr, printable(str(text)))


def print_result(value: Any, lines: Iterable[object], *, as_json: bool) -> None:
    """Print a result as JSON for programs, else as lines."""
    if as_json:
        print_json(value)
    else:
        for line in lines:
            print_line(line)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, for programs."""
    _write(sys.stdout, json.dumps(value, indent=2))


def print_plan(
    read: Iterable[object], write: Iterable[object], send: Iterable[object] = (), *, config: Any = None, as_json: bool
) -> None:
    """Print what a command would do, for `--dry-run`.

    Args:
        read: Files, scans or models, each in words.
        write: Files and folders.
        send: What would leave this machine, and whereto.
        config: JSON of a configuration: it is the result, which `--config` reads; the rest is for people.
        as_json: Print the plan as JSON, where there is no configuration.
    """
    plan = {"read": [*map(str, read)], "write": [*map(str, write)], "send": [*map(str, send)]}
    lines = [f"would {verb}: {', '.join(things) or 'nothing'}" for verb, things in plan.items()]
    if config is None:
        print_result(plan, lines, as_json=as_json)
        return
    print_json(config)
    for line in lines:
        note(line)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout: folded to a terminal's width, unwrapped elsewhere, and free of markup.

    Args:
        header: The title of each column; empty titles print no header.
        rows: A cell for each column.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(header))
    cells = [[Text(printable(str(cell))) for cell in row] for row in rows]
    longest = max((row[0].cell_len for row in cells), default=0)
    table.add_column(header[0], style="bold", overflow="fold", min_width=min(longest, _KEPT))
    for title in header[1:]:
        table.add_column(title, overflow="fold")
    for row in cells:
        table.add_row(*row)
    terminal, drawn = sys.stdout is not None and sys.stdout.isatty(), io.StringIO()
    Console(file=drawn, force_terminal=terminal, width=None if terminal else _UNWRAPPED).print(table)
    _write(sys.stdout, "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()))


def _write(stream: TextIO | None, text: str) -> None:
    """Write a line; where nobody reads the stream any more, as after `| head`, end quietly.

    Raises:
        GenesisError: A result cannot be written, such as to a full disk. Of a note nothing is said.
    """
    if stream is None:  # it was closed before the start
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as problem:
        is_closed = isinstance(problem, BrokenPipeError)
        if stream is sys.stderr and not is_closed:
            return
        with suppress(OSError):  # Python writes what is left when it exits, and would tell of the same again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if is_closed:
            sys.exit(1)
        raise GenesisError(f"stdout: cannot be written: {reason_of(problem)}") from problem


def make_reporter(*, quiet: bool = False, folder: Path | None = None) -> Reporter:
    """Return a display of progress, which says when a run has its folder; or one that says nothing."""
    if quiet:
        return Reporter()
    from modelsgenesis.cli.progress import Display

    display = Display(folder)
    displays.callback(display.end)
    return display


def describe_metrics(metrics: Mapping[str, float], *, brief: bool = False) -> str:
    """Return metrics on one line; a restoration loss always beside its baselines.

    Args:
        metrics: Values by name; the first one counts.
        brief: Say only that one, and of the baselines only the ratios.

    Example:
        >>> describe_metrics({"dice": 0.9, "dice liver": 0.93})
        'dice 0.9000, dice liver 0.9300'
        >>> losses = {"restoration_loss": 0.044, "identity_loss": 0.1287, "mean_image_loss": 0.0499}
        >>> describe_metrics(losses)
        'restoration loss 0.0440 = 0.88× the mean-image baseline (0.0499), 0.34× the identity baseline (0.1287)'
        >>> describe_metrics(losses, brief=True)
        'restoration loss 0.0440 = 0.88× mean image, 0.34× identity'
    """
    loss = metrics.get("restoration_loss")
    if loss is None:
        shown = [f"{name.replace('_', ' ')} {digits(value)}" for name, value in metrics.items()]
        return ", ".join(shown[:1] if brief else shown)
    known = {name: metrics[f"{name}_loss"] for name in BASELINES if metrics.get(f"{name}_loss")}
    beside = [
        f"{loss / value:.2f}× {name.replace('_', ' ')}"
        if brief
        else f"{loss / value:.2f}× the {name.replace('_', '-')} baseline ({digits(value)})"
        for name, value in known.items()
    ]
    compared = f"restoration loss {digits(loss)}" + (f" = {', '.join(beside)}" if beside else "")
    return f"{compared}, COLLAPSED" if metrics.get("collapsed") else compared


def digits(value: float) -> str:
    """Return four decimals of a number, or its leading digits where these would be zeros.

    Example:
        >>> digits(0.0123456), digits(1234.5678), digits(0.0), digits(0.00001234)
        ('0.0123', '1234.5678', '0.0000', '1.23e-05')
    """
    return f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.2e}"
