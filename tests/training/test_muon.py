"""Muon: what its steps look like, and which parameters it is for."""

import pytest
import torch

from modelsgenesis.configs import FinetuningConfig, GenesisUNetConfig
from modelsgenesis.networks import build_network
from modelsgenesis.training.muon import Muon, orthogonalized
from modelsgenesis.training.steps import Optimization

RATE = 0.1


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (4, 8, 3, 3, 3), (16, 16, 1, 1)])
def test_a_step_turns_every_direction_of_a_kernel_by_as_much(shape):
    random = torch.Generator().manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(shape, generator=random))
    before, gradient = kernel.detach().clone(), torch.randn(shape, generator=random)
    gradient[0] *= 10  # a direction that leads by far
    kernel.grad = gradient.clone()
    Muon([{"params": [kernel], "kernels": True, "weight_decay": 0.0}], lr=RATE).step()
    step = ((before - kernel.detach()) / RATE).flatten(1)
    assert step.square().mean().sqrt() == pytest.approx(0.2, rel=0.3)
    values = torch.linalg.svdvals(step)
    assert values.max() < 4 * values.min()
    assert (step.flatten() @ gradient.flatten()) > 0  # downhill
    scaled = orthogonalized(1000 * gradient.flatten(1))
    torch.testing.assert_close(scaled, orthogonalized(gradient.flatten(1)), rtol=1e-3, atol=1e-3)


def test_kernels_of_hidden_layers_are_for_muon_and_all_else_for_adamw():
    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8)))
    optimization = Optimization(network, FinetuningConfig(optimizer="muon", weight_decay=0.1), size=8)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    turned = {
        names[id(p)] for group in optimization.optimizer.param_groups if group["kernels"] for p in group["params"]
    }
    kernels = {name for name, p in network.named_parameters() if p.ndim > 2}
    assert kernels - turned == {"encoder.levels.0.0.convolution.weight", "head.weight"}
    assert turned < kernels
    others = FinetuningConfig(optimizer="adamw")
    assert not any(group["kernels"] for group in Optimization(network, others, size=8).optimizer.param_groups)


def test_fits_a_line_of_convolutions_to_data():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    truth = torch.nn.Conv2d(2, 2, 3, padding=1).requires_grad_(False)
    optimization = Optimization(network, FinetuningConfig(optimizer="muon", learning_rate=1e-2, steps=200), size=8)
    losses = []
    for step in range(200):
        x = torch.randn(8, 2, 6, 6)
        optimization.begin(step)
        loss = (network(x) - truth(x)).square().mean()
        loss.backward()
        losses.append(optimization.finish(step, loss.detach())[0].item())
    assert losses[-1] < 0.1 * losses[0]
