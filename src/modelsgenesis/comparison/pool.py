"""Trials on several processes: each trains one network at a time on its share of the cores."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

from modelsgenesis.comparison.trials import Bench, Trial, run_trial
from modelsgenesis.errors import GenesisError, Interrupted, TrainingError
from modelsgenesis.training.sampler import end_with_parent
from modelsgenesis.training.trainer import DivergenceError, graceful_stop

Record = dict[str, Any]
Train = Callable[[Trial, Bench], Record]

_PATIENCE = 10.0  # seconds that a worker has to end its step before it is killed
_WAKE = 0.5  # seconds between looks at the signals


def run_trials(
    trials: Sequence[Trial], bench: Bench, jobs: int = 1, train: Train = run_trial
) -> Iterator[tuple[Trial, Record | None]]:
    """Train, and yield each trial with what it measured as it ends; None for one that diverged.

    Args:
        trials: In the order to begin them.
        bench: Arms, data and device.
        jobs: Processes; with 1 this process trains by itself, with all its threads.
        train: Makes a record of a trial; a function of a module.

    Raises:
        TrainingError: A trial failed, or a process died.
        Interrupted: A signal came; the trials that had not ended are lost, the others were yielded.
    """
    if jobs <= 1 or len(trials) <= 1:
        for trial in trials:
            yield trial, _record(trial, _attempt(trial, bench, train, interruptible=True))
        return
    jobs = min(jobs, len(trials))
    others = set(active_children())
    # Spawned, not forked: a fork of a process whose libraries have started threads may hang.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin_worker, (threads_of_a_worker(jobs),))
    try:
        with graceful_stop() as signals:
            yield from _run(pool, jobs, trials, bench, train, signals)
    finally:
        workers = set(active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:  # those at work end after their step
            worker.terminate()
        for worker in workers:
            worker.join(_PATIENCE)
            worker.kill()
            worker.join()


def _run(
    pool: ProcessPoolExecutor, jobs: int, trials: Sequence[Trial], bench: Bench, train: Train, signals: list[int]
) -> Iterator[tuple[Trial, Record | None]]:
    waiting, at_work = deque(trials), dict[Future[Any], Trial]()
    while waiting or at_work:
        with _deaf_to_interrupts():  # the workers, which start here, are told of Ctrl-C by this process
            while waiting and len(at_work) < jobs:
                trial = waiting.popleft()
                at_work[pool.submit(_attempt, trial, bench, train)] = trial
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
                    "command with fewer --jobs goes on"
                ) from error
            trial = at_work.pop(future)
            yield trial, _record(trial, outcome)


def threads_of_a_worker(jobs: int) -> int:
    """Return the threads of each process: its share of the cores, at most `OMP_NUM_THREADS` where that is set."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    share = max(usable // jobs, 1)
    return min(share, int(limit)) if limit.isdecimal() and int(limit) > 0 else share


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
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


def _attempt(trial: Trial, bench: Bench, train: Train, *, interruptible: bool = False) -> Record | str | None:
    """Return the record of a trial, None if it diverged, or what went wrong: not every exception can be sent."""
    try:
        return train(trial, bench)
    except DivergenceError:
        return None
    except GenesisError as error:
        return str(error)
    except Interrupted:
        if interruptible:
            raise
        return "interrupted"  # nobody waits for it any more


def _record(trial: Trial, outcome: Record | str | None) -> Record | None:
    if isinstance(outcome, str):
        raise TrainingError(f"{trial}: {outcome}")
    return outcome
