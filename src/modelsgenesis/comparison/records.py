"""The folder of a comparison: what was asked, and one file a finished trial, so that it goes on where it stopped."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelsgenesis.comparison.trials import Trial
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.comparison import file_name
from modelsgenesis.errors import DataError, ResumeError, TrainingError
from modelsgenesis.files import parsing, read_json, write_csv, write_json
from modelsgenesis.training.run import compare, hold_folder

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
        self._lock = hold_folder(self.folder, ".lock", "compares")

    def describe(self, description: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Write what is asked, or compare it with what was asked before in this folder.

        Args:
            description: `fixed` must not change; `arms`, by name, must not change but may grow. Label counts and
                the number of runs are no part of it: they may grow.
            defaults: Of `fixed.training`, for fields that a version before did not have.

        Raises:
            ResumeError: The folder belongs to another comparison; the message lists the differences.
        """
        content, path = plain(description), self.folder / DESCRIPTION_NAME
        if path.exists():
            before = read_json(path, ResumeError)
            with parsing(path, ResumeError, remedy="restore it, or choose another folder for the output"):
                fixed = {**before["fixed"], "training": {**plain(defaults or {}), **before["fixed"]["training"]}}
                differences = compare(fixed, content["fixed"])
                for name in before["arms"].keys() & content["arms"].keys():
                    differences += compare(before["arms"][name], content["arms"][name], f"{name}: ")
                content["arms"] = {**before["arms"], **content["arms"]}
                content["cases"] = {**before.get("cases", {})}
            if differences:
                raise ResumeError(
                    f"{self.folder}: holds a comparison with another configuration: {'; '.join(differences[:8])}; "
                    "choose another folder for the output"
                )
        write_json(path, content, ResumeError)

    def check_cases(self, digests: Mapping[str, str]) -> None:
        """Keep the digests of prepared cases, or compare them with those that trials here have seen.

        Raises:
            ResumeError: The voxels or labels of a case have changed.
        """
        path = self.folder / DESCRIPTION_NAME
        content = read_json(path, ResumeError)
        known = content.setdefault("cases", {})
        changed = [name for name, digest in digests.items() if known.get(name, digest) != digest]
        if changed:
            raise ResumeError(
                f"{self.folder}: {len(changed)} cases or their labels have changed since the comparison began, such as "
                f"{changed[0]}; restore them, or choose another folder for the output"
            )
        known.update(digests)
        write_json(path, content, ResumeError)

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()

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
        record = read_json(path, ResumeError)
        if not isinstance(record, dict) or record.pop("sha256", None) != _digest(record):
            raise ResumeError(
                f"{path}: does not match its digest: damaged, or of version 0.1.0, which wrote none; delete it and the "
                "same command goes on"
            )
        asked = {"training": list(trial.cases), "settings": list(trial.settings)}
        if differences := compare({key: record.get(key) for key in asked}, asked):
            raise ResumeError(
                f"{path}: was made otherwise: {'; '.join(differences)}; delete it or choose another folder"
            )
        return record

    def write(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Keep what a finished trial measured, with a digest of it.

        Raises:
            ResumeError: The disk is full; the trials before are intact.
        """
        content = plain(record)
        write_json(self.path(trial), {**content, "sha256": _digest(content)}, ResumeError)


def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the runs as CSV: a row a run with what was asked and every metric on the test and validation patients.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        asked = {name: record[name] for name in ("arm", "labels", "seed", "learning_rate")}
        validation = {f"validation {name}": value for name, value in record["validation"].items()}
        ended = {name: record[name] for name in ("kept_step", "steps", "seconds")}
        rows.append({**asked, "settings": " ".join(record["settings"]), **record["test"], **validation, **ended})
    write_csv(path, rows, DataError)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
