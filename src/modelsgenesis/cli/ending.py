"""How a command ends: errors as one line, signals too, and one voice where several processes train together."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from modelsgenesis.errors import GenesisError, Interrupted, PeerError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first signal raise `Interrupted` where the block is, and the second end the process at once.

    A training loop inside the block has its own way: see `GracefulStop`.
    """
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise Interrupted(
        signum,
        f"interrupted by {signal.Signals(signum).name}: what was finished is kept; give the same command again, with "
        "--resume where a run has begun",
    )


def end_with_error(error: GenesisError) -> NoReturn:
    """Print an error, unless rank 0 does, and end with status 1."""
    rank_0 = os.environ.get("RANK", "0") == "0"
    told = getattr(error, "__notes__", [])  # of what happened in this process alone, while the others went on
    if rank_0 or (told and not isinstance(error, PeerError)):
        typer.echo(": ".join([*told, f"error: {error}"]), err=True)
    sys.exit(1)


def end_with_signal(interrupted: Interrupted) -> NoReturn:
    """Print how to go on, on rank 0, and end with 128 and the signal's number."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(str(interrupted), err=True)
    sys.exit(128 + interrupted.signum)
