import threading
import weakref

import numpy as np
import pytest

from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.inference.stages import Stages, each_case
from recorded_notes import Notes


class Work:
    """Stages that keep what they did, and which cases were in memory together; `fails` maps (stage, case) to errors."""

    def __init__(self, **fails):
        self.fails, self.done, self.held, self.most = fails, [], set(), 0

    def _do(self, stage, case):
        self.done.append(f"{stage} {case}")
        self.held.add(case)
        self.most = max(self.most, len(self.held))
        if errors := self.fails.get(f"{stage}_{case}"):
            self.held.discard(case)
            error, self.fails[f"{stage}_{case}"] = errors[0], errors[1:]
            raise error

    def prepare(self, case):
        self._do("prepare", case)
        return case

    def compute(self, ready):
        self._do("compute", ready)
        return ready.upper()

    def finish(self, case, found):
        self._do("finish", case)
        self.held.discard(case)
        return found

    def run(self, cases="abcd", *, strict=False, notes=None):
        named = [(f"scan {case}", case) for case in cases]
        stages = Stages(self.prepare, self.compute, self.finish)
        return each_case(named, stages, title="working", strict=strict, reporter=notes or Notes())


def test_results_come_in_the_order_of_the_cases_and_two_are_in_memory():
    work = Work()
    assert work.run() == (list("ABCD"), [])
    assert len(work.done) == 12
    assert work.most == 2
    assert Work().run("") == ([], [])


@pytest.mark.timeout(20)
def test_a_scan_is_read_and_another_finished_while_the_network_computes():
    events = {name: threading.Event() for name in ("prepare c", "finish a")}

    class Waiting(Work):
        def compute(self, ready):  # without the other thread it would wait forever
            assert ready != "b" or all(event.wait(10) for event in events.values())
            return super().compute(ready)

        def _do(self, stage, case):
            super()._do(stage, case)
            events.get(f"{stage} {case}", threading.Event()).set()

    assert Waiting().run()[0] == list("ABCD")


@pytest.mark.parametrize("stage", ["prepare", "compute", "finish"])
def test_a_bad_scan_costs_the_others_nothing_and_ends_a_strict_run(stage):
    bad, notes = {f"{stage}_b": [ScanError("is torn")]}, Notes()
    results, [skipped] = Work(**bad).run(notes=notes)
    assert (results, skipped.source, skipped.reason) == (list("ACD"), "scan b", "is torn")
    assert notes.notes == ["skipped scan b: is torn"]
    work = Work(**bad)
    with pytest.raises(ScanError, match="scan b: is torn"):
        work.run(strict=True)
    assert "finish a" in work.done
    assert "finish d" not in work.done


@pytest.mark.parametrize("stage", ["prepare", "compute", "finish"])
@pytest.mark.parametrize("kind", ["plain", "told"])
def test_a_scan_that_lacked_memory_beside_another_is_done_again_by_itself(stage, kind):
    error = MemoryError()
    if kind == "told":
        error = ConfigurationError("cpu: its memory does not hold a window")
        error.__cause__ = RuntimeError("can't allocate memory")
    work, notes = Work(**{f"{stage}_b": [error]}), Notes()
    assert work.run(notes=notes) == (list("ABCD"), [])
    assert work.done[-3:] == ["prepare b", "compute b", "finish b"]
    assert not notes.notes
    _, [skipped] = Work(**{f"{stage}_b": [MemoryError(), MemoryError()]}).run()
    assert skipped.reason == "does not fit into memory"


@pytest.mark.parametrize("stage", ["prepare", "compute", "finish"])
@pytest.mark.parametrize("kind", ["lacking", "told", "bad"])
def test_what_a_scan_that_failed_took_is_free_for_those_after_it(stage, kind):
    taken, alive = [], []

    class Taking(Work):
        def _do(self, stage, case):
            array = np.zeros(10)
            if self.fails.get(f"{stage}_{case}"):
                taken.append(weakref.ref(array))
            elif (stage, case) == ("finish", "d"):
                alive.extend(one() for one in taken)
            try:
                super()._do(stage, case)
            except MemoryError as error:
                if kind == "told":
                    raise ConfigurationError("cpu: its memory does not hold it") from error
                raise

    error = ScanError("is torn") if kind == "bad" else MemoryError()
    results, skipped = Taking(**{f"{stage}_b": [error]}).run()
    assert (len(results), len(skipped)) == ((3, 1) if kind == "bad" else (4, 0))
    assert alive == [None]


@pytest.mark.parametrize("error", [ConfigurationError("fits no case"), ZeroDivisionError(), KeyboardInterrupt()])
def test_whatever_else_ends_the_run_once_the_scan_before_is_finished(error):
    work = Work(compute_c=[error])
    with pytest.raises(type(error)):
        work.run()
    assert "finish b" in work.done
    assert "compute d" not in work.done
