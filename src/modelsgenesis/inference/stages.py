"""Many cases one after another: while the network computes one, the one before is finished and the next one read."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from modelsgenesis.data import SkippedScan
from modelsgenesis.errors import GenesisError, ScanError, ShapeError
from modelsgenesis.hardware import lacks_memory
from modelsgenesis.reporting import Reporter

Result = TypeVar("Result")


class Stages(NamedTuple, Generic[Result]):
    """The work on a case in three steps, of which the second alone needs the network.

    Attributes:
        prepare: A case to what is computed.
        compute: That to what was found, in the thread that calls.
        finish: The case and what was found to the result.
    """

    prepare: Callable[[Any], Any]
    compute: Callable[[Any], Any]
    finish: Callable[[Any, Any], Result]


def each_case(
    cases: Sequence[tuple[str, Any]], stages: Stages[Result], *, title: str, strict: bool, reporter: Reporter
) -> tuple[list[Result], list[SkippedScan]]:
    """Do the work on each case; one that cannot be used is reported and skipped, unless `strict`.

    One thread finishes a case and then reads the next while the network computes the one between, so that two cases
    are in memory. One that lacked memory beside the other is done again by itself, when all others are done.

    Args:
        cases: What a message calls each, and the case.
        stages: The work; it raises an error of this package for a case that cannot be used.
        title: Title of the progress, such as `"predicting 3 scans"`.
        strict: A bad case ends the run; the one after it may have been computed by then, and is finished.
        reporter: Receives the progress.

    Returns:
        The results, and what was skipped, in the order of the cases.

    Raises:
        ScanError: A case cannot be used and `strict` is set.
    """
    results: dict[int, Result] = {}
    skipped: dict[int, SkippedScan] = {}
    crowded: list[int] = []  # lacked memory

    def settle(index: int, outcome: Callable[[], Result], *, alone: bool = False) -> None:
        try:
            results[index] = outcome()
        except (GenesisError, MemoryError) as error:
            _free(error)
            if not alone and (lacks_memory(error) or lacks_memory(error.__cause__)):
                crowded.append(index)
                return
            skip = skipped[index] = _skip(cases[index][0], error)
            if strict:
                raise ScanError(f"{skip.source}: {skip.reason}") from error
            reporter.note(f"skipped {skip.source}: {skip.reason}")
        reporter.advance(len(results) + len(skipped))

    reporter.begin(title, len(cases))
    _overlap([case for _, case in cases], stages, settle)
    for index in crowded:
        case = cases[index][1]
        settle(index, lambda case=case: stages.finish(case, stages.compute(stages.prepare(case))), alone=True)
    reporter.end()
    return [results[index] for index in sorted(results)], [skipped[index] for index in sorted(skipped)]


def _overlap(cases: Sequence[Any], stages: Stages[Result], settle: Callable[[int, Callable[[], Result]], None]) -> None:
    """Hand the result of each case, or the error of any stage, to `settle`, in their order."""
    pending: Mapping[int, Callable[[], Result]] = {}
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(stages.prepare, case) for case in cases[:1]]
        try:
            for index, case in enumerate(cases):
                coming += [thread.submit(stages.prepare, following) for following in cases[index + 1 : index + 2]]
                failed, now = {}, {}
                try:
                    now = {index: thread.submit(stages.finish, case, stages.compute(coming.pop(0).result())).result}
                except (GenesisError, MemoryError) as error:
                    failed = {index: _failed(error)}
                for before, outcome in (*pending.items(), *failed.items()):
                    settle(before, outcome)
                pending = now
            for before, outcome in pending.items():
                settle(before, outcome)
        finally:  # what was computed is written; what was not is not begun
            for future in coming:
                future.cancel()


def _free(error: BaseException | None) -> None:
    """Free what the frames of an error, and of those behind it, still hold: the arrays of a case."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _failed(error: BaseException) -> Callable[[], Any]:
    _free(error)

    def fail() -> Any:
        raise error

    return fail


def _skip(name: str, error: GenesisError | MemoryError) -> SkippedScan:
    """Return a case as skipped; raise what must not look like one bad scan: a bug, or a model that fits no case."""
    if not isinstance(error, (ScanError, ShapeError, MemoryError)):
        raise error
    return SkippedScan.because(name, "does not fit into memory" if isinstance(error, MemoryError) else error)
