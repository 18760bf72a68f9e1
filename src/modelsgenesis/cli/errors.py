"""How a command ends: whatever it raises becomes one line and a status here, and nowhere else."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from modelsgenesis.cli.console import displays, note
from modelsgenesis.cli.settings import remedy_of
from modelsgenesis.errors import GenesisError, Interrupted, gpu_trouble
from modelsgenesis.files import reason_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Troubles of a disk or a path are the user's to solve; any other OSError is a bug.
_USERS = {errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EROFS}
_REPORT = "this is a bug: please report it with the output of the same command with --debug"


@contextmanager
def one_line() -> Iterator[None]:
    """End the process with one line on stderr when the block raises anything.

    `--debug` anywhere in the line, or `MODELSGENESIS_DEBUG=1`, shows the traceback before it. Status 1 is an error, 2 a
    wrong command line, 128 + n signal n. Of several processes of `torchrun` rank 0 speaks, and any other about what it
    alone met.
    """
    try:
        yield
    except (typer.Exit, SystemExit, GeneratorExit):
        raise
    except BaseException as problem:  # the last place that sees it
        displays.close()
        if "--debug" in sys.argv[1:] or os.environ.get("MODELSGENESIS_DEBUG", "") not in ("", "0"):
            for line in "".join(traceback.format_exception(problem)).splitlines():
                note(line)
        line, status = explain(problem)
        rank = os.environ.get("RANK", "0")
        alone = [text for text in getattr(problem, "__notes__", []) if text.startswith("process ")]
        if line.endswith(_REPORT) and rank != "0":  # a bug here need not have reached rank 0
            alone = [f"process {rank}"]
        if rank == "0" or (alone and isinstance(problem, Exception)):
            note(": ".join([*alone, line]))
        sys.exit(status)


def explain(problem: BaseException) -> tuple[str, int]:
    """Return the line that tells what ended a command, and the status."""
    if isinstance(problem, Interrupted):
        return str(problem), 128 + problem.signum
    if isinstance(problem, KeyboardInterrupt):
        return "interrupted", 128 + signal.SIGINT
    if isinstance(problem, GenesisError):
        return f"error: {problem}", 1
    if isinstance(problem, typer.TyperException):
        context = getattr(problem, "ctx", None)
        command = getattr(context, "command_path", "modelsgenesis")
        message = " ".join(problem.format_message().split()).rstrip(".").replace("Value error, ", "")
        option = getattr(problem, "option_name", None) if message.startswith("No such option") else None
        near = getattr(problem, "possibilities", None) or ()
        if option and (remedy := remedy_of(str(context and context.info_name), option, near)):
            message = f"No such option: {option}; {remedy}"
        return f"error: {message}; see {command} --help", problem.exit_code
    name, reason, kind = getattr(problem, "filename", None), reason_of(problem), type(problem).__name__
    reason = f"{os.fsdecode(name)}: {reason}" if isinstance(name, str | bytes) else reason
    if isinstance(problem, OSError) and problem.errno in _USERS:
        return f"error: {reason}; check the path, its rights and the disk", 1
    # PyTorch's allocator raises RuntimeError, and a worker process ends its traceback with the reason.
    if any(words in f"{kind}: {reason}" for words in ("MemoryError", "allocate memory")):
        return "error: out of memory; choose smaller scans, patches or batches, or fewer workers or jobs", 1
    if told := gpu_trouble(problem):
        return f"error: {told}", 1
    return f"error: unexpected {kind if reason == kind else f'{kind}: {reason}'}; {_REPORT}", 1


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first signal raise `Interrupted` where the block is, and the second end the process at once.

    A training loop inside the block has its own way: see `graceful_stop`.
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
    kept = "what was finished is kept; give the same command again, with --resume where a run has begun"
    interrupted = Interrupted(signum, f"interrupted by {signal.Signals(signum).name}: {kept}")
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):  # a module cut short fails in ways of its own
            if os.environ.get("RANK", "0") == "0":
                os.write(2, f"{interrupted}\n".encode())
            os._exit(128 + signum)
        frame = frame.f_back
    raise interrupted
