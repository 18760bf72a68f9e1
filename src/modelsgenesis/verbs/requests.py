"""What a pretraining was asked for, kept in `run.json`, so that going on needs nothing typed again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modelsgenesis.configs.base import Config
from modelsgenesis.errors import ConfigurationError, ResumeError

Source = str | Path | Sequence[str | Path]

_FREE = ("cache",)  # a resume may find the prepared volumes elsewhere


@dataclass(frozen=True, kw_only=True)
class Request(Config):
    """What was asked for besides the configuration; the paths of scans are absolute.

    Attributes:
        source: Scans.
        validation: Scans to validate on.
        leave_out: Recorded splits whose test cases must not be seen.
        group_pattern: Of the patient in a file's name.
        modality: Of the scans, or `"auto"`.
        spacing: Voxel size in mm to resample to.
        window: CT window in HU.
        init: Weights to go on from.
        cache: Folder of the prepared volumes.
    """

    source: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    group_pattern: str | None = None
    modality: str = "auto"
    spacing: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None
    init: str | None = None
    cache: str | None = None


def absolute(source: Source | None) -> tuple[str, ...]:
    """Return the paths of a source, absolute, so that a resume finds them from any folder."""
    if source is None:
        return ()
    paths = [source] if isinstance(source, (str, Path)) else source
    return tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 - it may be a pattern, and no link is followed


def complete(given: Request, recorded: Request | None, output: str | Path) -> Request:
    """Fill what was not given with what the run was started with.

    Raises:
        ResumeError: Something else is asked for than then; the message lists the differences.
        ConfigurationError: There are no scans.
    """
    if recorded is None:
        if not given.source:
            raise ConfigurationError("source: received nothing, expected the scans to pretrain on")
        return given
    changes: dict[str, Any] = {}
    differences: list[str] = []
    for field in fields(Request):
        asked, before = getattr(given, field.name), getattr(recorded, field.name)
        if asked == field.default:
            changes[field.name] = before
        elif asked != before and field.name not in _FREE:
            differences.append(f"{field.name} was {before}, now {asked}")
    if differences:
        raise ResumeError(f"{output}: the run was started with another request: {'; '.join(differences)}")
    return given.override(**changes)
