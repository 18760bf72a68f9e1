"""Trials on several processes: each trains one network at a time on its share of the cores."""

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from modelsgenesis.comparison.trials import Bench, Trial, run_trial
from modelsgenesis.errors import GenesisError, Interrupted, NonFiniteLossError, TrainingError
from modelsgenesis.training.signals import GracefulStop

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
            yield trial, _run_here(trial, bench, train)
        return
    pool = _Pool(bench, min(jobs, len(trials)), train)
    try:
        yield from pool.run(trials)
    finally:
        pool.close()


def _run_here(trial: Trial, bench: Bench, train: Train) -> Record | None:
    try:
        return _run(trial, bench, train)
    except GenesisError as error:
        raise TrainingError(f"{trial}: {error}") from error


def threads_of_a_worker(jobs: int) -> int:
    """Return the threads of each process: its share of the cores, at most `OMP_NUM_THREADS` where that is set."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    share = max(usable // jobs, 1)
    return min(share, int(limit)) if limit.isdigit() and int(limit) > 0 else share


class _Pool:
    """Worker processes, each at the other end of a pipe.

    They are spawned, not forked: a fork of a process whose libraries have started threads may hang.
    """

    def __init__(self, bench: Bench, jobs: int, train: Train) -> None:
        context = get_context("spawn")
        threads = threads_of_a_worker(jobs)
        self.processes: dict[connection.Connection, SpawnProcess] = {}
        with _deaf_to_interrupts():
            for _ in range(jobs):
                self._start(context, bench, threads, train)

    def _start(self, context: SpawnContext, bench: Bench, threads: int, train: Train) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, bench, threads, train))
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.processes[ours] = process  # pyright: ignore[reportArgumentType]

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Record | None]]:
        waiting, at_work = deque(trials), dict[connection.Connection, Trial]()
        with GracefulStop() as stop:
            for pipe in self.processes:
                self._give(pipe, waiting, at_work)
            while at_work:
                for pipe in connection.wait(list(at_work), timeout=_WAKE):
                    assert isinstance(pipe, connection.Connection)  # noqa: S101 - for the type checker
                    trial = at_work.pop(pipe)
                    yield trial, _answer(pipe, trial, stop)
                    self._give(pipe, waiting, at_work)
                if stop.received is not None:
                    raise Interrupted(stop.received, "interrupted")

    @staticmethod
    def _give(pipe: connection.Connection, waiting: deque[Trial], at_work: dict[connection.Connection, Trial]) -> None:
        if waiting:
            at_work[pipe] = waiting.popleft()
            with suppress(OSError):  # its process has died, which the next look at the pipe tells
                pipe.send(at_work[pipe])

    def close(self) -> None:
        """End the processes: those at work after their step, and whoever does not is killed."""
        for pipe, process in self.processes.items():
            pipe.close()
            process.terminate()
        for process in self.processes.values():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self.processes = {}


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore SIGINT within the block, and in every process started in it: of Ctrl-C their parent tells them."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: signals are the business of the program that called us
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(pipe: connection.Connection, trial: Trial, stop: GracefulStop) -> Record | None:
    """Return what a worker measured, or raise what it met."""
    try:
        kind, content = pipe.recv()
    except (EOFError, ConnectionResetError):
        if stop.received is not None:
            raise Interrupted(stop.received, "interrupted") from None
        raise TrainingError(
            f"{trial}: its process died, perhaps for want of memory; the same command with fewer --jobs goes on"
        ) from None
    if kind == "error":
        raise TrainingError(f"{trial}: {content}")
    if kind == "bug":
        raise RuntimeError(f"{trial}: {content}")
    return content


def _work(pipe: connection.Connection, bench: Bench, threads: int, train: Train) -> None:
    """Train what comes through the pipe until it closes."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            trial = pipe.recv()
        except EOFError:
            return
        try:
            answer = _attempt(trial, bench, train)
        except Interrupted:
            return
        try:
            pipe.send(answer)
        except OSError:  # nobody waits for it any more
            return


def _attempt(trial: Trial, bench: Bench, train: Train) -> tuple[str, Any]:
    """Return what came of a trial, in a form that reaches the parent whatever it is."""
    try:
        return "record", _run(trial, bench, train)
    except GenesisError as error:
        return "error", str(error)
    except Exception:  # a defect: the parent raises it with this process's traceback
        return "bug", traceback.format_exc()


def _run(trial: Trial, bench: Bench, train: Train) -> Record | None:
    try:
        return train(trial, bench)
    except NonFiniteLossError:
        return None


def _end_with_parent() -> None:
    """End this process at once when the one that started it is gone, however that ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
