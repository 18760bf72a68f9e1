"""The folder of a run: its configuration, logs, checkpoints and lock."""

import csv
import hashlib
import io
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from filelock import FileLock, Timeout

from modelsgenesis.configs.base import Config, plain
from modelsgenesis.errors import ConfigurationError, TrainingError
from modelsgenesis.files import open_regular, parsing, read_json, reason_of, replacing, write_atomically, write_json
from modelsgenesis.training.distributed import raise_if_any_failed, rank

Recorded = TypeVar("Recorded", bound=Config)

RUN_NAME = "run.json"
LOG_NAME = "log.csv"
VALIDATION_NAME = "validation.csv"
LAST_NAME = "checkpoints/last.pt"
BEFORE_NAME = "checkpoints/before.pt"
LOCK_NAME = "checkpoints/.lock"

FREE_SETTINGS = frozenset(
    ("workers", "compile", "checkpoint_activations", "checkpoint_every", "divergence_factor", "data.cache")
)
"""Settings that a resumed run may change: speed, how often it writes, what ends it; not what it learns."""

_WRITTEN = (RUN_NAME, LOG_NAME, VALIDATION_NAME, LAST_NAME, "config.json", "model.safetensors", "README.md")
_WRITTEN += ("report.html", "report.npz", "refused.csv")
_GROUPS = {LOG_NAME: "training", VALIDATION_NAME: "validation"}  # as TensorBoard shows the logs
_LIMIT = 1 << 30  # bytes of run.json, which names every scan, and of a log


@dataclass
class Progress:
    """Position and cost of a run, and its best validation; a checkpoint holds it.

    Attributes:
        step: Steps done.
        best_step: Step of the best validation.
        best_score: Its score; lower is better.
        validations_since_best: Validations that were no better.
        metrics: Metrics of the best validation.
        kept: SHA-256 of the weights in the bundle, which are of the best validation; "" before the first.
        first_losses: What a loss is compared with to tell a divergence.
        seconds: How long it has taken, over every resume.
        peak_memory: Bytes of a GPU that it took at most.
    """

    step: int = 0
    best_step: int = 0
    best_score: float = math.inf
    validations_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    kept: str = ""
    first_losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0


@dataclass(eq=False)
class Run:
    """A run's folder, held by one process at a time; begin with `open`.

    The folder holds `run.json` (the configuration, how the data was split and digests of it; it stays local, for it
    names scans), `log.csv` and `validation.csv`, `checkpoints/last.pt` and the one before it, and the bundle of the
    best network.

    Attributes:
        folder: Where it is.
        events: Gets the numbers of both logs, too: a `SummaryWriter` of TensorBoard, or None.
        note: Told when they end early.
        checkpointed: Whether checkpoints are written; without any it cannot be resumed.
    """

    folder: Path
    events: Any = None
    note: Callable[[str], object] = print
    checkpointed: bool = True
    _lock: FileLock | None = None

    @staticmethod
    def check(folder: str | Path, *, resume: bool = False) -> None:
        """Refuse a folder that a new run, or a resumed one, cannot have; call it before long work.

        Raises:
            TrainingError: It is a file, something is in it, it cannot be written, or it holds no run to resume.
        """
        folder = Path(folder)
        if resume:
            Run(folder).description()
            return
        if (folder / RUN_NAME).exists():
            raise TrainingError(f"{folder}: holds a run already; add --resume to continue it, or choose another folder")
        names = (path.relative_to(folder).as_posix() for path in (folder.rglob("*") if folder.is_dir() else ()))
        # All but what a run leaves that is killed as it starts.
        if not all(name in ("checkpoints", LOCK_NAME) or name.startswith(f".{RUN_NAME}.") for name in names):
            raise TrainingError(f"{folder}: is not empty; choose a new folder for the output")
        place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise TrainingError(f"{place}: is a file, or cannot be written; choose another folder for the output")

    @classmethod
    def open(cls, folder: str | Path, description: Mapping[str, Any], *, resume: bool = False) -> Self:
        """Start or resume a run; of several processes rank 0 alone takes hold of the folder.

        Args:
            folder: New or empty; with `resume`, that of a run.
            description: Content of `run.json`. A resumed run must have the same, but for `FREE_SETTINGS`.
            resume: Continue the run that the folder holds.

        Raises:
            TrainingError: The folder has something in it, cannot be written, or another process trains in it; or there
                is no run to resume, or its configuration or its scans differ; the message lists how.
        """
        run = cls(Path(folder))
        with raise_if_any_failed():
            if rank() == 0:
                content = plain(description)
                run._refuse_changes(content) if resume else cls.check(folder)
                run._lock = hold_folder(run.folder, LOCK_NAME, "trains")
                if not resume:
                    write_json(run.folder / RUN_NAME, content)
                for name in _WRITTEN:  # temporary files that a killed process left
                    path = run.folder / name
                    for left in path.parent.glob(f".{path.name}.*"):
                        left.unlink(missing_ok=True)
        return run

    def _refuse_changes(self, now: dict[str, Any]) -> None:
        """Refuse another configuration, other scans, or the same ones with other voxels or labels."""
        before, path = self.description(), self.folder / RUN_NAME
        with parsing(path, TrainingError):
            apart = ("config", "split", "digests", "finished")
            # What was derived from the configuration may have the name of a setting, such as `init`.
            settings = (
                one["config"] | {f"run.{key}": one[key] for key in one if key not in apart} for one in (before, now)
            )
            check_config(self.folder, *settings)
            if before.get("split") != now.get("split"):
                raise TrainingError(
                    f"{self.folder}: the run was started with other scans or another split, or an earlier version drew "
                    f"its folds, see {path}; resume with the same scans and version"
                )
            changed = [
                name
                for part, digests in now.get("digests", {}).items()
                for name, old, new in zip(now["split"][part], before["digests"][part], digests, strict=True)
                if old != new
            ]
            if changed:
                raise TrainingError(
                    f"{self.folder}: {len(changed)} scans or their labels have changed since the run began, such as "
                    f"{changed[0]}; restore them, or start again in another folder"
                )

    def finish(self) -> None:
        """Note in `run.json` that everything is done, so that a resume has nothing to do."""
        write_json(self.folder / RUN_NAME, {**self.description(), "finished": True})

    def description(self, kind: str = "") -> dict[str, Any]:
        """Return the content of `run.json`.

        Args:
            kind: What the run has to be of: `"pretraining"` or `"finetuning"`; "" for either.

        Raises:
            TrainingError: It is missing, damaged, of another kind, or of a version whose runs cannot be resumed.
        """
        path = self.folder / RUN_NAME
        if not path.exists():
            raise TrainingError(f"{self.folder}: holds no run to resume; start one without --resume")
        content = read_json(path, TrainingError, _LIMIT)
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise TrainingError(f"{path}: does not describe a run; restore it, or start again in another folder")
        if "split" in content and "digests" not in content:
            raise TrainingError(
                f"{path}: is of version 0.1.0, which kept no digests of the scans, so that changes would go unnoticed; "
                f"start again in another folder, with --init {self.folder} from its best network"
            )
        if kind and (found := content.get("kind", kind)) != kind:
            raise TrainingError(f"{self.folder}: holds a run of {found}, expected {kind}; use its own command")
        return content

    def close(self) -> None:
        """Release the folder."""
        try:
            if self.events is not None:
                with self.trying_events():
                    self.events.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    @contextmanager
    def trying_events(self) -> Iterator[None]:
        """Write events; that they cannot be written is said, ends them, and never ends a run."""
        try:
            yield
        except OSError as error:
            self.events = None
            self.note(f"nothing more is written for TensorBoard: {error}")

    def log_step(self, row: Mapping[str, Any], name: str = LOG_NAME) -> None:
        """Append a step to `log.csv`, or its validation to another log; losses are not rounded.

        Raises:
            TrainingError: The disk is full or the folder vanished.
        """
        path = self.folder / name
        try:
            with path.open("a+", newline="") as file:  # its buffer holds a row, which is one write
                file.seek(0)
                columns = next(csv.reader(file), [])  # a log that another version began keeps its columns
                writer = csv.DictWriter(file, columns or list(row), extrasaction="ignore", lineterminator="\n")
                if not columns:  # empty, though it may have been there
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            reason = reason_of(error)
            raise TrainingError(f"{path}: cannot be written: {reason}; the last checkpoint is intact") from error
        if self.events is not None:
            with self.trying_events():
                for column, value in row.items():
                    self.events.add_scalar(f"{_GROUPS[name]}/{column}", value, row["step"])

    def truncate_logs(self, step: int) -> str:
        """Drop the rows after `step`, which the resumed run writes again, and what a crash or a full disk damaged.

        Returns:
            A note on rows that are lost, or "".
        """
        lost = step
        for path in (self.folder / LOG_NAME, self.folder / VALIDATION_NAME):
            lines, columns = list[str](), list[str]()
            if path.exists():
                with open_regular(path, TrainingError, _LIMIT) as file:
                    lines = file.read().decode(errors="replace").split("\n")[:-1]  # no cut last line
            reader = csv.reader(f"{line}\n" for line in lines)
            with suppress(csv.Error):
                columns = next(reader, columns)  # a name in it may go over several lines
            header, rows = lines[: reader.line_num], lines[reader.line_num :]
            if columns[:1] != ["step"] or set("\0\ufffd") & set("".join(header)):
                path.unlink(missing_ok=True)
                continue
            # Each row alone: a digit that has become a quotation mark would take those after it along.
            kept = [row for row in rows if _is_row(row.split(","), len(columns), step)]
            write_atomically(path, "".join(f"{line}\n" for line in (*header, *kept)), TrainingError)
            lost -= len(kept) if path.name == LOG_NAME else 0
        return f"{LOG_NAME} was damaged: {lost} of {step} steps are missing in it" if lost > 0 else ""

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the state of training and keep the one before; the logs are brought to the disk first.

        Raises:
            CheckpointError: The disk is full; the checkpoint before is intact.
        """
        if not self.checkpointed:
            return
        last, content = self.folder / LAST_NAME, io.BytesIO()
        torch.save(dict(state), content)
        with replacing(last) as temporary:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                # PyTorch does not compare the checksums of its archive, so that a flipped bit would be another weight;
                # but it passes over whatever follows the archive.
                file.write(hashlib.sha256(content.getbuffer()).digest())
            # The new one before the one that is there gives way, so that one of the two is always whole; and the logs
            # before either: after a loss of power, the rows up to a checkpoint could not be made again.
            for path in (temporary, self.folder / LOG_NAME, self.folder / VALIDATION_NAME):
                if path.exists():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            if last.exists():
                last.replace(self.folder / BEFORE_NAME)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, str]:
        """Return the newest whole state, None if none was written yet, and a note on it.

        Raises:
            TrainingError: There are checkpoints and none is whole.
        """
        last, before = self.folder / LAST_NAME, self.folder / BEFORE_NAME
        problem = ""
        for path in filter(Path.exists, (last, before)):
            try:
                state = _read_checkpoint(path)
            except TrainingError as error:
                problem = problem or str(error)
                continue
            if problem:
                last.unlink()  # or the next checkpoint would put it in the place of the good one
                problem = f"{LAST_NAME} is damaged and deleted; resuming from the checkpoint before, {BEFORE_NAME}"
            return state, problem
        if problem:
            raise TrainingError(
                f"{self.folder}: no whole checkpoint to resume from ({problem}); start again in another folder, with "
                f"--init {self.folder} from its best network"
            )
        return None, "no checkpoint was written yet: starting from the beginning"


def read_recorded(kind: type[Recorded], content: Any, folder: Path) -> Recorded:
    """Return what the `run.json` of a folder holds, or its configuration.

    Raises:
        TrainingError: It is of another version, or damaged; the message says how to go on.
    """
    try:
        return kind.from_dict(content)
    except ConfigurationError as error:
        problem = str(error).split("; ")[0]  # no key to write instead: a setting of another version is not misspelt
        raise TrainingError(
            f"{folder / RUN_NAME}: {problem}: the run is of another version, or this is damaged; start again in "
            f"another folder, with --init {folder} from its best network"
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Any]:
    with open_regular(path, TrainingError) as file, parsing(path, TrainingError):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            size = hashlib.sha256().digest_size
            if hashlib.sha256(content[:-size]).digest() != content[-size:]:
                raise TrainingError(f"{path}: does not match its digest: damaged, or of version 0.1.0")
        return torch.load(file, map_location="cpu", weights_only=True)


def hold_folder(folder: Path, name: str, work: str) -> FileLock:
    """Hold a folder until the lock is released or the process ends, however it ends.

    Args:
        folder: Created if missing.
        name: File of the lock in the folder.
        work: A verb for the message, such as `"trains"`.

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


def _is_row(cells: list[str], columns: int, step: int) -> bool:
    """Return whether a row of a log has a number in each column, the first at most `step`."""
    try:
        numbers = [float(cell or "nan") for cell in cells]
    except ValueError:
        return False
    return len(numbers) == columns and numbers[0] <= step


def check_config(folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse another configuration than a run has; `FREE_SETTINGS` may differ.

    Args:
        folder: The run, for the message.
        before: The run's configuration.
        now: Configuration to resume it with.

    Raises:
        TrainingError: It is another; the message lists the differences.
    """
    differences = [text for text in compare(before, now) if text.split(" ")[0] not in FREE_SETTINGS]
    if differences:
        raise TrainingError(f"{folder}: the run was started with another configuration: {'; '.join(differences[:8])}")


def compare(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two nested configurations, one phrase each; keys that `before` lacks came later.

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
