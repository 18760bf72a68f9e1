import copy

import pytest
import torch
from torch import nn

from modelsgenesis.configs import GenesisUNetConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.training.optim import Optimization, count_steps, learning_rate

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
        network(batch).square().mean().backward()
        assert optimization.finish(step)


def moved(network, before):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
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


def test_pretrained_tensors_learn_at_their_share_of_the_rate():
    config = CONFIG.override(optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    steps = []
    for share in (1.0, 0.25):
        network, optimization = make(config.override(pretrained_lr_scale=share))
        before = copy.deepcopy(network.state_dict())
        train(network, optimization, 1)
        steps.append({name: value - before[name] for name, value in network.state_dict().items()})
    name = "encoder.levels.0.0.convolution.weight"
    torch.testing.assert_close(steps[1][name], steps[0][name] / 4, rtol=1e-3, atol=1e-8)
    assert torch.equal(steps[1]["head.weight"], steps[0]["head.weight"])


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


def test_a_gradient_that_is_not_finite_moves_nothing():
    network, optimization = make(CONFIG.override(clip_norm=0.0))
    before = {name: p.clone() for name, p in network.named_parameters()}
    optimization.begin(0)
    (network(torch.rand(2, 1, 8, 8)).mean() * float("inf")).backward()
    assert not optimization.finish(0)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_refuses_names_that_are_not_there_and_a_network_with_nothing_to_train():
    with pytest.raises(ConfigurationError, match=r"pretrained: 'encoder.x' and 0 more are not in the network"):
        Optimization(make(CONFIG)[0], CONFIG, size=1, pretrained=["encoder.x"])
    with pytest.raises(ConfigurationError, match="no parameter to train"):
        Optimization(nn.Linear(1, 1).requires_grad_(False), CONFIG, size=1)


def test_the_budget_ends_by_what_comes_first_and_the_rate_halves_as_in_2019():
    config = TrainingConfig(steps=100, epochs=3, batch_size=2, schedule="halving", halving_epochs=2, warmup_steps=0)
    assert count_steps(config, 7) == (12, 4)
    assert count_steps(config.override(epochs=None), 7) == (100, 4)
    rates = [learning_rate(config, step, 100, 5) / config.learning_rate for step in (0, 9, 10, 20)]
    assert rates == [1.0, 1.0, 0.5, 0.25]
