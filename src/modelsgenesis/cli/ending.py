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


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    interrupted = Interrupted(
        signum,
        f"interrupted by {signal.Signals(signum).name}: what was finished is kept; give the same command again, with "
        "--resume where a run has begun",
    )
    if _is_importing(frame):  # a module that is cut short there fails in ways of its own
        if _speaks():
            os.write(2, f"{interrupted}\n".encode())
        os._exit(128 + signum)
    raise interrupted


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _speaks() -> bool:
    """Tell whether this is the process that speaks, where several train together."""
    return os.environ.get("RANK", "0") == "0"


def end_with_error(error: GenesisError) -> NoReturn:
    """Print an error, unless rank 0 does, and end with status 1."""
    told = getattr(error, "__notes__", [])  # of what happened in this process alone, while the others went on
    if _speaks() or (told and not isinstance(error, PeerError)):
        typer.echo(": ".join([*told, f"error: {error}"]), err=True)
    sys.exit(1)


def end_with_signal(interrupted: Interrupted) -> NoReturn:
    """Print how to go on, on rank 0, and end with 128 and the signal's number."""
    if _speaks():
        typer.echo(str(interrupted), err=True)
    sys.exit(128 + interrupted.signum)
