"""Every error that this package raises on purpose.

    GenesisError                    the one to catch
    ├── ConfigurationError          a hyperparameter or a configuration file that cannot be right
    ├── ShapeError                  an array or tensor of the wrong shape or dtype
    ├── RangeError                  values outside the range that a step assumes
    ├── ScanError                   a scan or label that cannot be used
    │   └── UnreadableScanError     a file that is damaged, truncated or no image at all
    ├── DataError                   a folder, split or data set that cannot be used
    ├── CheckpointError             a bundle or weight file that cannot be loaded or written
    │   └── UnsafeCheckpointError   a weight file that would have to run code to be read
    ├── TrainingError               a run that cannot start or go on
    │   ├── NonFiniteLossError      the loss is NaN or infinite
    │   ├── ExplodingLossError      the loss is far above what the run began with
    │   ├── ResumeError             a run that cannot be continued as asked
    │   └── PeerError               another process of the run failed and tells why
    ├── HubError                    the Hub or a download failed
    │   ├── UnknownModelError       a name in no registry and no repository
    │   ├── HubUnreachableError     no network, or offline and not in the cache
    │   ├── AccessError             a token is missing, wrong, or lacks the rights
    │   ├── DigestError             a file is not the one that the card or the Hub promises
    │   └── PublishError            nothing was published
    └── MissingExtraError           an optional dependency is not installed

`Interrupted` stands apart: a signal that ended a run whose state is written.

A message is one line: what was received, what was expected, the remedy. The command line prints it and ends
with status 1; a wrong command line ends with status 2.
"""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches


def printable(text: str) -> str:
    r"""Return text in one line without what could steer a terminal or hide in it: such characters as escapes.

    Names of files, classes, repositories and answers of servers come from elsewhere.

    Example:
        >>> printable("scan\x1b[2J\n.nii")
        'scan\\x1b[2J\\n.nii'
    """
    if text.isprintable():
        return text
    shown = (one if one.isprintable() or unicodedata.category(one) == "Zs" else ascii(one)[1:-1] for one in text)
    return "".join(shown)


class GenesisError(Exception):
    """Base of every error raised on purpose by this package; it prints as one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigurationError(GenesisError):
    """A hyperparameter or a configuration file that cannot be right."""


class ShapeError(GenesisError):
    """An array or tensor of the wrong shape or dtype."""


class RangeError(GenesisError):
    """Values outside the range that a step assumes."""


class ScanError(GenesisError):
    """A scan or label that cannot be used; the message names the file."""


class UnreadableScanError(ScanError):
    """A file that is damaged, truncated or no image at all."""


class DataError(GenesisError):
    """A folder, split or data set that cannot be used."""


class CheckpointError(GenesisError):
    """A bundle or weight file that cannot be loaded or written."""


class UnsafeCheckpointError(CheckpointError):
    """A weight file that would have to run code to be read."""


class TrainingError(GenesisError):
    """A run that cannot start or go on."""


class NonFiniteLossError(TrainingError):
    """The loss is NaN or infinite."""


class ExplodingLossError(TrainingError):
    """The loss is far above what the run began with."""


class ResumeError(TrainingError):
    """A run that cannot be continued as asked."""


class PeerError(TrainingError):
    """Another process of the run failed; that one, or rank 0, tells why, so nothing is printed here."""


class HubError(GenesisError):
    """The Hub or a download failed."""


class UnknownModelError(HubError):
    """A name that is in no registry and no repository."""


class HubUnreachableError(HubError):
    """No network, or offline mode and the file is not in the cache."""


class AccessError(HubError):
    """A token is missing, wrong, or lacks the rights."""


class DigestError(HubError):
    """A file is not the one that the card or the Hub promises."""


class PublishError(HubError):
    """Nothing was published."""


class MissingExtraError(GenesisError):
    """An optional dependency is not installed."""

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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, else all of them.

    Example:
        >>> nearest("genesis-chest-ct", ["genesis-chest-ct-3d", "genesis-brain-mri"])
        'did you mean genesis-chest-ct-3d?'
        >>> nearest("z", ["a", "b"])
        'known are a, b'
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
