import copy

import pytest
import torch

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, PlainUNetConfig, ResidualUNetConfig
from modelsgenesis.networks import build_network, enable_activation_checkpointing, synchronise_batch_norm

NETWORKS = {
    "batch": GenesisUNetConfig(dims=2, widths=(4, 8), norm="batch", statistics="running"),
    "instance": GenesisUNetConfig(widths=(4, 8), norm="instance"),
    "plain": PlainUNetConfig(widths=(4, 8)),
    "residual": ResidualUNetConfig(widths=(4, 8)),
    "classifier": ClassifierConfig(encoder=GenesisUNetConfig(dims=2, widths=(4, 8)), num_classes=2, hidden=4),
}


@pytest.mark.parametrize(("device", "kind"), [("cpu", "SyncBatchNorm"), ("cuda", "SyncBatchNormCuda")])
def test_synchronised_batch_norms_keep_the_tensors_and_their_names(device, kind):
    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8)))
    before, names = dict(network.named_parameters()), list(network.state_dict())
    synchronise_batch_norm(network, torch.device(device))
    assert list(network.state_dict()) == names
    assert all(p is before[name] for name, p in network.named_parameters())
    norm = network.encoder.levels[0][0].norm
    assert (type(norm).__name__, norm.statistics) == (kind, "running")
    assert isinstance(norm, torch.nn.SyncBatchNorm) == (device == "cuda")


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_alone_and_in_evaluation_they_are_the_batch_norms_that_they_replace(statistics):
    plain = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), statistics=statistics))
    shared = synchronise_batch_norm(copy.deepcopy(plain), torch.device("cpu"))
    batch = torch.rand(2, 1, 8, 8)
    for training in (True, False):
        assert torch.equal(plain.train(training)(batch), shared.train(training)(batch))
    assert same(plain.state_dict(), shared.state_dict())


def same(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def gradients_of(network, batch):
    network.train()(batch).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_gradients_and_running_averages_are_those_of_kept_activations_to_the_bit(kind):
    torch.manual_seed(0)
    kept = build_network(NETWORKS[kind])
    anew = enable_activation_checkpointing(copy.deepcopy(kept))
    batch = torch.rand(2, 1, *(8,) * kept.config.unet.dims)
    assert same(gradients_of(kept, batch), gradients_of(anew, batch))
    assert same(kept.state_dict(), anew.state_dict())


def test_fewer_activations_are_kept():
    def kept_values(network):
        values = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: values.append(x.numel()) or x, lambda x: x):
            network(torch.rand(2, 1, 16, 16)).sum()
        return sum(values)

    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"))
    before = kept_values(network)
    assert kept_values(enable_activation_checkpointing(network)) < before / 2
