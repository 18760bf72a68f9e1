"""The folder of a run: its configuration, logs, checkpoints and lock."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from modelsgenesis.errors import ResumeError, TrainingError
from modelsgenesis.files import parsing, read_bytes, read_json, reason_of, write_atomically, write_json
from modelsgenesis.training.checkpoint import read_checkpoint, write_checkpoint
from modelsgenesis.training.distributed import on_rank_zero

RUN_NAME = "run.json"
LOG_NAME = "log.csv"
VALIDATION_NAME = "validation.csv"
LAST_NAME = "checkpoints/last.pt"
BEFORE_NAME = "checkpoints/before.pt"
LOCK_NAME = "checkpoints/.lock"

FREE_SETTINGS = frozenset(
    ("workers", "compile", "checkpoint_activations", "checkpoint_every", "nonfinite", "divergence_factor")
)
"""What a resumed run may change: how fast it computes, how often it writes, what ends it; not what it learns."""

_WRITTEN = (RUN_NAME, LOG_NAME, VALIDATION_NAME, LAST_NAME, "config.json", "model.safetensors", "README.md")
_LIMIT = 1 << 30  # bytes of run.json, which names every scan, and of a log


class Run:
    """A run's folder, held by one process at a time.

    Args:
        folder: See `open`.

    The folder holds `run.json` (what was asked, how the data was split and digests of it; it stays local, for it names
    scans), `log.csv` and `validation.csv`, `checkpoints/last.pt` and the one before it, and the bundle of the best
    network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None

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
    ) -> Self:
        """Start or go on with a run; of several processes rank 0 alone holds the folder.

        Args:
            folder: New or empty; with `resume`, that of a run.
            description: Content of `run.json`. When the run is resumed, `config` (but for `FREE_SETTINGS`), `init`,
                `input`, `shape`, `split` and `digests` must be as they were.
            resume: Go on with the run.

        Raises:
            TrainingError: The folder has something in it, cannot be written, or another process trains in it.
            ResumeError: There is no run, or its configuration or its scans differ; the message lists how.
        """
        run = cls(Path(folder))
        on_rank_zero(partial(run._resume if resume else run._create, description))
        return run

    def _create(self, description: Mapping[str, Any]) -> None:
        self.check(self.folder)
        self._lock = hold_folder(self.folder, LOCK_NAME, "trains")
        write_json(self.folder / RUN_NAME, description)

    def _resume(self, description: Mapping[str, Any]) -> None:
        before = self.description()
        with parsing(self.folder / RUN_NAME, ResumeError):
            start = {key: description[key] for key in ("init", "input", "shape") if key in description}
            differences = compare({key: before.get(key) for key in start}, start)
            check_config(self.folder, before["config"], description["config"], differences)
            self._check_data(before, description)
        self._lock = hold_folder(self.folder, LOCK_NAME, "trains")
        for name in _WRITTEN:  # temporary files that a killed process left
            path = self.folder / name
            for left in path.parent.glob(f".{path.name}.*"):
                left.unlink(missing_ok=True)

    def _check_data(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Refuse other scans, or the same ones with other voxels or labels."""
        place = self.folder / RUN_NAME
        split = {part: list(names) for part, names in (now.get("split") or {}).items()}
        if (before.get("split") or {}) != split:
            raise ResumeError(
                f"{self.folder}: the run was started with other scans or another split, see {place}; resume with the "
                "same scans"
            )
        if "digests" in now and "digests" not in before:
            raise ResumeError(
                f"{place}: has no digests of the scans, as version 0.1.0 wrote it, so that a change of them could not "
                f"be told; start again in another folder, with --init {self.folder} from its best network"
            )
        changed = [
            name
            for part, digests in now.get("digests", {}).items()
            for name, old, new in zip(split[part], before["digests"][part], digests, strict=True)
            if old != new
        ]
        if changed:
            raise ResumeError(
                f"{self.folder}: {len(changed)} scans or their labels have changed since the run began, such as "
                f"{changed[0]}; restore them, or start again in another folder"
            )

    def finish(self) -> None:
        """Note in `run.json` that everything is done, so that a resume has nothing to do."""
        write_json(self.folder / RUN_NAME, {**self.description(), "finished": True})

    def description(self) -> dict[str, Any]:
        """Return the content of `run.json`.

        Raises:
            ResumeError: There is none, or it is damaged.
        """
        path = self.folder / RUN_NAME
        if not path.exists():
            raise ResumeError(f"{self.folder}: holds no run to resume; start one without --resume")
        content = read_json(path, ResumeError, _LIMIT)
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise ResumeError(f"{path}: does not describe a run; restore it, or start again in another folder")
        return content

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()

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
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        try:
            with (self.folder / name).open("a", newline="") as file:
                if not file.tell():  # empty, though it may have been there
                    writer.writeheader()
                writer.writerow(row)
                file.write(text.getvalue())
        except OSError as error:
            raise TrainingError(_unwritable(self.folder / name, error)) from error

    def truncate_logs(self, step: int) -> str:
        """Drop the rows after `step`, which the resumed run writes again, and what a crash or a full disk damaged.

        Returns:
            What a person should know of rows that are lost, or "".
        """
        kept = [self._truncate(self.folder / name, step) for name in (LOG_NAME, VALIDATION_NAME)]
        lost = step - kept[0]
        return f"{LOG_NAME} was damaged: {lost} of {step} steps are missing in it" if lost > 0 else ""

    @staticmethod
    def _truncate(path: Path, step: int) -> int:
        """Return how many whole rows up to a step a log keeps; one without a header is deleted."""
        if not path.exists():
            return 0
        lines = read_bytes(path, ResumeError, _LIMIT).decode(errors="replace").split("\n")[:-1]  # no cut last line
        reader = csv.reader(f"{line}\n" for line in lines)
        with suppress(csv.Error):
            columns = next(reader, [])  # a name in it may go over several lines
            head = lines[: reader.line_num]
            if columns[:1] == ["step"] and not set("\0\ufffd") & set("".join(head)):
                rows = [line for line in lines[len(head) :] if _is_row(line, len(columns), step)]
                write_atomically(path, "".join(f"{line}\n" for line in (*head, *rows)), ResumeError)
                return len(rows)
        path.unlink()
        return 0

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the state of training and keep the one before, the logs brought to the disk before it.

        Raises:
            CheckpointError: The disk is full; the checkpoint before is intact.
            TrainingError: So it is for the logs.
        """
        for path in (self.folder / LOG_NAME, self.folder / VALIDATION_NAME):  # no checkpoint is ahead of them
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise TrainingError(_unwritable(path, error)) from error
        write_checkpoint(self.folder / LAST_NAME, self.folder / BEFORE_NAME, state)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, str]:
        """Return the newest whole state, None if none was written yet, and what a person should know of it.

        Raises:
            ResumeError: There are checkpoints and none is whole.
        """
        problems: list[str] = []
        for path in (self.folder / LAST_NAME, self.folder / BEFORE_NAME):
            if not path.exists():
                continue
            try:
                state = read_checkpoint(path)
            except TrainingError as error:
                problems.append(str(error))
                continue
            if problems:
                (self.folder / LAST_NAME).unlink()  # or the next checkpoint would put it in the place of the good one
                return state, f"{LAST_NAME} is damaged and deleted; going on from the checkpoint before, {BEFORE_NAME}"
            return state, ""
        if not problems:
            return None, "no checkpoint was written yet: starting from the beginning"
        raise ResumeError(
            f"{self.folder}: no whole checkpoint to resume from ({problems[0]}); start again in another folder, with "
            f"--init {self.folder} from its best network"
        )


def hold_folder(folder: Path, name: str, work: str) -> FileLock:
    """Hold a folder until the lock is released or the process ends, however it ends.

    Args:
        folder: Made where it is missing.
        name: File of the lock in the folder.
        work: What a process does there, for the message.

    Raises:
        TrainingError: Another process holds it, or it cannot be written.
    """
    lock = FileLock(folder / name, timeout=0, thread_local=False)
    try:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise TrainingError(f"{folder}: another process {work} in this folder; wait or choose another") from error
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise TrainingError(f"{folder}: cannot be written: {reason_of(error)}; choose another folder") from error
    return lock


def _unwritable(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {error.strerror}; the last checkpoint is intact"


def _is_row(line: str, columns: int, step: int) -> bool:
    """Return whether a line of a log holds as many numbers as it has columns, the first at most `step`."""
    try:
        numbers = [float(cell or "nan") for cell in line.split(",")]
    except ValueError:
        return False
    return len(numbers) == columns and numbers[0] <= step


def _is_blank(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a start leaves that is killed at once."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return all(name in ("checkpoints", LOCK_NAME) or name.startswith(f".{RUN_NAME}.") for name in names)


def check_config(
    folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any], more: Sequence[str] = ()
) -> None:
    """Refuse another configuration than a run has; `FREE_SETTINGS` may differ.

    Raises:
        ResumeError: It is another; the message lists how, and what differs besides.
    """
    differences = [text for text in compare(before, now) if text.split(" ")[0] not in FREE_SETTINGS]
    if differences := [*differences, *more][:8]:
        raise ResumeError(f"{folder}: the run was started with another configuration: {'; '.join(differences)}")


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
