import signal
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.training.sampler import choose_workers, next_batch, start_loader, step_batches


@given(size=st.integers(1, 20), batch_size=st.integers(1, 8), steps=st.integers(1, 30), start=st.integers(0, 29))
def test_a_start_in_the_middle_gives_the_rest_of_the_same_batches(size, batch_size, steps, start):
    start = min(start, steps)
    whole, rest = (list(step_batches(size, batch_size, start=first, steps=steps, seed=1)) for first in (0, start))
    assert whole[start:] == rest


@given(size=st.integers(1, 20), share=st.integers(1, 4), world=st.integers(1, 4))
def test_processes_share_the_batches_of_one(size, share, world):
    steps = partial(step_batches, size, share * world, start=0, steps=5, seed=2)
    ranks = [list(steps(rank=rank, world_size=world)) for rank in range(world)]
    assert [[item for rank in ranks for item in rank[step]] for step in range(5)] == list(steps())


def test_an_epoch_is_every_sample_once():
    items = [item for batch in step_batches(6, 4, start=0, steps=3, seed=0) for item in batch]
    assert sorted(items) == list(range(12))
    assert Counter(item // 6 for item in items[:6]) == {0: 6}


def test_a_loader_leaves_the_handler_of_ended_children_as_it_was():
    before = signal.getsignal(signal.SIGCHLD)
    config = TrainingConfig(batch_size=1, workers=1)
    with start_loader([1, 2], config, start=0, steps=2) as loader:
        assert signal.getsignal(signal.SIGCHLD) == before
        assert next_batch(loader, 0).shape == (1,)
    with start_loader([1], config.override(workers=0), start=0, steps=2) as loader, pytest.raises(IndexError):
        list(loader)  # item 1 is that of the second epoch


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert choose_workers(-1) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert choose_workers(-1) == 4
    assert choose_workers(3) == 3
