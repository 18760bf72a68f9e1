"""The folder of a run: its configuration, log, checkpoints and lock."""

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from modelsgenesis.errors import ResumeError, TrainingError
from modelsgenesis.files import replacing, write_atomically
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.lock import FolderLock

RUN_NAME = "run.json"
LOG_NAME = "log.csv"
VALIDATION_NAME = "validation.csv"
LAST_NAME = "checkpoints/last.pt"
BEFORE_NAME = "checkpoints/before.pt"
LOCK_NAME = "checkpoints/.lock"

FREE_SETTINGS = frozenset(
    ("workers", "compile", "checkpoint_activations", "checkpoint_every", "nonfinite", "explosion")
)
"""What a resumed run may change: how fast it computes, how often it writes, what ends it; not what it learns."""

_WRITTEN = (RUN_NAME, LOG_NAME, VALIDATION_NAME, LAST_NAME, "config.json", "model.safetensors", "README.md")


class Run:
    """A run's folder, held by one process at a time.

    Args:
        folder: Made by `create`, found by `resume`.

    The folder holds `run.json` (what was asked and how the data was split; it stays local, for it names scans),
    `log.csv` and `validation.csv`, `checkpoints/last.pt` and the one before it, and the bundle of the best network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FolderLock | None = None

    @staticmethod
    def check(folder: str | Path, *, resume: bool = False) -> None:
        """Refuse a folder that a new run, or a resumed one, cannot have; call it before long work.

        Raises:
            TrainingError: It is a file, something is in it, or it cannot be written.
            ResumeError: It holds no run to resume.
        """
        folder = Path(folder)
        if resume:
            Run(folder).description()
            return
        if folder.exists() and not folder.is_dir():
            raise TrainingError(f"{folder}: is a file; choose a folder for the output")
        if (folder / RUN_NAME).exists():
            raise TrainingError(
                f"{folder}: holds a run already; add --resume to go on with it or choose another folder"
            )
        if folder.is_dir() and not _is_blank(folder):
            raise TrainingError(f"{folder}: is not empty; choose a new folder for the output")
        parent = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise TrainingError(f"{folder}: cannot be written in {parent}; choose another folder for the output")

    @classmethod
    def open(
        cls,
        folder: str | Path,
        description: Mapping[str, Any],
        *,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> Self:
        """Start or go on with a run; of several processes rank 0 alone holds the folder.

        Raises:
            TrainingError: As `create` and `resume` do.
        """
        processes = processes or Processes()
        run, problem = cls(Path(folder)), None
        if processes.is_main:
            try:
                run = (cls.resume if resume else cls.create)(folder, description)
            except TrainingError as error:
                problem = error
        processes.agree(problem)
        return run

    @classmethod
    def create(cls, folder: str | Path, description: Mapping[str, Any]) -> Self:
        """Start a run in a folder that holds none yet.

        Args:
            folder: New, or empty.
            description: What `run.json` says; `config` in it is compared when the run is resumed.

        Raises:
            TrainingError: The folder has something in it, cannot be written, or another process trains in it.
        """
        cls.check(folder)
        run = cls(Path(folder))
        run._lock = FolderLock(run.folder, LOCK_NAME, "trains")
        write_atomically(run.folder / RUN_NAME, (json.dumps(description, indent=2) + "\n").encode())
        return run

    @classmethod
    def resume(cls, folder: str | Path, description: Mapping[str, Any]) -> Self:
        """Go on with a run that was asked for the same; `FREE_SETTINGS` may differ.

        Raises:
            ResumeError: There is no run, or its configuration or its scans differ; the message lists how.
            TrainingError: Another process trains in the folder.
        """
        folder = Path(folder)
        before = cls(folder).description()
        differences = compare(before["config"], description["config"])
        differences += compare(before.get("input", {}), description.get("input", {}), "input.")
        differences = [text for text in differences if text.split(" ")[0] not in FREE_SETTINGS]
        if differences:
            raise ResumeError(f"{folder}: the run was started with another configuration: {'; '.join(differences)}")
        if before.get("split") != json.loads(json.dumps(description.get("split"))):
            raise ResumeError(
                f"{folder}: the run was started with other scans or another split, see {folder / RUN_NAME}; "
                "resume with the same scans"
            )
        run = cls(folder)
        run._lock = FolderLock(run.folder, LOCK_NAME, "trains")
        run._sweep()
        return run

    def finish(self) -> None:
        """Note in `run.json` that everything is done, so that a resume has nothing to do."""
        description = {**self.description(), "finished": True}
        write_atomically(self.folder / RUN_NAME, (json.dumps(description, indent=2) + "\n").encode())

    def _sweep(self) -> None:
        """Delete the temporary files that a killed process left."""
        for name in _WRITTEN:
            path = self.folder / name
            for left in path.parent.glob(f".{path.name}.*"):
                left.unlink(missing_ok=True)

    def description(self) -> dict[str, Any]:
        """Return the content of `run.json`.

        Raises:
            ResumeError: There is none.
        """
        try:
            return json.loads((self.folder / RUN_NAME).read_text())
        except FileNotFoundError as error:
            raise ResumeError(f"{self.folder}: holds no run to resume; start one without --resume") from error
        except (OSError, ValueError) as error:
            raise ResumeError(f"{self.folder / RUN_NAME}: cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.close()

    def log_step(self, row: Mapping[str, Any]) -> None:
        """Append a step to `log.csv`; losses are not rounded.

        Raises:
            TrainingError: The disk is full or the folder vanished.
        """
        self._append(LOG_NAME, row)

    def log_validation(self, row: Mapping[str, Any]) -> None:
        """Append a validation to `validation.csv`.

        Raises:
            TrainingError: The disk is full or the folder vanished.
        """
        self._append(VALIDATION_NAME, row)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path = self.folder / name
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        try:
            if not path.exists():
                writer.writeheader()
            writer.writerow(row)
            with path.open("a", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise TrainingError(_unwritable(path, error)) from error

    def truncate_logs(self, step: int) -> None:
        """Drop the rows after `step`, which the resumed run writes again, and a last row that a crash cut."""
        for path in (self.folder / LOG_NAME, self.folder / VALIDATION_NAME):
            if not path.exists():
                continue
            head, *lines = path.read_text().splitlines()
            kept = [line for line in lines if line.split(",")[0].isdigit() and int(line.split(",")[0]) <= step]
            kept = [line for line in kept if line.count(",") == head.count(",")]
            write_atomically(path, "".join(f"{line}\n" for line in (head, *kept)).encode())

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the state of training and keep the one before; at every moment one of the two is whole.

        Raises:
            CheckpointError: The disk is full; the checkpoint before is intact.
            TrainingError: So it is for the logs.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        self._sync_logs()
        last = self.folder / LAST_NAME
        with replacing(last) as temporary:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if last.exists():
                last.replace(self.folder / BEFORE_NAME)

    def _sync_logs(self) -> None:
        """Bring the logs to the disk, so that no checkpoint is ahead of them."""
        for path in (self.folder / LOG_NAME, self.folder / VALIDATION_NAME):
            if path.exists():
                try:
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                except OSError as error:
                    raise TrainingError(_unwritable(path, error)) from error

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, str]:
        """Return the newest readable state, None if none was written yet, and what a person should know of it.

        Raises:
            ResumeError: There are checkpoints and none can be read.
        """
        problem = ""
        paths = [path for path in (self.folder / LAST_NAME, self.folder / BEFORE_NAME) if path.exists()]
        for path in paths:
            try:
                return torch.load(path, map_location="cpu", weights_only=True), problem
            except Exception as error:
                problem = f"{path.name} is damaged ({type(error).__name__}); going on from the checkpoint before"
        if not paths:
            return None, "no checkpoint was written yet: starting from the beginning"
        raise ResumeError(f"{self.folder}: no readable checkpoint to resume from; start again in another folder")


def _unwritable(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {error.strerror}; the last checkpoint is intact"


def _is_blank(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what a start leaves that is killed at once."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in ("checkpoints", LOCK_NAME) and not name.startswith(f".{RUN_NAME}."):
            return False
    return True


def compare(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two nested configurations, one phrase each; what `before` lacks came later.

    Example:
        >>> compare({"seed": 0, "pretext": {"flip_limit": 3}}, {"seed": 1, "pretext": {"flip_limit": 3}})
        ['seed was 0, now 1']
    """
    differences: list[str] = []
    for key in sorted(before):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += compare(old, new, f"{prefix}{key}.")
        elif old != new:
            differences.append(f"{prefix}{key} was {old}, now {new}")
    return differences
