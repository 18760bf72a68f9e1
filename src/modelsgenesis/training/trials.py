"""Trials: many small trainings, several at a time on processes of their own, and the folder of those that finished."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from modelsgenesis.configs.base import plain
from modelsgenesis.configs.comparison import file_name
from modelsgenesis.errors import GenesisError, Interrupted, TrainingError
from modelsgenesis.files import parsing, read_json, write_json
from modelsgenesis.training.run import compare, hold_folder
from modelsgenesis.training.sampler import end_with_parent
from modelsgenesis.training.splits import Split
from modelsgenesis.training.trainer import DivergenceError, graceful_stop

DESCRIPTION_NAME = "comparison.json"
_WORK = ".work-"
_PATIENCE = 10.0  # seconds that a worker has to end its step before it is killed
_WAKE = 0.5  # seconds between looks at the signals

Record = dict[str, Any]
"""What a trial measured: JSON values."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training.

    Attributes:
        arm: Name of the initialisation.
        labels: Number of patients whose labels are learnt from.
        seed: Seed of what is new in the network, of order and augmentation.
        split: The cases that it learns from, is chosen by, and is measured on.
        settings: `key=value` on top of the arm's own: a candidate, or what was chosen.
    """

    arm: str
    labels: int
    seed: int
    split: Split
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        chosen = f" with {', '.join(self.settings)}" if self.settings else ""
        return f"{self.arm}, {self.labels} labels, seed {self.seed}{chosen}"

    @property
    def tuning(self) -> bool:
        """Whether it chooses settings: such a trial is measured on the validation patients alone."""
        return not self.split.test

    @property
    def place(self) -> Path:
        """A folder of its own, relative to that of the comparison."""
        name = "-".join([f"seed-{self.seed}", *(map(file_name, self.settings) if self.tuning else ())])
        return Path("tuning" if self.tuning else "runs", file_name(self.arm), f"labels-{self.labels}", name)


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

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()

    def describe(
        self,
        description: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Write what is asked, or compare it with what was asked before in this folder.

        Args:
            description: `fixed` must not change; `arms`, by name, must not change but may grow. Label counts and the
                number of runs are not in it: they may grow.
            defaults: Values of `fixed.training` for fields that a version before did not have.
            files: Digests of the files of cases, by name, which must not change but may grow.

        Raises:
            TrainingError: The folder belongs to another comparison; the message lists the differences.
        """
        content, path = {**plain(description), "files": dict(files or {})}, self.folder / DESCRIPTION_NAME
        if path.exists():
            before = read_json(path, TrainingError)
            with parsing(path, TrainingError, remedy="restore it, or choose another folder for the output"):
                fixed = {**before["fixed"], "training": {**plain(defaults or {}), **before["fixed"]["training"]}}
                differences = compare(fixed, content["fixed"])
                for key in ("arms", "files"):
                    known, asked = dict(before.get(key, {})), content[key]
                    differences += compare({name: known[name] for name in known if name in asked}, asked)
                    content[key] = {**known, **asked}
            if differences:
                raise TrainingError(
                    f"{self.folder}: holds a comparison with another configuration: {'; '.join(differences[:8])}; "
                    "choose another folder for the output"
                )
        write_json(path, content, TrainingError)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Give a folder for what only this process and its workers read; it goes at the end, with any left behind."""
        for old in self.folder.glob(f"{_WORK}*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_WORK) as folder:
            yield Path(folder)

    def path(self, trial: Trial) -> Path:
        """Return the file of a trial."""
        return self.folder / trial.place.parent / f"{trial.place.name}.json"

    def read(self, trial: Trial) -> Record | None:
        """Return what a finished trial measured, None where it has not finished.

        Raises:
            TrainingError: The file is damaged, or the trial learnt from other cases or with other settings.
        """
        path = self.path(trial)
        if not path.exists():
            return None
        record = read_json(path, TrainingError)
        if not isinstance(record, dict) or record.pop("sha256", None) != _digest(record):
            raise TrainingError(f"{path}: is damaged or not a record of a run; delete it, and the same command resumes")
        asked = {"training": list(trial.split.training), "settings": list(trial.settings)}
        if differences := compare({key: record.get(key) for key in asked}, asked):
            raise TrainingError(
                f"{path}: was made otherwise: {'; '.join(differences)}; delete it or choose another folder"
            )
        return record

    def write(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Keep what a finished trial measured, with a digest of it.

        Raises:
            TrainingError: The disk is full; the trials before are intact.
        """
        write_json(self.path(trial), {**record, "sha256": _digest(record)}, TrainingError)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def run_trials(
    trials: Sequence[Trial], train: Callable[[Trial], Record], jobs: int = 1
) -> Iterator[tuple[Trial, Record]]:
    """Train, and yield each trial with its record as it ends; that of one that diverged says so and no more.

    Args:
        trials: In the order to begin them.
        train: Makes a record of a trial; it can be sent to a process.
        jobs: Processes; with 1 this process trains by itself, with all its threads.

    Raises:
        TrainingError: A trial failed, or a process died.
        Interrupted: A signal came; the trials that had not ended are lost, the others were yielded.
    """
    if jobs <= 1 or len(trials) <= 1:
        for trial in trials:
            yield trial, _record(trial, _attempt(trial, train))
        return
    jobs = min(jobs, len(trials))
    others = set(active_children())
    # Spawned, not forked: a fork of a process whose libraries have started threads may hang.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin_worker, (threads_of_a_worker(jobs),))
    try:
        with graceful_stop() as signals:
            yield from _run(pool, jobs, trials, train, signals)
    finally:
        # The executor would wait for its trials, which take minutes; told to end, a worker ends after its step.
        workers = set(active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(_PATIENCE)
            worker.kill()
            worker.join()


def _run(
    pool: ProcessPoolExecutor,
    jobs: int,
    trials: Sequence[Trial],
    train: Callable[[Trial], Record],
    signals: Sequence[int],
) -> Iterator[tuple[Trial, Record]]:
    # As many as there are processes, and no more: a queue of the pool would begin others after an interruption.
    waiting, at_work = deque(trials), dict[Future[Any], Trial]()
    while waiting or at_work:
        with _ignoring_interrupts():  # also in the workers that start here: this process tells them of Ctrl-C
            while waiting and len(at_work) < jobs:
                trial = waiting.popleft()
                at_work[pool.submit(_attempt, trial, train, in_worker=True)] = trial
        ended = wait(at_work, _WAKE, FIRST_COMPLETED).done
        if signals:
            raise Interrupted(signals[0], "interrupted")
        for future in ended:
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                trained = "; ".join(map(str, at_work.values()))
                raise TrainingError(
                    f"a process died, perhaps for want of memory, while these were trained: {trained}; the same "
                    "command with fewer --jobs resumes"
                ) from error
            trial = at_work.pop(future)
            yield trial, _record(trial, outcome)


def threads_of_a_worker(jobs: int) -> int:
    """Return the threads of each process: its share of the cores, at most `OMP_NUM_THREADS` where that is set."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    share = max(usable // jobs, 1)
    return min(share, int(limit)) if limit.isdecimal() and int(limit) > 0 else share


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ignore SIGINT within the block, and in every process started in it."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: signals are the business of the program that called us
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin_worker(threads: int) -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(threads)


def _attempt(trial: Trial, train: Callable[[Trial], Record], *, in_worker: bool = False) -> Record | str:
    """Return the record of a trial, or what went wrong: not every exception can be pickled."""
    try:
        return train(trial)
    except DivergenceError:
        asked = {key: getattr(trial, key) for key in ("arm", "labels", "seed", "settings")}
        return {**asked, "training": trial.split.training, "diverged": True}
    except GenesisError as error:
        return str(error)
    except Interrupted:
        if not in_worker:
            raise
        return "interrupted"  # nobody waits for it any more


def _record(trial: Trial, outcome: Record | str) -> Record:
    if isinstance(outcome, str):
        raise TrainingError(f"{trial}: {outcome}")
    return plain(outcome)
