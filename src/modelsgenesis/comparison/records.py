"""The folder of a comparison: what was asked, and one file a finished trial, so that it goes on where it stopped."""

import contextlib
import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelsgenesis.comparison.trials import Trial
from modelsgenesis.configs.comparison import file_name
from modelsgenesis.errors import ResumeError, TrainingError
from modelsgenesis.files import write_atomically
from modelsgenesis.training.lock import FolderLock
from modelsgenesis.training.run import compare

DESCRIPTION_NAME = "comparison.json"
_WORK = ".work-"


class Records:
    """The finished trials of a comparison in its folder, which one process holds at a time.

    Args:
        folder: New, empty, or of the same comparison.

    Raises:
        TrainingError: It holds something else, cannot be written, or another process is at work in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise TrainingError(f"{self.folder}: is a file; choose a folder for the output")
        ours = (self.folder / DESCRIPTION_NAME).exists()
        if self.folder.is_dir() and not ours and any(not item.name.startswith(".") for item in self.folder.iterdir()):
            raise TrainingError(f"{self.folder}: holds something else; choose a new folder for the output")
        self._lock = FolderLock(self.folder, ".lock", "compares")

    def describe(self, description: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Write what is asked, or compare it with what was asked before in this folder.

        Args:
            description: `fixed` must not change; `arms`, by name, must not change but may grow. Label counts and
                the number of runs are no part of it: they may grow.
            defaults: Of `fixed.training`, for fields that a version before did not have.

        Raises:
            ResumeError: The folder belongs to another comparison; the message lists the differences.
        """
        content = _plain(description)
        path = self.folder / DESCRIPTION_NAME
        if path.exists():
            before = _read(path)
            before["fixed"]["training"] = {**_plain(defaults or {}), **before["fixed"]["training"]}
            self._check(before, content)
            content["arms"] = {**before["arms"], **content["arms"]}
        write_atomically(path, _json(content))

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differences = compare(before["fixed"], now["fixed"])
        for name in before["arms"].keys() & now["arms"].keys():
            differences += compare(before["arms"][name], now["arms"][name], f"{name}: ")
        if differences:
            raise ResumeError(
                f"{self.folder}: holds a comparison with another configuration: {'; '.join(differences)}; "
                "choose another folder for the output"
            )

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Give a folder for what only this process and its workers read; it goes at the end, with any left behind."""
        for old in self.folder.glob(f"{_WORK}*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_WORK) as folder:
            yield Path(folder)

    def path(self, trial: Trial) -> Path:
        """Return the file of a trial."""
        kind = "tuning" if trial.tuning else "runs"
        name = "-".join([f"seed-{trial.seed}", *(map(file_name, trial.settings) if trial.tuning else ())])
        return self.folder / kind / file_name(trial.arm) / f"labels-{trial.labels}" / f"{name}.json"

    def read(self, trial: Trial) -> dict[str, Any] | None:
        """Return what a finished trial measured, None where it has not finished.

        Raises:
            ResumeError: The file cannot be read, or the trial learnt from other cases or with other settings.
        """
        path = self.path(trial)
        if not path.exists():
            return None
        record = _read(path)
        asked = {"training": list(trial.cases), "settings": list(trial.settings)}
        if differences := compare({key: record.get(key) for key in asked}, asked):
            raise ResumeError(
                f"{path}: was made otherwise: {'; '.join(differences)}; delete it or choose another folder"
            )
        return record

    def write(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Keep what a finished trial measured.

        Raises:
            CheckpointError: The disk is full; the trials before are intact.
        """
        write_atomically(self.path(trial), _json(record))

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        write_atomically(self.folder / name, text.encode())

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the folder."""
        write_atomically(self.folder / name, _json(content))


def runs_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs as CSV: a row a run with what was asked and every metric on the test and validation patients."""
    rows = [_row(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: record[name] for name in ("arm", "labels", "seed", "learning_rate")}
    measured = {
        **record["test"],
        **{f"validation {name}": value for name, value in record["validation"].items()},
    }
    return {
        **plain,
        "settings": " ".join(record["settings"]),
        **measured,
        **{name: record[name] for name in ("kept_step", "steps", "seconds")},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResumeError(f"{path}: cannot be read: {error}; delete it and the same command goes on") from error


def _plain(content: Any) -> Any:
    """Return what reading the JSON of a value gives: lists for tuples."""
    return json.loads(json.dumps(content))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
