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


def test_alone_and_in_evaluation_they_are_the_batch_norms_that_they_replace():
    for statistics in ("batch", "running"):
        torch.manual_seed(0)
        plain = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), statistics=statistics))
        torch.manual_seed(0)
        shared = synchronise_batch_norm(build_network(plain.config), torch.device("cpu"))
        batch = torch.rand(2, 1, 8, 8)
        for training in (True, False):
            assert torch.equal(plain.train(training)(batch), shared.train(training)(batch))
        for name, value in plain.state_dict().items():
            assert torch.equal(value, shared.state_dict()[name]), name


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
    anew = enable_activation_checkpointing(copy.deepcopy(kept))
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
    assert kept_values(enable_activation_checkpointing(network)) < before / 2
