import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from modelsgenesis.comparison.pool import _attempt, _record, run_trials, threads_of_a_worker
from modelsgenesis.comparison.trials import Bench, Trial
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import Interrupted, TrainingError
from stub_trials import train

DATA = LabelledData(name="none", task="segmentation", cases=(), labels=("background",))


def trials(*arms):
    return [Trial(arm=arm, labels=5, seed=seed, cases=()) for seed, arm in enumerate(arms)]


@pytest.fixture
def bench(tmp_path):
    return Bench(arms={}, data=DATA, device="cpu", parts={}, models=tmp_path)


@pytest.fixture(autouse=True)
def _nobody_is_left():
    yield
    assert not multiprocessing.active_children()


def test_two_processes_train_side_by_side_on_their_share_of_the_cores(bench, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = dict(run_trials(trials("a", "b", "diverge", "c"), bench, 2, train))
    assert {trial.seed: record and record["seed"] for trial, record in found.items()} == {0: 0, 1: 1, 2: None, 3: 3}
    records = [record for record in found.values() if record]
    assert os.getpid() not in {record["process"] for record in records}
    assert {record["threads"] for record in records} == {1}


def test_a_process_that_died_names_what_was_trained_and_ends_the_others(bench):
    with pytest.raises(TrainingError, match=r"a process died.*: .*die, 5 labels, seed 1; .*fewer --jobs"):
        list(run_trials(trials("a", "die"), bench, 2, train))


def test_what_a_process_met_can_be_sent_and_is_raised_by_its_parent(bench):
    [trial] = trials("error")
    outcome = pickle.loads(pickle.dumps(_attempt(trial, bench, train)))
    with pytest.raises(TrainingError, match="error, 5 labels, seed 0: no such patient"):
        _record(trial, outcome)


def test_a_signal_ends_all_processes(bench):
    def interrupt():
        deadline = time.monotonic() + 200
        while len(list(bench.models.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted) as stop:
        list(run_trials(trials("sleep", "sleep"), bench, 2, train))
    assert stop.value.signum == signal.SIGINT


def test_one_job_trains_in_this_process(bench):
    found = dict(run_trials(trials("a", "diverge"), bench, 1, train))
    assert [record and record["process"] for record in found.values()] == [os.getpid(), None]
    with pytest.raises(TrainingError, match="error, 5 labels, seed 0: no such patient"):
        list(run_trials(trials("error"), bench, 1, train))


def test_threads_are_a_share_of_the_cores_and_never_more_than_allowed(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of_a_worker(jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_of_a_worker(jobs) for jobs in (1, 8)] == [2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # a list, for nested regions, limits nothing here
    assert threads_of_a_worker(1) == 8
