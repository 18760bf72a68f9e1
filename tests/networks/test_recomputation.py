import copy

import pytest
import torch

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.networks import build_network, recompute_activations

NETWORKS = {
    "batch": GenesisUNetConfig(dims=2, widths=(4, 8), norm="batch", statistics="running"),
    "instance": GenesisUNetConfig(widths=(4, 8), norm="instance"),
    "plain": PlainUNetConfig(widths=(4, 8)),
    "residual": ResidualUNetConfig(widths=(4, 8)),
    "classifier": ClassifierConfig(encoder=GenesisUNetConfig(dims=2, widths=(4, 8)), num_classes=2, hidden=4),
}


def train_once(network, batch):
    network.train()
    network(batch).square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return gradients, {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_gradients_and_running_averages_are_those_of_kept_activations_to_the_bit(kind):
    torch.manual_seed(0)
    kept = build_network(NETWORKS[kind])
    dims = getattr(kept.config, "encoder", kept.config).dims
    batch = torch.rand(2, 1, *(8,) * dims)
    anew = recompute_activations(copy.deepcopy(kept))
    assert list(anew.state_dict()) == list(kept.state_dict())
    gradients, after = train_once(kept, batch)
    gradients_anew, after_anew = train_once(anew, batch)
    assert gradients.keys() == gradients_anew.keys()
    assert all(torch.equal(gradients[name], gradients_anew[name]) for name in gradients)
    assert all(torch.equal(after[name], after_anew[name]) for name in after)


def test_fewer_activations_are_kept():
    config = GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance")
    batch = torch.rand(2, 1, 16, 16)

    def kept_values(network):
        values = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: values.append(x.numel()) or x, lambda x: x):
            network(batch).sum()
        return sum(values)

    network = build_network(config)
    before = kept_values(network)
    assert kept_values(recompute_activations(network)) < before / 2
