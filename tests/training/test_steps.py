"""The steps of a run: items, learning rate and update are functions of seed and step."""

import copy
import signal
from contextlib import closing
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelsgenesis.configs import GenesisUNetConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.training.steps import Optimization, load_batches, step_items

CONFIG = TrainingConfig(steps=10, warmup_steps=0, schedule="constant", learning_rate=0.1, weight_decay=0.1)


def make(config, *, norm="batch", pretrained="encoder."):
    torch.manual_seed(0)
    network = GenesisUNet(GenesisUNetConfig(dims=2, widths=(4, 8), norm=norm))
    names = [name for name in network.state_dict() if pretrained and name.startswith(pretrained)]
    return network, Optimization(network, config, size=20, pretrained=names)


def train(network, optimization, steps, start=0):
    batch = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for step in range(start, start + steps):
        optimization.begin(step)
        loss = network(batch).square().mean()
        loss.backward()
        assert optimization.finish(step, loss).isfinite().all()


def moved(network, before):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("optimizer", "norm"), [("sgd", "batch"), ("adam", "instance"), ("adamw", "batch"), ("muon", "batch")]
)
def test_what_is_pretrained_stays_to_the_bit_until_it_is_thawed(optimizer, norm):
    config = CONFIG.override(optimizer=optimizer, freeze_steps=3)
    network, optimization = make(config, norm=norm)
    before = copy.deepcopy(network.state_dict())
    train(network, optimization, 3)
    names = moved(network, before)
    assert names
    assert not any(name.startswith("encoder.") for name in names)
    train(network, optimization, 1, start=3)
    assert any(name.startswith("encoder.") for name in moved(network, before))


def test_what_was_frozen_warms_up_when_its_turn_comes():
    _, optimization = make(CONFIG.override(freeze_steps=3, warmup_steps=2, pretrained_lr_scale=0.5))
    rates = [
        (optimization.begin(step), *(group["lr"] for group in optimization.optimizer.param_groups)) for step in range(6)
    ]
    assert all(fresh == rate for rate, fresh, *_ in rates)
    assert [old / rate for rate, *_, old in rates] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.5])


def test_matrices_decay_and_scales_and_biases_do_not():
    groups = make(CONFIG)[1].optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    assert len(make(CONFIG, pretrained="")[1].optimizer.param_groups) == 2


def test_refuses_names_that_are_not_there_and_a_network_with_nothing_to_train():
    with pytest.raises(ConfigurationError, match=r"pretrained: 'encoder.x' and 0 more are not in the network"):
        Optimization(make(CONFIG)[0], CONFIG, size=1, pretrained=["encoder.x"])
    with pytest.raises(ConfigurationError, match="no parameter to train"):
        Optimization(nn.Linear(1, 1).requires_grad_(False), CONFIG, size=1)


def test_the_budget_ends_by_what_comes_first_and_the_rate_halves_as_in_2019():
    config = TrainingConfig(steps=100, epochs=3, batch_size=2, schedule="halving", halving_epochs=2, warmup_steps=0)
    for epochs, steps in ((3, 12), (None, 100)):
        optimization = Optimization(nn.Linear(1, 1), config.override(epochs=epochs), size=7)
        assert (optimization.steps, optimization.per_epoch) == (steps, 4)
        rates = [optimization.begin(step) / config.learning_rate for step in (0, 7, 8, 16)]
        assert rates == [1.0, 1.0, 0.5, 0.25]
    config = config.override(schedule="cosine", warmup_steps=10, epochs=None)
    optimization = Optimization(nn.Linear(1, 1), config, size=7)
    rates = [optimization.begin(step) / config.learning_rate for step in (0, 9, 55, 99)]
    assert rates == pytest.approx([0.1, 1, 0.5, 0], abs=1e-3)


@given(
    size=st.integers(1, 20), share=st.integers(1, 4), world=st.integers(1, 4), start=st.integers(0, 20), seed=st.just(1)
)
def test_neither_a_start_in_the_middle_nor_several_processes_change_the_batches(size, share, world, start, seed):
    whole = list(step_items(size, share * world, start=0, steps=20, seed=seed))
    ranks = [
        list(step_items(size, share * world, start=start, steps=20, seed=seed, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole[start:]
    items = [item for batch in whole for item in batch]
    assert len(items) < size or sorted(items[:size]) == list(range(size))  # an epoch is every sample once


def test_a_loader_leaves_the_handler_of_ended_children_as_it_was(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # each of four processes takes half of its two cores
    before = signal.getsignal(signal.SIGCHLD)
    with closing(load_batches([1, 2], TrainingConfig(batch_size=1, workers=-1), start=0, steps=2)) as loader:
        batch, items = next(loader)
        assert signal.getsignal(signal.SIGCHLD) == before
        assert batch.tolist() == [items[0] + 1]
        assert loader.gi_frame.f_locals["iterator"]._num_workers == 1
    with pytest.raises(IndexError):
        list(load_batches([1], TrainingConfig(batch_size=1, workers=0), start=0, steps=2))  # an item of epoch 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize(("loss", "limit"), [(float("nan"), None), (float("inf"), None), (3.0, 2.0), (0.5, 2.0)])
def test_from_a_step_that_diverges_on_nothing_moves_and_nothing_is_read(optimizer, loss, limit):
    """The next step reads nothing either: a GPU is told, not asked."""
    network, optimization = make(CONFIG.override(optimizer=optimizer))
    train(network, optimization, 2)
    if limit:
        optimization.limit = limit
    before = copy.deepcopy((list(network.parameters()), optimization.optimizer.state_dict()))
    optimization.begin(2)
    sum(p.sum() for p in network.parameters()).backward()
    optimization.finish(2, torch.tensor(loss))
    if loss != 0.5:
        train(network, optimization, 1, start=3)
        torch.testing.assert_close(before, (list(network.parameters()), optimization.optimizer.state_dict()))
    else:
        assert not any(map(torch.equal, before[0], network.parameters()))
