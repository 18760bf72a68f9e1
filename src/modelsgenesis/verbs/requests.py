"""What a pretraining was asked for, kept in `run.json`, so that going on needs nothing typed again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modelsgenesis.configs import InputContract, PretrainingConfig
from modelsgenesis.configs.base import Config
from modelsgenesis.errors import ConfigurationError, ResumeError
from modelsgenesis.files import parsing
from modelsgenesis.networks import build_network
from modelsgenesis.training.run import RUN_NAME, Run
from modelsgenesis.training.task_networks import seeded
from modelsgenesis.verbs.starting import Start

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
    window: tuple[float, ...] | None = None
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


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What `run.json` says of a pretraining.

    Attributes:
        request: What was asked for; None in a run that was not started by `pretrain`.
        config: With the shape of the network and the sizes that were worked out.
        init: What may be said of the weights that it went on from; a folder of that name may be gone.
        contract: How the scans were prepared.
        pretrained: Names of the tensors that came from `init`.
        finished: Whether there is nothing left to do.
    """

    request: Request | None
    config: PretrainingConfig
    init: str | None
    contract: InputContract | None
    pretrained: tuple[str, ...]
    finished: bool

    def start(self, config: PretrainingConfig) -> Start:
        """Return what a resumed run starts from; its weights come from the checkpoint."""
        return Start(
            network=seeded(config.seed, lambda: build_network(config.network)),
            config=config,
            name=self.init,
            contract=self.contract,
            pretrained=self.pretrained,
        )


def read_recorded(output: str | Path) -> Recorded:
    """Return what a run's folder says of how it was started.

    Raises:
        ResumeError: There is no run, or it is no pretraining.
    """
    told, path = Run(Path(output)).description(), Path(output) / RUN_NAME
    if told.get("kind") != "pretraining":
        raise ResumeError(f"{output}: holds a run of {told.get('kind')}, not a pretraining; go on with its own command")
    request, contract = told.get("request"), told.get("input")
    with parsing(path, ResumeError, remedy="restore it, or start again in another folder"):
        return Recorded(
            request=None if request is None else Request.from_dict(request),
            config=PretrainingConfig.from_dict(told["config"], where=str(path)),
            init=told.get("init"),
            contract=None if contract is None else InputContract.from_dict(contract),
            pretrained=tuple(told.get("pretrained", ())),
            finished=bool(told.get("finished")),
        )
