import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import pytest
import torch

from fake_trainings import train
from modelsgenesis.errors import Interrupted, TrainingError
from modelsgenesis.training import trials as training_trials
from modelsgenesis.training.splits import Split
from modelsgenesis.training.trials import Records, Trial, jobs_at_once, run_trials, threads_of_a_worker

SPLIT = Split(training=("a", "b"), validation=(), test=("c",))
TRIAL = Trial(arm="scratch", labels=5, seed=0, split=SPLIT)
RECORD = {"training": ["a", "b"], "settings": [], "test": {"dice": 0.53}}
ARM = {"weights": None, "settings": []}
ASKED = {"asked": {"training": {"steps": 8}}, "arms": {"scratch": ARM}, "files": {"a": "01"}}


def trials(*arms):
    return [Trial(arm=arm, labels=5, seed=seed, split=SPLIT) for seed, arm in enumerate(arms)]


@pytest.fixture(autouse=True)
def _nobody_is_left():
    yield
    # The executor's own thread may be the one that reaps a process, and takes it off the list a moment later.
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_two_processes_train_side_by_side_on_their_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = {trial.seed: record for trial, record in run_trials(trials("a", "b", "diverge", "c"), train, 2)}
    assert found.pop(2)["diverged"]
    assert {seed: record["seed"] for seed, record in found.items()} == {0: 0, 1: 1, 3: 3}
    assert os.getpid() not in {record["process"] for record in found.values()}
    assert {record["threads"] for record in found.values()} == {1}


def test_a_signal_ends_all_processes(tmp_path):
    def interrupt():
        deadline = time.monotonic() + 200
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted) as stop:
        list(run_trials(trials("sleep", "sleep"), partial(train, folder=tmp_path), 2))
    assert stop.value.signum == signal.SIGINT


def test_one_job_trains_in_this_process_and_an_error_names_its_trial():
    found = [record for _, record in run_trials(trials("a", "diverge"), train)]
    assert (found[0]["process"], found[1]["diverged"]) == (os.getpid(), True)
    with pytest.raises(TrainingError, match="error, 5 labels, seed 0: no such patient"):
        list(run_trials(trials("error"), train))


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("a", "die"), r"a process died.*: .*die, 5 labels, seed 1; .*fewer --jobs"),
        (("interrupted", "a"), "interrupted, 5 labels, seed 0: interrupted"),
        (("memory", "a"), "memory, 5 labels, seed 0: start again with batch_size=2, or one with fewer --jobs"),
        (
            ("lost", "a"),
            "lost, 5 labels, seed 0: the GPU failed: CUDA error: device lost; .*resumes, or one with fewer",
        ),
    ],
)
def test_what_ends_in_a_process_names_its_trial_and_ends_the_others(arms, message):
    with pytest.raises(TrainingError, match=message):
        list(run_trials(trials(*arms), train, 2))


def test_trainings_share_a_gpu_as_far_as_memory_and_cores_last_and_have_a_cpu_alone(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(training_trials, "free_memory", lambda device: 20e9)
    gpu = torch.device("cuda")
    assert [jobs_at_once(gpu, needed) for needed in (1e9, 6e9, 30e9)] == [6, 3, 1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert jobs_at_once(gpu, 1e9) == 8
    assert jobs_at_once(torch.device("cpu"), 1e9) == 1


def test_threads_are_a_share_of_the_cores_and_never_more_than_allowed(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of_a_worker(jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_of_a_worker(jobs) for jobs in (1, 8)] == [2, 1]


@pytest.fixture
def records(tmp_path):
    records = Records(tmp_path / "compared")
    records.describe(ASKED)
    yield records
    records.close()


def test_another_configuration_is_refused_but_more_arms_and_files_may_come_and_stay_known(records):
    records.describe({"arms": {"genesis": {**ARM, "weights": "x"}}, "files": {"b": "03"}})
    changed = {"arms": {"scratch": {**ARM, "weights": "y"}, "genesis": ARM}, "files": {"a": "02", "b": "03"}}
    arms = r"genesis\.weights was x, now None; scratch\.weights was None, now y"
    with pytest.raises(TrainingError, match=rf"another configuration: training\.steps was 8, now 9; {arms}; a was 01"):
        records.describe({"asked": {"training": {"steps": 9}}, **changed})


def test_a_trial_is_read_again_but_not_one_of_other_cases(records):
    tuning = Split(SPLIT.training, SPLIT.validation, ())
    candidates = [Trial(arm="scratch", labels=5, seed=0, split=tuning, settings=(s,)) for s in ("a=1", "a=2")]
    assert len({records.path(trial) for trial in (*candidates, TRIAL)}) == 3
    assert records.read(TRIAL) is None
    records.write(TRIAL, RECORD)
    assert records.read(TRIAL) == RECORD
    records.write(TRIAL, {**RECORD, "training": ["a", "c"]})
    with pytest.raises(TrainingError, match=r"seed-0\.json: was made otherwise: training was"):
        records.read(TRIAL)


DAMAGE = ["", "{", "[]", "null", "{}", "[" * 100_000, "\0" * 40, "\udcff"]


@pytest.mark.parametrize("content", [*DAMAGE, "flipped", '{"training": ["a", "b"], "settings": []}'])
def test_a_damaged_record_is_named(records, content):
    records.write(TRIAL, RECORD)
    path = records.path(TRIAL)
    content = path.read_text().replace("0.53", "0.93") if content == "flipped" else content
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"seed-0\.json: "):
        records.read(TRIAL)


@pytest.mark.parametrize("content", [*DAMAGE, '{"asked": [], "arms": {}, "files": {}}', '{"asked": {}, "arms": []}'])
def test_a_damaged_description_is_named(records, content):
    (records.folder / "comparison.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"comparison\.json: "):
        records.describe(ASKED)


def test_a_folder_is_held_by_one_process_and_that_of_something_else_left_alone(records, tmp_path):
    with pytest.raises(TrainingError, match="another process compares"):
        Records(records.folder)
    (tmp_path / "thesis.tex").touch()
    for taken in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(TrainingError, match="holds something else, or is a file"):
            Records(taken)


def test_the_work_folder_goes_and_takes_along_what_a_crash_left(records):
    (records.folder / ".work-old").mkdir()
    with records.work_folder() as work:
        assert work.is_dir()
        assert not (records.folder / ".work-old").exists()
    assert not work.exists()
