"""Every error that this package raises on purpose.

    GenesisError              the one to catch
    ├── ConfigurationError    a hyperparameter, a setting or a configuration file that cannot be right
    ├── ShapeError            an array or tensor of the wrong shape, dtype or range of values
    ├── ScanError             a scan or label that is damaged or cannot be used
    ├── DataError             a folder, split, table or data set that cannot be used
    ├── CheckpointError       a bundle or weight file that is damaged, unsafe, or cannot be written
    ├── TrainingError         a run that cannot start, continue or be resumed
    ├── HubError              a name, a download or an upload that failed
    └── MissingExtraError     an optional dependency that is not installed

`Interrupted` stands apart: a signal that ended a run whose state is written.

A message is one line: what was received, what was expected, the remedy. The command line prints it and ends
with status 1; a wrong command line ends with status 2.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Literal


def printable(text: str) -> str:
    r"""Return text in one line without what could steer a terminal or hide in it: such characters as escapes.

    Names of files, classes and repositories, and what servers answer, come from elsewhere.

    Example:
        >>> printable("scan\x1b[2J\n.nii")
        'scan\\x1b[2J\\n.nii'
    """
    if text.isprintable():  # nearly always
        return text
    shown = (one if one.isprintable() or unicodedata.category(one) == "Zs" else ascii(one)[1:-1] for one in text)
    return "".join(shown)


class GenesisError(Exception):
    """Base of every error raised on purpose by this package; it prints as one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigurationError(GenesisError):
    """A hyperparameter, a setting or a configuration file that cannot be right."""


class ShapeError(GenesisError):
    """An array or tensor of the wrong shape, dtype or range of values."""


class ScanError(GenesisError):
    """A scan or label that is damaged or cannot be used; the message names the file."""


class DataError(GenesisError):
    """A folder, split, table or data set that cannot be used."""


class CheckpointError(GenesisError):
    """A bundle or weight file that is damaged, unsafe (it would have to run code), or cannot be written."""


class TrainingError(GenesisError):
    """A run that cannot start, continue or be resumed."""


HubFailure = Literal["unknown", "unreachable", "denied", "conflict", "other"]


class HubError(GenesisError):
    """A name, a download or an upload that failed.

    Attributes:
        kind: `"unknown"`: no such model, repository, revision or file, or it is private. `"unreachable"`: no network,
            offline mode, or a Hub that is down: a repeat may succeed. `"denied"`: the token is missing, wrong or lacks
            the rights. `"conflict"`: another push came between. `"other"`: everything else, such as a wrong digest.
    """

    def __init__(self, message: str, kind: HubFailure = "other") -> None:
        super().__init__(message)
        self.kind: HubFailure = kind


class MissingExtraError(GenesisError):
    """An optional dependency that is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional dependency: pip install 'modelsgenesis[{extra}]'")


class Interrupted(BaseException):
    """A signal asked the run to end; everything is written.

    Attributes:
        signum: 2 for SIGINT, 15 for SIGTERM; the command ends with status 128 + signum.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def gpu_trouble(problem: BaseException) -> str:
    """Return in a line what a GPU could not do, and "" for any other problem.

    Example:
        >>> gpu_trouble(RuntimeError("CUDA error: unspecified launch failure"))
        'the GPU failed: CUDA error: unspecified launch failure'
    """
    text = str(problem)
    if "Duplicate GPU" in text:  # as NCCL says it
        return "two processes share a GPU: start at most one for each, with --device cuda, which gives each its own"
    if "busy or unavailable" in text:
        return "another process has the GPU for itself: wait for its end, or choose another with CUDA_VISIBLE_DEVICES"
    # A compiler wraps what Triton says; that a kernel cannot be loaded is the compiler's own trouble.
    told = re.search(r"(CUDA error|cuDNN error|Triton Error \[CUDA\](?!.*(kernel image|PTX|out of memory))): .*", text)
    return f"the GPU failed: {told[0]}" if told else ""


def require(condition: object, error: type[GenesisError], message: str) -> None:
    """Raise `error(message)` unless the condition holds; where the message costs time, raise it in an `if` instead.

    Example:
        >>> require(3 > 0, ConfigurationError, "steps: received 3, expected a positive number")
    """
    if not condition:
        raise error(message)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "case"), counted(2000, "case")
        ('1 case', '2,000 cases')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Join the first five names for a message and count the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, else all of them.

    Example:
        >>> did_you_mean("genesis-chest-ct", ["genesis-chest-ct-3d", "genesis-brain-mri"])
        'did you mean genesis-chest-ct-3d?'
        >>> did_you_mean("z", ["a", "b"])
        'known are a, b'
    """
    known = sorted(known)
    # Below 0.6 the "nearest" names have little to do with what was meant: the whole list helps more.
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
