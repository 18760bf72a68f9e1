"""Trials: many small trainings, several at a time on processes of their own, and the folder of those that finished."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from modelsgenesis.configs.base import plain
from modelsgenesis.errors import GenesisError, Interrupted, TrainingError, counted, gpu_trouble, require
from modelsgenesis.files import parsing, read_json, write_json
from modelsgenesis.hardware import free_memory, lacks_memory
from modelsgenesis.training.run import compare, hold_folder
from modelsgenesis.training.splits import Split
from modelsgenesis.training.steps import end_with_parent
from modelsgenesis.training.trainer import DivergenceError, graceful_stop

DESCRIPTION_NAME = "comparison.json"
_WORK = ".work-"
_PATIENCE = 10.0  # seconds that a worker has to end its step before it is killed
_WAKE = 0.5  # seconds between looks at the signals
_MOST_JOBS = 8  # on one GPU

Record = dict[str, Any]
"""What a trial measured: JSON values."""

_train: Callable[["Trial"], Record]  # of a worker


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
        return f"{self.arm}, {counted(self.labels, 'label')}, seed {self.seed}{chosen}"

    @property
    def tuning(self) -> bool:
        """Whether it chooses settings: such a trial is measured on the validation patients alone."""
        return not self.split.test

    @property
    def asked(self) -> Record:
        """What its record says of it."""
        known = {"arm": self.arm, "labels": self.labels, "seed": self.seed, "settings": list(self.settings)}
        return {**known, "training": list(self.split.training)}

    @property
    def place(self) -> Path:
        """A folder of its own, relative to that of the comparison."""
        name = "-".join([f"seed-{self.seed}", *(map(file_name, self.settings) if self.tuning else ())])
        return Path("tuning" if self.tuning else "runs", file_name(self.arm), f"labels-{self.labels}", name)


def file_name(name: str) -> str:
    """Return a name as a file or folder may be called.

    Example:
        >>> file_name("genesis 2D, ours")
        'genesis-2D-ours'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "arm"


class Records:
    """The finished trials of a comparison in its folder, which one process holds at a time.

    Args:
        folder: New, empty, or of the same comparison.

    Raises:
        TrainingError: It holds something else, cannot be written, or another process is at work in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # Hidden files do not count: a start that was killed at once leaves its lock or its work folder.
        held = {item.name for item in self.folder.glob("*") if not item.name.startswith(".")}
        free = self.folder.is_dir() or not self.folder.exists()
        if not free or (held and DESCRIPTION_NAME not in held):
            raise TrainingError(f"{self.folder}: holds something else, or is a file; choose a new folder")
        self.close = hold_folder(self.folder, ".lock", "compares").release

    def describe(self, asked: Mapping[str, Any]) -> None:
        """Write what is asked, or compare it with what was asked before in this folder.

        Args:
            asked: Sections by name: what one names must not change, but it may grow. Label counts and the number of
                runs are in none: more of them may be asked for.

        Raises:
            TrainingError: The folder belongs to another comparison; the message lists the differences.
        """
        path, differences = self.folder / DESCRIPTION_NAME, list[str]()
        before = read_json(path, TrainingError) if path.exists() else {name: {} for name in asked}
        with parsing(path, TrainingError, remedy="restore it, or choose another folder for the output"):
            for name, section in plain(asked).items():
                known = before[name]
                differences += compare({key: known[key] for key in known if key in section}, section)
                before[name] = {**known, **section}
        if differences:
            told = f"{self.folder}: holds a comparison with another configuration: {'; '.join(differences[:8])}"
            raise TrainingError(f"{told}; choose another folder for the output")
        write_json(path, before, TrainingError)

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
        # A flipped digit is still JSON, and would be a wrong result.
        if not isinstance(record, dict) or record.pop("sha256", None) != _digest(record):
            raise TrainingError(f"{path}: is damaged or not a record of a run; delete it, and the same command resumes")
        differences = "; ".join(compare({key: record.get(key) for key in ("training", "settings")}, trial.asked))
        told = f"{path}: was made otherwise: {differences}; delete it or choose another folder"
        require(not differences, TrainingError, told)
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
        train: Makes a record of a trial; it is sent to each process once, and may keep what the next trial needs.
        jobs: Processes; with 1 this process trains by itself, with all its threads.

    Raises:
        TrainingError: A trial failed, or a process died.
        Interrupted: A signal came; the trials that had not ended are lost, the others were yielded.
    """
    if jobs <= 1 or len(trials) <= 1:
        yield from ((trial, _attempt(trial, train)) for trial in trials)
        return
    # As many trials at once as there are processes: a queue of the pool would begin others after an interruption.
    waiting, at_work = deque(trials), dict[Future[Record], Trial]()
    with graceful_stop() as signals, _workers(min(jobs, len(trials)), train) as pool:
        while waiting or at_work:
            # A terminal sends Ctrl-C to all processes. This one answers and ends the others: they start here, and
            # what is blocked in a process is blocked in those that it starts.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            while waiting and len(at_work) < jobs:
                trial = waiting.popleft()
                at_work[pool.submit(_attempt, trial)] = trial
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            ended = wait(at_work, _WAKE, FIRST_COMPLETED).done
            if signals:
                raise Interrupted(signals[0], "interrupted")
            try:
                for future in ended:
                    yield at_work[future], future.result()
                    del at_work[future]
            except BrokenProcessPool as error:
                trained = "; ".join(map(str, at_work.values()))
                told = f"a process died, perhaps out of memory, while training: {trained}"
                raise TrainingError(f"{told}; the same command with fewer --jobs resumes") from error


@contextlib.contextmanager
def _workers(jobs: int, train: Callable[[Trial], Record]) -> Iterator[ProcessPoolExecutor]:
    """Give processes that end with this block, however it ends."""
    others = set(active_children())
    # Spawned, not forked: a fork of a process whose libraries have started threads may hang.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin_worker, (threads_of_a_worker(jobs), train))
    try:
        yield pool
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


def threads_of_a_worker(jobs: int) -> int:
    """Return the threads of each process: its share of the cores, at most `OMP_NUM_THREADS` where that is set."""
    # With more threads than cores every operation waits for the slowest of them.
    limit = os.environ.get("OMP_NUM_THREADS", "")
    share = max(_usable_cores() // jobs, 1)
    return min(share, int(limit)) if limit.isdecimal() and int(limit) > 0 else share


def jobs_at_once(device: torch.device, needed: float) -> int:
    """Return how many trainings of so many bytes run side by side on a device: on CUDA what fits, on a CPU one.

    A small network leaves a GPU idle for the most part, between its kernels and while cases are measured. A CPU works
    all the time, and each process takes memory of its own.
    """
    if device.type != "cuda":
        return 1
    return max(1, min(_usable_cores() // 2, _MOST_JOBS, int((free_memory(device) or 0) / needed)))


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker(threads: int, train: Callable[[Trial], Record]) -> None:
    global _train
    end_with_parent()
    torch.set_num_threads(threads)
    _train = train


def _attempt(trial: Trial, train: Callable[[Trial], Record] | None = None) -> Record:
    """Return the record of a trial, in a worker by what it was given; its errors are of a class that can be pickled."""
    try:
        return plain((train or _train)(trial))
    except DivergenceError:
        return {**trial.asked, "diverged": True}
    except (GenesisError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, GenesisError) else error
        trouble = gpu_trouble(cause) if isinstance(cause, RuntimeError) else ""
        if isinstance(error, RuntimeError) and not trouble:
            raise
        told = f"{trouble}; the same command resumes" if trouble else str(error)
        shared = parent_process() is not None and (trouble or lacks_memory(cause))
        raise TrainingError(f"{trial}: {told}{', or one with fewer --jobs' if shared else ''}") from None
    except Interrupted:
        if parent_process() is None:
            raise
        raise TrainingError(f"{trial}: interrupted") from None  # what is no Exception would break the pool
